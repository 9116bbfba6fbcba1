//! Probes: short clusters above the estimate that show whether the line carries more.
//!
//! [`Probes`] says what to send and reads what came of it; what the packets are (retransmissions, padding, media that
//! waits) is their sender's to choose. Nothing is probed that nobody wants.
//!
//! ```text
//! start:   3× and 6× the first estimate, one after the other
//! proven:  2× what was proven, at once, while more is wanted
//! wanted:  2× the estimate, each second; 1.5× and rarer while it shows nothing new
//! recover: what there was before a fall, within 3× the estimate
//! ```

use std::num::NonZeroU16;
use std::time::Duration;

use crate::pacer::CLUSTER_EXPIRY;
use crate::{BitRate, Time};

/// Fewer packets measure their own jitter.
const MIN_PACKETS: u32 = 5;
/// Shorter clusters too; longer ones fill queues. Where the delay scatters they last longer by [`OF_NOISE`] of that.
const SPAN: Duration = Duration::from_millis(15);
const MAX_SPAN: Duration = Duration::from_millis(50);
const OF_NOISE: u32 = 3;
/// Lines that are shaped by a bucket of tokens let a little through at any rate: less than this shows nothing, unless it
/// would take longer.
const LEAST_BYTES: u64 = 4_000;
/// One that confirms what contradicts all that was known: longer than the pauses between others' frames.
const CONFIRMING_SPAN: Duration = Duration::from_millis(40);
/// Of a cluster so much must have arrived.
const ARRIVED: f64 = 0.8;
/// Arriving slower than this share of its sending, a cluster met a full line.
const SATURATED: f64 = 0.9;
/// But not by less than this, in microseconds: so much is jitter.
const JITTER: i64 = 2_000;
/// Of a full line's rate so much is taken.
const OF_SATURATED: f64 = 0.95;
/// A cluster that arrives so much faster than it was sent was held up and released: it shows nothing.
const IMPLAUSIBLE: f64 = 2.0;
/// The parts of a cluster that are compared.
const HEAD: f64 = 0.4;
const TAIL: f64 = 0.55;
/// Without a result after this a cluster is given up.
const EXPIRY: Duration = Duration::from_secs(1);
/// Clusters under way at once.
const FLIGHTS: usize = 4;

const START_FACTORS: [f64; 2] = [3.0, 6.0];
const FURTHER: f64 = 2.0;
/// Where the last probe showed nothing new, the next asks for less: it only looks whether something changed.
const AGAIN: f64 = 1.5;
/// A result above this share of what was asked for may be only the beginning.
const PROMISING: f64 = 0.7;
/// What was wanted is probed with some margin, since an estimate needs headroom.
const MARGIN: f64 = 1.15;
/// Most that a cluster asks for, in estimates.
const MAX_FACTOR: f64 = 3.0;
/// Of a rate that was lost so much is tried again.
const RECOVERY: f64 = 0.85;
/// A result must exceed the estimate by this to be news.
const NEWS: f64 = 1.05;

const INTERVAL: Duration = Duration::from_secs(1);
/// The same while what is sent leaves much of the estimate free: then a probe is in nobody's way.
const QUICK: Duration = Duration::from_millis(500);
/// Added for each probe that showed nothing. An up-switch waits for at most this; a probe costs 15 ms of doubled rate.
const BACK_OFF: Duration = Duration::from_millis(250);
const MAX_INTERVAL: Duration = Duration::from_millis(1_250);
/// After a fall the line's rate is known, and others may just have fallen too. A fall below a share of what was may have
/// been an accident, and is doubted sooner.
const AFTER_FALL: Duration = Duration::from_millis(1_500);
const AFTER_FAR_FALL: Duration = Duration::from_secs(1);
const FAR: f64 = 0.6;

/// Names a cluster; packets sent for it carry it in [`crate::Estimator::on_sent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterId(NonZeroU16);

/// Why a cluster is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeReason {
    Start,
    /// The one before proved its rate.
    Further,
    /// Somebody wants more than the estimate.
    Wanted,
    /// There was more before a fall.
    Recovery,
}

/// Packets to send at `rate`: at least so many and at least so many bytes, together 15 ms, or more where delays scatter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeCluster {
    pub id: ClusterId,
    pub rate: BitRate,
    pub packets: u32,
    pub bytes: u64,
    pub reason: ProbeReason,
}

/// What a cluster showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// What the cluster was to be sent at.
    pub asked: BitRate,
    pub rate: BitRate,
    /// It met a full line: `rate` is about all there is.
    pub saturated: bool,
    /// It was asked for to confirm another.
    pub confirmed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    cluster: ProbeCluster,
    asked: Time,
    confirms: bool,
    sent_packets: u32,
    arrived_packets: u32,
    bytes: u64,
    first_sent: i64,
    last_sent: i64,
    last_sent_bytes: u16,
    /// Of the first and of the last packets those that waited least: others may just have been late.
    head: Option<Arrival>,
    tail: Option<Arrival>,
}

/// A packet of a cluster at the far end.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    sent: i64,
    arrived: i64,
    /// What had arrived of the cluster then, this packet included.
    total: u64,
}

/// When to probe, and what for. Bound: [`FLIGHTS`] clusters.
#[derive(Debug)]
#[repr(C)] // what each feedback asks for comes first
pub struct Probes {
    wanted: BitRate,
    not_before: Time,
    /// When a probe was last asked for or told something, or the estimate fell; the next has its [`Self::interval`].
    last: Option<Time>,
    is_quick: bool,
    /// How many of `flights` there are: mostly none, and then nothing is looked through.
    under_way: u8,
    /// The next is to confirm the one before.
    confirms: bool,
    next_id: NonZeroU16,
    fruitless: u32,
    further: Option<BitRate>,
    recover: Option<BitRate>,
    /// What remains of the start.
    start: &'static [f64],
    flights: [Option<Flight>; FLIGHTS],
}

impl Probes {
    pub fn new(now: Time) -> Self {
        Self {
            flights: [None; FLIGHTS],
            under_way: 0,
            next_id: NonZeroU16::MIN,
            start: &START_FACTORS,
            further: None,
            confirms: false,
            recover: None,
            wanted: BitRate::ZERO,
            not_before: now,
            last: None,
            fruitless: 0,
            is_quick: false,
        }
    }

    pub fn set_wanted(&mut self, wanted: BitRate) {
        self.wanted = wanted;
    }

    /// Whether what is sent leaves much of the estimate free.
    pub fn set_roomy(&mut self, roomy: bool) {
        self.is_quick = roomy;
    }

    /// Whether more is wanted than the estimate.
    pub fn are_wanted(&self, estimate: BitRate) -> bool {
        self.wanted > estimate
    }

    /// No more is wanted for now.
    pub fn forget_further(&mut self) {
        self.further = None;
    }

    /// The next cluster to send. `calm` is whether the line shows no congestion, `noise`
    /// how much delays scatter.
    pub fn poll(
        &mut self,
        now: Time,
        estimate: BitRate,
        calm: bool,
        noise: Duration,
    ) -> Option<ProbeCluster> {
        self.expire(now);
        if !calm || !self.are_wanted(estimate) {
            self.further = None;
            return None;
        }
        let (rate, reason) = self.next(now, estimate)?;
        let confirms = std::mem::take(&mut self.confirms);
        let span = if confirms { CONFIRMING_SPAN } else { SPAN };
        let rate = rate.min(self.wanted.scaled(MARGIN));
        let slot = self.flights.iter_mut().find(|slot| slot.is_none())?;
        let cluster = ProbeCluster {
            id: ClusterId(self.next_id),
            rate,
            packets: MIN_PACKETS,
            bytes: rate
                .bytes_in((span + noise * OF_NOISE).min(MAX_SPAN))
                .max(LEAST_BYTES.min(rate.bytes_in(MAX_SPAN))),
            reason,
        };
        self.next_id = self.next_id.checked_add(1).unwrap_or(NonZeroU16::MIN);
        *slot = Some(Flight::new(cluster, now, confirms));
        self.under_way += 1;
        Some(cluster)
    }

    /// When [`Self::poll`] may have more to say though nothing happens; never while nothing is wanted.
    pub fn next_timeout(&self, estimate: BitRate) -> Time {
        if self.are_wanted(estimate) { self.due() } else { Time::NEVER }
    }

    pub fn on_sent(&mut self, cluster: ClusterId, sent: i64, bytes: u16) {
        let Some(flight) = self.flight(cluster) else { return };
        if flight.sent_packets == 0 {
            flight.first_sent = sent;
        }
        flight.sent_packets += 1;
        flight.last_sent = sent;
        flight.last_sent_bytes = bytes;
    }

    pub fn on_arrived(&mut self, cluster: ClusterId, sent: i64, arrived: i64, bytes: u16) {
        let Some(flight) = self.flight(cluster) else { return };
        let position = flight.position();
        flight.arrived_packets += 1;
        flight.bytes += u64::from(bytes);
        let arrival = Arrival { sent, arrived, total: flight.bytes };
        if position < HEAD {
            flight.head = Some(arrival.or_earlier(flight.head));
        } else if position >= TAIL {
            flight.tail = Some(arrival.or_earlier(flight.tail));
        }
    }

    /// After each feedback: the best that a complete cluster showed.
    pub fn conclude(&mut self, now: Time, estimate: BitRate) -> Option<ProbeResult> {
        if !self.is_under_way() {
            return None;
        }
        self.expire(now);
        let mut best: Option<ProbeResult> = None;
        for slot in &mut self.flights {
            let Some(flight) = slot.filter(Flight::is_complete) else { continue };
            *slot = None;
            self.under_way -= 1;
            let Some(result) = flight.result() else { continue };
            if !result.saturated && result.rate >= flight.cluster.rate.scaled(PROMISING) {
                let further = result.rate.scaled(FURTHER);
                self.further = Some(self.further.map_or(further, |before| before.max(further)));
            }
            best = Some(best.filter(|best| best.rate >= result.rate).unwrap_or(result));
        }
        let result = best?;
        if result.rate > estimate.scaled(NEWS) {
            self.fruitless = 0;
        } else {
            self.fruitless += 1;
            self.further = None;
        }
        self.last = Some(now);
        Some(result)
    }

    /// The estimate fell.
    pub fn on_fall(&mut self, now: Time, before: BitRate, after: BitRate) {
        self.start = &[];
        self.further = None;
        let far = after < before.scaled(FAR);
        if far {
            self.recover = Some(self.recover.map_or(before, |recover| recover.max(before)));
        }
        self.last = Some(now);
        self.not_before = now + if far { AFTER_FAR_FALL } else { AFTER_FALL };
        self.fruitless = 0;
    }

    /// A result contradicts what was known: asks again at once, for longer.
    pub fn confirm(&mut self, rate: BitRate) {
        self.further = Some(rate);
        self.confirms = true;
    }

    /// There may be more, and now is the time to ask.
    pub fn hurry(&mut self, now: Time) {
        self.not_before = self.not_before.min(now);
        self.last = None;
    }

    fn is_under_way(&self) -> bool {
        self.under_way > 0
    }

    fn next(&mut self, now: Time, estimate: BitRate) -> Option<(BitRate, ProbeReason)> {
        if let Some((factor, rest)) = self.start.split_first() {
            self.start = rest;
            return Some((estimate.scaled(*factor), ProbeReason::Start));
        }
        if let Some(rate) = self.further.take().filter(|rate| *rate > estimate.scaled(NEWS)) {
            return Some((rate.min(estimate.scaled(MAX_FACTOR)), ProbeReason::Further));
        }
        if now < self.due() || self.is_under_way() {
            return None;
        }
        self.last = Some(now);
        if let Some(before) = self.recover.take().map(|before| before.scaled(RECOVERY))
            && before > estimate.scaled(FURTHER)
        {
            return Some((before.min(estimate.scaled(MAX_FACTOR)), ProbeReason::Recovery));
        }
        let factor = if self.fruitless > 0 && !self.is_quick { AGAIN } else { FURTHER };
        Some((estimate.scaled(factor), ProbeReason::Wanted))
    }

    /// When there may be the next that nothing else asks for.
    fn due(&self) -> Time {
        self.last.map_or(self.not_before, |last| self.not_before.max(last + self.interval()))
    }

    fn interval(&self) -> Duration {
        if self.is_quick {
            return QUICK;
        }
        (INTERVAL + BACK_OFF * self.fruitless.min(8)).min(MAX_INTERVAL)
    }

    fn flight(&mut self, id: ClusterId) -> Option<&mut Flight> {
        self.flights.iter_mut().flatten().find(|flight| flight.cluster.id == id)
    }

    fn expire(&mut self, now: Time) {
        if !self.is_under_way() {
            return;
        }
        for slot in &mut self.flights {
            let Some(flight) = slot.filter(|flight| flight.is_expired(now)) else { continue };
            *slot = None;
            self.under_way -= 1;
            if flight.sent_packets == 0 && flight.cluster.reason == ProbeReason::Start && self.last.is_none()
            {
                self.start = &START_FACTORS; // nothing was asked of the line yet
            }
        }
    }
}

impl Flight {
    fn is_expired(&self, now: Time) -> bool {
        // Of one that the pacer gave up nothing left: there was nothing to send it with.
        let expiry = if self.sent_packets == 0 { CLUSTER_EXPIRY } else { EXPIRY };
        now.saturating_duration_since(self.asked) > expiry
    }

    fn new(cluster: ProbeCluster, asked: Time, confirms: bool) -> Self {
        Self {
            cluster,
            asked,
            confirms,
            sent_packets: 0,
            arrived_packets: 0,
            bytes: 0,
            first_sent: 0,
            last_sent: 0,
            last_sent_bytes: 0,
            head: None,
            tail: None,
        }
    }

    /// How much of the cluster arrived, as a share.
    fn position(&self) -> f64 {
        let packets = f64::from(self.arrived_packets) / f64::from(self.cluster.packets.max(1));
        packets.min(self.bytes as f64 / self.cluster.bytes.max(1) as f64)
    }

    fn is_complete(&self) -> bool {
        self.sent_packets >= self.cluster.packets
            && f64::from(self.arrived_packets) >= ARRIVED * f64::from(self.sent_packets)
            && self.bytes as f64 >= ARRIVED * self.cluster.bytes as f64
    }

    /// Whether the line was full shows in how much longer than the first packets the last ones took. A late packet says
    /// nothing, since every packet but a few is late by chance and none is early; so the least delayed ones are compared.
    ///
    /// A pacer waits after each packet for as long as that packet takes, so from one packet to another it sent the
    /// bytes from the first up to but without the second; a full line takes as long before each packet, so there
    /// it is those after the first up to and with the second.
    fn result(&self) -> Option<ProbeResult> {
        let (head, tail) = (self.head?, self.tail?);
        let (sent, arrived) = (tail.sent - head.sent, tail.arrived - head.arrived);
        let whole = self.last_sent - self.first_sent;
        if sent <= 0 || arrived <= 0 || whole <= 0 {
            return None;
        }
        let (stretch, taken) = (arrived as f64 / sent as f64, arrived - sent);
        if stretch < 1.0 / IMPLAUSIBLE {
            return None;
        }
        let sent = BitRate::over(self.bytes.saturating_sub(self.last_sent_bytes.into()), whole);
        let saturated = stretch > 1.0 / SATURATED && taken > JITTER;
        let rate = if saturated {
            BitRate::over(tail.total.saturating_sub(head.total), arrived).scaled(OF_SATURATED)
        } else {
            sent
        };
        let rate = rate.min(sent);
        Some(ProbeResult { asked: self.cluster.rate, rate, saturated, confirmed: self.confirms })
    }
}

impl Arrival {
    /// Whichever took less time; this one if `other` is none.
    fn or_earlier(self, other: Option<Self>) -> Self {
        let delay = |one: &Self| one.arrived - one.sent;
        other.filter(|other| delay(other) <= delay(&self)).unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTIMATE: BitRate = BitRate::from_kbps(300);

    fn start() -> Time {
        Time::ZERO + Duration::from_secs(9)
    }

    /// Sends the cluster over an empty line of `line` and concludes.
    fn play(probes: &mut Probes, now: Time, cluster: ProbeCluster, line: BitRate) -> Option<ProbeResult> {
        let size = (cluster.bytes / u64::from(cluster.packets)) as u16 + 1;
        let (mut sent, mut free) = (0, 50_000);
        for _ in 0..cluster.packets {
            probes.on_sent(cluster.id, sent, size);
            free = free.max(sent + 50_000) + line.time_for(size.into()).as_micros() as i64;
            probes.on_arrived(cluster.id, sent, free, size);
            sent += cluster.rate.time_for(size.into()).as_micros() as i64;
        }
        probes.conclude(now, ESTIMATE)
    }

    #[test]
    fn begins_with_three_and_six_times_and_goes_on_while_it_is_proven() {
        let now = start();
        let mut probes = Probes::new(now);
        assert_eq!(probes.poll(now, ESTIMATE, true, Duration::ZERO), None, "nobody wants anything");
        probes.set_wanted(BitRate::from_kbps(10_000));
        let first = probes.poll(now, ESTIMATE, true, Duration::ZERO).unwrap();
        let second = probes.poll(now, ESTIMATE, true, Duration::ZERO).unwrap();
        assert_eq!((first.rate, second.rate), (ESTIMATE.scaled(3.0), ESTIMATE.scaled(6.0)));
        assert_eq!(probes.poll(now, ESTIMATE, true, Duration::ZERO), None);
        let line = BitRate::from_kbps(20_000);
        let result = play(&mut probes, now, second, line).unwrap();
        assert!(!result.saturated && result.rate >= ESTIMATE.scaled(5.9), "{result:?}");
        let third = probes.poll(now, result.rate, true, Duration::ZERO).unwrap();
        assert_eq!((third.reason, third.rate), (ProbeReason::Further, result.rate.scaled(2.0)));
    }

    #[test]
    fn a_full_line_is_measured_and_not_asked_again_at_once() {
        let now = start();
        let mut probes = Probes::new(now);
        probes.set_wanted(BitRate::from_kbps(10_000));
        probes.poll(now, ESTIMATE, true, Duration::ZERO).unwrap();
        let cluster = probes.poll(now, ESTIMATE, true, Duration::ZERO).unwrap();
        let result = play(&mut probes, now, cluster, BitRate::from_kbps(700)).unwrap();
        assert!(result.saturated);
        assert!((600..=700).contains(&(result.rate.bps() / 1_000)), "{result:?}");
        assert_eq!(probes.poll(now, result.rate, true, Duration::ZERO), None);
        let later = now + Duration::from_millis(1_500);
        let again = probes.poll(later, result.rate, true, Duration::ZERO).unwrap();
        assert_eq!(again.reason, ProbeReason::Wanted);
    }

    #[test]
    fn a_large_packet_before_small_ones_is_no_full_line() {
        let now = start();
        let mut probes = Probes::new(now);
        probes.set_wanted(BitRate::MAX);
        let cluster = probes.poll(now, ESTIMATE, true, Duration::ZERO).unwrap();
        let mut sent = 0;
        for size in std::iter::once(1_200).chain([200; 14]) {
            probes.on_sent(cluster.id, sent, size);
            probes.on_arrived(cluster.id, sent, sent + 50_000, size);
            sent += cluster.rate.time_for(size.into()).as_micros() as i64;
        }
        let result = probes.conclude(now, ESTIMATE).unwrap();
        assert!(!result.saturated && result.rate >= cluster.rate.scaled(0.99), "{result:?}");
    }

    #[test]
    fn asks_for_little_more_than_is_wanted_and_only_on_a_calm_line() {
        let now = start();
        let mut probes = Probes::new(now);
        probes.set_wanted(BitRate::from_kbps(400));
        assert_eq!(probes.poll(now, ESTIMATE, false, Duration::ZERO), None);
        let cluster = probes.poll(now, ESTIMATE, true, Duration::ZERO).unwrap();
        assert!(cluster.rate <= BitRate::from_kbps(460), "{:?}", cluster.rate);
    }

    #[test]
    fn clusters_whose_arrivals_make_no_sense_show_nothing() {
        for (first, step) in [(0, 0), (5_000, -1_000), (i64::from(i32::MAX), 1), (0, 10)] {
            let now = start();
            let mut probes = Probes::new(now);
            probes.set_wanted(BitRate::MAX);
            let cluster = probes.poll(now, ESTIMATE, true, Duration::ZERO).unwrap();
            for packet in 0..i64::from(cluster.packets) {
                probes.on_sent(cluster.id, packet * 4_000, 600);
                probes.on_arrived(cluster.id, packet * 4_000, first + step * packet, 600);
            }
            let result = probes.conclude(now, ESTIMATE);
            assert!(result.is_none_or(|result| result.rate <= cluster.rate.scaled(1.4)), "{result:?}");
        }
    }
}
