//! May it go now? A pacer that holds nothing: queues are its caller's.
//!
//! What stays within the budget goes straight through. A burst (a key frame, a late joiner's replay) is spread at a
//! little over the target; audio never waits, and retransmissions wait less than pictures. A probe cluster sets a pace
//! of its own for some 15 ms, of media if there is any and of padding otherwise.

use std::time::Duration;

use crate::{BitRate, ClusterId, ProbeCluster, Time};

/// The pace in targets. More sends key frames sooner and fills the queue before the line with them.
const PACE: f64 = 1.2;
/// What may go at once, as time at the pace, until the caller says otherwise.
const BURST: Duration = Duration::from_millis(5);
/// Retransmissions are few, late already, and may overtake this much.
const RETRANSMISSION_BURST: Duration = Duration::from_millis(30);
/// Debts are forgotten beyond this: audio alone may exceed a tiny target, and pictures must not wait for ever.
const MAX_DEBT: Duration = Duration::from_millis(500);
const MAX_NANOS: u64 = MAX_DEBT.as_nanos() as u64;
/// A cluster that could not be sent within this is given up.
pub(crate) const CLUSTER_EXPIRY: Duration = Duration::from_millis(200);
/// RTP padding ends at 255 bytes (RFC 3550 §5.1), retransmissions at the size of a packet.
const MAX_PADDING: u64 = 1_200;
const MIN_PADDING: u64 = 50;

/// What waits, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Audio,
    Retransmission,
    Video,
}

/// `began` comes first: it says whether there is one.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Running {
    began: Option<Time>,
    asked: Time,
    cluster: ProbeCluster,
    packets: u32,
    bytes: u64,
}

const FRACTION: u32 = 16;

fn per_byte(target: BitRate) -> u64 {
    const NANOS_OF_A_BIT_A_SECOND: u64 = 8_000_000_000;
    (NANOS_OF_A_BIT_A_SECOND << FRACTION) / target.scaled(PACE).bps().max(1)
}

/// One peer's budget of sending. What each packet asks for comes first.
#[derive(Debug)]
#[repr(C)]
pub struct Pacer {
    /// What a byte takes at the pace: nanoseconds, in 65,536ths. A division for each packet would cost more.
    per_byte: u64,
    /// When what was sent so far will have passed at the pace.
    free_at: Time,
    burst: Duration,
    running: Option<Running>,
    /// A second cluster that waits for the first, and since when.
    next: Option<(Time, ProbeCluster)>,
    target: BitRate,
}

impl Pacer {
    pub fn new(now: Time, target: BitRate) -> Self {
        let per_byte = per_byte(target);
        Self { target, per_byte, burst: BURST, free_at: now, running: None, next: None }
    }

    pub fn set_target(&mut self, target: BitRate) {
        if target != self.target {
            (self.target, self.per_byte) = (target, per_byte(target));
        }
    }

    /// How much of pictures may go at once, as time at the pace. 5 ms from the beginning: so much do pictures then add
    /// to the wait of audio behind them.
    pub fn set_burst(&mut self, burst: Duration) {
        self.burst = burst;
    }

    /// Lets pictures wait until then, at most as long as debts last.
    pub fn hold(&mut self, until: Time) {
        self.free_at = self.free_at.max(until);
    }

    /// Sends a probe as soon as what runs is done; one more waits at most.
    pub fn probe(&mut self, now: Time, cluster: ProbeCluster) {
        self.expire(now);
        if self.running.is_none() {
            self.running = Some(Running::new(now, cluster));
        } else {
            self.next = Some((now, cluster));
        }
    }

    /// When a packet may go; what is not after `now` goes at once.
    #[inline]
    pub fn when(&self, now: Time, class: Class) -> Time {
        let burst = match class {
            Class::Audio => return now,
            Class::Retransmission => RETRANSMISSION_BURST.max(self.burst),
            Class::Video => self.burst,
        };
        (self.free_at - burst).min(self.next_of_cluster())
    }

    /// When padding is due for a probe, unless media goes in its place; [`Time::NEVER`] without a probe.
    pub fn next_of_cluster(&self) -> Time {
        let Some(running) = &self.running else { return Time::NEVER };
        let passed = running.cluster.rate.time_for(running.bytes);
        running.began.map_or(running.asked, |began| began + passed)
    }

    /// How much padding to send now.
    pub fn padding(&mut self, now: Time) -> Option<usize> {
        self.expire(now);
        let due = self.next_of_cluster();
        let cluster = self.running.as_ref()?.cluster;
        let bytes = cluster.bytes.div_ceil(u64::from(cluster.packets.max(1)));
        (due <= now).then_some(bytes.clamp(MIN_PADDING, MAX_PADDING) as usize)
    }

    /// Notes what was sent, and says which probe it was part of.
    #[inline]
    pub fn on_sent(&mut self, now: Time, bytes: usize) -> Option<ClusterId> {
        let bytes = bytes as u64;
        let nanos = bytes.saturating_mul(self.per_byte) >> FRACTION;
        self.free_at = self.free_at.max(now).plus_nanos(nanos.min(MAX_NANOS)).min(now + MAX_DEBT);
        self.expire(now);
        let running = self.running.as_mut()?;
        running.began.get_or_insert(now);
        running.packets += 1;
        running.bytes += bytes;
        let cluster = running.cluster;
        if running.packets >= cluster.packets && running.bytes >= cluster.bytes {
            self.advance(now);
        }
        Some(cluster.id)
    }

    fn expire(&mut self, now: Time) {
        if self.running.as_ref().is_some_and(|running| is_expired(running.asked, now)) {
            self.advance(now);
        }
    }

    fn advance(&mut self, now: Time) {
        let next = self.next.take().filter(|(asked, _)| !is_expired(*asked, now));
        self.running = next.map(|(asked, cluster)| Running::new(asked, cluster));
    }
}

impl Running {
    fn new(asked: Time, cluster: ProbeCluster) -> Self {
        Self { asked, cluster, began: None, packets: 0, bytes: 0 }
    }
}

fn is_expired(asked: Time, now: Time) -> bool {
    now.saturating_duration_since(asked) > CLUSTER_EXPIRY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Probes;

    fn start() -> Time {
        Time::ZERO + Duration::from_secs(9)
    }

    #[test]
    fn a_steady_stream_goes_straight_through_and_a_burst_is_spread() {
        let now = start();
        let mut pacer = Pacer::new(now, BitRate::from_kbps(1_000));
        for packet in 0..100 {
            let at = now + Duration::from_millis(10) * packet;
            assert!(pacer.when(at, Class::Video) <= at, "packet {packet}");
            pacer.on_sent(at, 1_200);
        }
        let (begin, mut at) = (now + Duration::from_secs(2), now + Duration::from_secs(2));
        for _ in 0..50 {
            at = at.max(pacer.when(at, Class::Video));
            pacer.on_sent(at, 1_200);
        }
        let took = at - begin;
        assert!(took > Duration::from_millis(370) && took < Duration::from_millis(410), "{took:?}");
        assert_eq!(pacer.when(at, Class::Audio), at, "audio waits for nothing");
        assert!(pacer.when(at, Class::Retransmission) < pacer.when(at, Class::Video));
    }

    #[test]
    fn a_probe_without_media_is_padding_at_its_pace() {
        let now = start();
        let mut probes = Probes::new(now);
        probes.set_wanted(BitRate::MAX);
        let cluster = probes.poll(now, BitRate::from_kbps(400), true, Duration::ZERO).unwrap();
        let mut pacer = Pacer::new(now, BitRate::from_kbps(400));
        pacer.probe(now, cluster);
        let (mut at, mut bytes, mut packets) = (now, 0, 0);
        while pacer.next_of_cluster() < Time::NEVER {
            at = at.max(pacer.next_of_cluster());
            let padding = pacer.padding(at).expect("it is due");
            assert_eq!(pacer.on_sent(at, padding), Some(cluster.id));
            bytes += padding;
            packets += 1;
        }
        assert!(packets >= cluster.packets && bytes as u64 >= cluster.bytes);
        assert!(at - now < Duration::from_millis(30), "{:?}", at - now);
    }

    #[test]
    fn what_could_not_be_sent_makes_room_for_what_is_asked_then() {
        let now = start();
        let mut probes = Probes::new(now);
        probes.set_wanted(BitRate::MAX);
        let mut pacer = Pacer::new(now, BitRate::from_kbps(400));
        let mut ask = |pacer: &mut Pacer, at: Time| {
            let rate = BitRate::from_kbps(400);
            let asked: Vec<_> = std::iter::from_fn(|| probes.poll(at, rate, true, Duration::ZERO)).collect();
            asked.iter().for_each(|cluster| pacer.probe(at, *cluster));
            asked
        };
        let first = ask(&mut pacer, now);
        let later = now + CLUSTER_EXPIRY + Duration::from_millis(1);
        assert!(ask(&mut pacer, later - Duration::from_millis(2)).is_empty());
        let again = ask(&mut pacer, later);
        let rates = |clusters: &[ProbeCluster]| clusters.iter().map(|one| one.rate).collect::<Vec<_>>();
        assert_eq!(rates(&again), rates(&first), "nothing was learnt");
        let mut sent = Vec::new();
        while pacer.next_of_cluster() < Time::NEVER {
            let at = pacer.next_of_cluster();
            let padding = pacer.padding(at).expect("it is due");
            sent.extend(pacer.on_sent(at, padding));
        }
        sent.dedup();
        assert_eq!(sent, [again[0].id, again[1].id]);
    }

    #[test]
    fn no_debt_lasts_for_ever() {
        let now = start();
        let mut pacer = Pacer::new(now, BitRate::ZERO);
        for _ in 0..1_000 {
            pacer.on_sent(now, 60_000);
        }
        assert!(pacer.when(now, Class::Video) <= now + MAX_DEBT);
    }
}
