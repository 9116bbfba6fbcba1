//! One peer's line: everything that is known of it, and the rate that follows.

use std::time::Duration;

use weir_rtp::rtcp::{TICKS_PER_SECOND, TransportFeedback};

use crate::acknowledged::Acknowledged;
use crate::control::{Belief, Phase, RateControl, Signals, Verdict};
use crate::dips;
use crate::grouping::Grouping;
use crate::history::{Fate, SentHistory};
use crate::limited::ApplicationLimited;
use crate::loss::LossControl;
use crate::probe::{ProbeResult, Probes};
use crate::queue::QueueDelay;
use crate::round_trip::RoundTrip;
use crate::trend::{Trend, Usage};
use crate::{BitRate, ClusterId, ProbeCluster, Time};

/// Microseconds of a tick of feedback.
const TICK: i64 = 1_000_000 / TICKS_PER_SECOND as i64;
/// Ticks of a reference time's unit.
const TICKS_PER_REFERENCE: i64 = 256;

/// A receiver's clock that ran on for so many ticks, eight years, is none: it begins anew before its times outgrow their type.
const MAX_CLOCK: i64 = 1 << 40;

/// Two packets whose delays differ by more than this were timed by different clocks. In microseconds.
const CLOCK_JUMP: i64 = 10_000_000;
/// After a probe's last packet the queue may be the probe's for this long, if it is no longer than that. In
/// microseconds.
const PROBE_SHADOW: i64 = 400_000;
const PROBE_QUEUE: i64 = 60_000;

/// A packet that took longer than the least by this waited for others rather than for a busy machine. In microseconds.
const QUEUED: i64 = 8_000;

/// Without feedback for this and two round trips the line may be gone; the estimate is halved, and again each
/// [`HALVING`]. Feedback comes each 50 to 250 ms, so this is some lost in a row. In microseconds.
const SILENCE: i64 = 700_000;
const HALVING: i64 = 500_000;
/// When nothing was sent for so long, a queue of ours is gone, and what was lost long past. In microseconds.
const IDLE: i64 = 1_000_000;
/// An eighth of what was is little enough to ask a dead line with, and enough to be quick when it comes back.
const MAX_HALVINGS: u32 = 3;
/// A silence after which so little is missing, and so little queues (in microseconds), was a pause of the receiver's.
const PAUSE_LOSS: f64 = 0.1;
const PAUSE_QUEUE: i64 = 20_000;
/// So many feedbacks make do where no probe tells anything.
const TELLING: u8 = 6;
/// Less than this share of the target sent leaves room for probes.
const ROOMY: f64 = 0.85;
/// A result that contradicts what was known is asked for again with this much more, since some is lost in measuring.
const CONFIRM: f64 = 1.2;
/// The same where nobody is harmed.
const FURTHER: f64 = 2.0;

/// Statuses that feedback may make us visit: so many for each packet sent, since some are repeated, and so many on
/// credit. More is a flood.
const STATUSES_PER_PACKET: u32 = 8;
const MAX_STATUSES: u32 = 32_768;

/// Where estimates begin and what they stay between.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub start: BitRate,
    pub least: BitRate,
    pub most: BitRate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start: BitRate::from_kbps(300),
            least: BitRate::from_kbps(30), // audio, whatever the line
            most: BitRate::from_kbps(100_000),
        }
    }
}

/// What holds the target where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// Nothing is known yet.
    Start,
    /// It grows, or waits for proof to grow on.
    Increase,
    /// A queue just drained, or drains by itself.
    Hold,
    /// A queue is being drained.
    Drain,
    /// More is lost at more.
    Loss,
    /// No feedback comes.
    Silence,
    /// Too little is sent to learn more.
    Limited,
}

impl Because {
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Increase => "increase",
            Self::Hold => "hold",
            Self::Drain => "drain",
            Self::Loss => "loss",
            Self::Silence => "silence",
            Self::Limited => "limited",
        }
    }
}

/// Why the target is what it is; for metrics, logs and people.
#[derive(Clone, Copy, Debug)]
pub struct Explanation {
    pub target: BitRate,
    pub sustainable: BitRate,
    pub because: Because,
    pub queue: Duration,
    pub round_trip: Duration,
    /// The share of packets lost of late.
    pub loss: f64,
    /// The share lost whatever the rate, if known.
    pub inherent_loss: Option<f64>,
    pub acknowledged: Option<BitRate>,
    /// The line's rate where it was last met.
    pub capacity: Option<BitRate>,
    /// What the newest probe showed, and when that was known.
    pub probe: Option<(Time, ProbeResult)>,
}

/// Feedback, or parts of it, that was not believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disbelieved {
    /// Statuses of packets that were never sent, or too long ago.
    pub unknown: u64,
    /// Arrivals on a clock that jumped.
    pub clock_jumps: u64,
    /// Feedback packets beyond what can be due for what was sent.
    pub floods: u64,
}

/// The send-side bandwidth estimator of one peer; see the crate's page for how to drive it.
///
/// There are more of them than the nearest memory holds, and each packet and each feedback asks for another. So what is
/// asked for together lies together: first what sending a packet needs, then what feedback needs; what each leaves in
/// its parts for rarer days comes last in them.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Estimator {
    epoch: Time,
    /// When the first packet left that no feedback followed.
    unanswered: Option<Time>,
    history: SentHistory,
    limited: ApplicationLimited,
    /// What feedback may report on, given how many packets had been sent when it was last counted.
    statuses: u32,
    counted: u64,
    /// The number after the last that feedback reported on.
    expected: Option<u16>,
    is_limited: bool,
    heard: bool,
    /// The first few feedbacks, counted.
    feedbacks: u8,
    halvings: u32,
    reference: Option<i64>,
    offset: Option<i64>,
    round_trip: RoundTrip,
    /// When the last packet of a probe was sent.
    probed: Option<i64>,
    limits: Limits,
    /// The rate sent before the newest feedback.
    sent: BitRate,
    acknowledged: Acknowledged,
    grouping: Grouping,
    queue: QueueDelay,
    control: RateControl,
    probes: Probes,
    loss: LossControl,
    trend: Trend,
    /// The estimate before the silence.
    spoken: BitRate,
    newest_probe: Option<(Time, ProbeResult)>,
    disbelieved: Disbelieved,
}

impl Estimator {
    pub fn new(now: Time, limits: Limits) -> Self {
        let limits = Limits { most: limits.most.max(limits.least), ..limits };
        Self {
            epoch: now,
            limits,
            history: SentHistory::new(),
            reference: None,
            expected: None,
            offset: None,
            grouping: Grouping::default(),
            trend: Trend::new(),
            queue: QueueDelay::default(),
            acknowledged: Acknowledged::default(),
            loss: LossControl::default(),
            limited: ApplicationLimited::default(),
            sent: BitRate::ZERO,
            is_limited: false,
            round_trip: RoundTrip::default(),
            probes: Probes::new(now),
            control: RateControl::new(now, limits.start, limits.least, limits.most),
            probed: None,
            unanswered: None,
            halvings: 0,
            spoken: limits.start,
            heard: false,
            feedbacks: 0,
            newest_probe: None,
            statuses: MAX_STATUSES / 8,
            counted: 0,
            disbelieved: Disbelieved::default(),
        }
    }

    /// A packet of `bytes` leaves, headers of all layers included; answers its transport-wide sequence number.
    #[inline]
    pub fn on_sent(&mut self, now: Time, bytes: usize, cluster: Option<ClusterId>) -> u16 {
        let sent = self.micros(now);
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        if let Some(cluster) = cluster {
            self.probes.on_sent(cluster, sent, bytes);
            self.probed = Some(sent);
        }
        self.limited.on_sent(sent, bytes);
        self.unanswered.get_or_insert(now);
        self.history.push(sent, bytes, cluster)
    }

    /// Feedback came from the peer.
    pub fn on_feedback(&mut self, now: Time, feedback: &TransportFeedback<'_>) {
        let sent = self.history.pushed() - std::mem::replace(&mut self.counted, self.history.pushed());
        let more = u32::try_from(sent).unwrap_or(MAX_STATUSES).saturating_mul(STATUSES_PER_PACKET);
        self.statuses = self.statuses.saturating_add(more).min(MAX_STATUSES);
        let Some(left) = self.statuses.checked_sub(feedback.status_count.into()) else {
            self.disbelieved.floods += 1;
            return;
        };
        self.statuses = left;
        let next = feedback.base_sequence.wrapping_add(feedback.status_count);
        let expected = self.expected.replace(next);
        if expected.is_some_and(|expected| feedback.base_sequence.wrapping_sub(expected).cast_signed() > 0) {
            self.acknowledged.interrupt();
        }
        let base = self.unwrap_reference(feedback.reference_time);
        let shift = base - i64::from(feedback.reference_time) * TICKS_PER_REFERENCE;
        let mut newest: Option<i64> = None;
        let (mut came, mut missing) = (0_u32, 0_u32);
        for (sequence, arrival) in feedback.packets() {
            let arrived = arrival.map(|ticks| (ticks + shift) * TICK);
            missing += u32::from(arrived.is_none());
            if let Some(sent) = self.on_status(sequence, arrived) {
                newest = newest.max(Some(sent));
                came += 1;
            }
        }
        if let Some(sent) = newest {
            self.break_silence(came, missing);
            self.conclude(now, sent);
        }
    }

    /// What the subscriptions would use if the line carried it. While this is above the target, probes look for it.
    pub fn set_wanted(&mut self, wanted: BitRate) {
        self.probes.set_wanted(wanted);
    }

    /// The next probe to send; ask after feedback, after [`Self::set_wanted`] and at the timeout, until there is none.
    pub fn poll_probe(&mut self, now: Time) -> Option<ProbeCluster> {
        let target = self.undipped();
        if !self.probes.are_wanted(target) {
            self.probes.forget_further();
            return None;
        }
        let is_calm = self.control.phase() != Phase::Drain
            && !self.control.is_dipping()
            && self.loss.limit().is_none()
            && self.halvings == 0;
        // Who sends nothing hears nothing, and would never learn that the line is free again.
        let is_idle = || self.history.newest().is_none_or(|at| self.micros(now) - at >= IDLE);
        let calm = is_calm || is_idle();
        let noise = Duration::from_micros(self.trend.noise());
        self.probes.poll(now, target, calm, noise)
    }

    /// When [`Self::handle_timeout`] and [`Self::poll_probe`] have something to do; may be [`Time::NEVER`].
    pub fn next_timeout(&self) -> Time {
        self.silence_due().min(self.probes.next_timeout(self.undipped()))
    }

    pub fn handle_timeout(&mut self, now: Time) {
        if now < self.silence_due() {
            return;
        }
        let before = self.control.estimate();
        if self.halvings == 0 {
            self.spoken = before;
            self.probes.on_fall(now, before, before.scaled(0.5));
        }
        self.halvings += 1;
        self.control.limit(before.scaled(0.5));
    }

    /// What may be sent, padding and retransmissions included.
    pub fn target(&self) -> BitRate {
        let target = self.undipped();
        if self.control.is_dipping() { target.scaled(dips::SHARE).max(self.limits.least) } else { target }
    }

    fn undipped(&self) -> BitRate {
        let limit = self.loss.limit().unwrap_or(BitRate::MAX);
        self.control.target().min(limit).max(self.limits.least)
    }

    /// What the line carries once the queue is gone; what layers are chosen by. It falls at once when the line does, like
    /// [`Self::target`], but not while a queue drains, and rises by proof alone.
    pub fn sustainable(&self) -> BitRate {
        let limit = self.loss.limit().unwrap_or(BitRate::MAX);
        // Most silences are short, and pauses of the receiver's.
        let sustainable = if self.halvings == 1 { self.spoken } else { self.control.sustainable() };
        sustainable.min(limit).max(self.limits.least)
    }

    /// What was sent over some half a second up to the newest feedback, headers of all layers and probes included.
    pub fn sent(&self) -> BitRate {
        self.sent
    }

    /// The line's rate where it was last full.
    pub fn capacity(&self) -> Option<BitRate> {
        self.control.capacity()
    }

    /// Whether the estimate is still where it began: no probe has come back, nothing was full, and little was heard. Others
    /// may begin on the same line at the same moment.
    pub fn is_guess(&self) -> bool {
        self.newest_probe.is_none() && self.capacity().is_none() && self.feedbacks < TELLING
    }

    pub fn explain(&self) -> Explanation {
        let because = match self.control.phase() {
            _ if self.halvings > 0 => Because::Silence,
            _ if !self.heard => Because::Start,
            Phase::Drain => Because::Drain,
            _ if self.loss.limit().is_some_and(|limit| limit < self.control.estimate()) => Because::Loss,
            _ if self.is_limited => Because::Limited,
            Phase::Hold => Because::Hold,
            Phase::Increase => Because::Increase,
        };
        Explanation {
            target: self.target(),
            sustainable: self.sustainable(),
            because,
            queue: Duration::from_micros(self.queue.recent().max(0).unsigned_abs()),
            round_trip: self.round_trip.smoothed(),
            loss: self.loss.present(),
            inherent_loss: self.loss.inherent(),
            acknowledged: self.acknowledged.steady(),
            capacity: self.capacity(),
            probe: self.newest_probe,
        }
    }

    pub fn round_trip(&self) -> Duration {
        self.round_trip.smoothed()
    }

    pub fn disbelieved(&self) -> Disbelieved {
        self.disbelieved
    }

    /// Answers when the packet was sent if this is news of its arrival.
    fn on_status(&mut self, sequence: u16, arrived: Option<i64>) -> Option<i64> {
        let Some(packet) = self.history.find(sequence) else {
            self.disbelieved.unknown += 1;
            return None;
        };
        let (before, packet) = match arrived {
            None if packet.fate == Fate::Unknown => {
                packet.fate = Fate::Lost;
                self.loss.add(packet.sent, packet.bytes, true);
                return None;
            }
            None => return None,
            Some(_) => (std::mem::replace(&mut packet.fate, Fate::Received), *packet),
        };
        let arrived = arrived?;
        match before {
            Fate::Forgotten | Fate::Received => return None,
            Fate::Lost => self.loss.on_recovered(),
            Fate::Unknown => self.loss.add(packet.sent, packet.bytes, false),
        }
        self.check_clock(packet.sent, arrived);
        self.queue.add(packet.sent, arrived);
        let queued = self.queue.waited(arrived - packet.sent, QUEUED);
        self.acknowledged.add(packet.sent, arrived, packet.bytes, queued);
        match packet.cluster {
            // A probe queues on purpose; the trend is of what is sent at the target.
            Some(cluster) => {
                self.probes.on_arrived(cluster, packet.sent, arrived, packet.bytes);
            }
            None => {
                if let Some(delta) = self.grouping.add(packet.sent, arrived) {
                    self.trend.add(delta);
                }
            }
        }
        Some(packet.sent)
    }

    /// What was sent into the silence arrived after all, or did not: only somebody paused, or the line was gone.
    fn break_silence(&mut self, came: u32, missing: u32) {
        if std::mem::take(&mut self.halvings) == 0 {
            return;
        }
        self.loss.forget_newest();
        if f64::from(missing) < PAUSE_LOSS * f64::from(came) && self.queue.newest().0 < PAUSE_QUEUE {
            self.control.restore(self.spoken);
        }
    }

    fn conclude(&mut self, now: Time, newest: i64) {
        self.heard = true;
        self.feedbacks = self.feedbacks.saturating_add(1);
        let elapsed = self.micros(now);
        self.round_trip.add(elapsed - newest);
        self.unanswered = (elapsed > newest).then_some(now);
        self.acknowledged.settle();
        self.trend.judge();
        self.sent = self.limited.sent(elapsed);
        let used = self.sent.ratio(self.target());
        self.is_limited = self.limited.judge(elapsed, used);
        self.probes.set_roomy(used < ROOMY);
        let queue = self.queue.recent();
        let (newest_queue, filling) = self.queue.newest();
        let shadowed = self.probed.is_some_and(|probed| newest < probed + PROBE_SHADOW);
        let signals = Signals {
            usage: self.trend.usage(),
            queue,
            newest: newest_queue,
            filling,
            lifted: self.queue.lifted(),
            released: self.queue.is_released(),
            recent: self.acknowledged.recent(),
            steady: self.acknowledged.steady(),
            full: self.acknowledged.full(),
            round_trip: self.round_trip.smoothed(),
            noise: self.trend.noise() as f64,
            limited: self.is_limited,
            lossy: self.loss.is_excessive(),
            probed: shadowed && queue < PROBE_QUEUE,
        };
        match self.control.handle(now, signals) {
            Verdict::Nothing => {}
            Verdict::Fell(before) => self.probes.on_fall(now, before, self.control.estimate()),
            Verdict::Reached => self.probes.hurry(now),
            Verdict::Rebase => self.queue.rebase(),
        }
        self.loss.set_crowded(dips::is_crowded(signals.lifted));
        if self.loss.conclude() {
            self.probes.on_fall(now, self.control.estimate(), self.undipped());
        }
        let probed = self.probes.conclude(now, self.undipped());
        if let Some(whole) = probed.filter(|result| !result.saturated) {
            self.loss.on_proven(newest, whole.rate);
        }
        if let Some(result) = probed {
            self.newest_probe = Some((now, result));
        }
        if let Some(result) = probed.filter(|_| signals.usage != Usage::Over || signals.newest <= PROBE_QUEUE)
        {
            match self.control.on_proven(now, result, self.limited.for_long(elapsed)) {
                Belief::Full => {}
                Belief::Half => self.probes.confirm(result.rate.scaled(FURTHER)),
                Belief::None => self.probes.confirm(result.rate.scaled(CONFIRM)),
            }
        }
    }

    /// The reference time in ticks, on a clock that does not wrap.
    fn unwrap_reference(&mut self, reference: u32) -> i64 {
        const WRAP: u32 = 8; // bits that 24 lack of 32
        let unwrapped = self.reference.map(|last| {
            let last_reference = (last / TICKS_PER_REFERENCE) as u32;
            let step = (reference.wrapping_sub(last_reference) << WRAP).cast_signed() >> WRAP;
            last + i64::from(step) * TICKS_PER_REFERENCE
        });
        let believed = unwrapped.filter(|ticks| ticks.abs() < MAX_CLOCK);
        let ticks = believed.unwrap_or(i64::from(reference) * TICKS_PER_REFERENCE);
        self.reference = Some(ticks);
        ticks
    }

    /// Begins anew with what compares arrivals when the receiver's clock became another.
    fn check_clock(&mut self, sent: i64, arrived: i64) {
        let offset = arrived - sent;
        let jumped = self.offset.is_some_and(|before| (offset - before).abs() > CLOCK_JUMP);
        self.offset = Some(offset);
        if jumped {
            self.disbelieved.clock_jumps += 1;
            self.grouping = Grouping::default();
            self.trend = Trend::new();
            self.queue = QueueDelay::default();
            self.acknowledged.clear();
        }
    }

    /// Microseconds since it began, in which its parts count.
    fn micros(&self, at: Time) -> i64 {
        at.micros_since(self.epoch)
    }

    fn silence_due(&self) -> Time {
        let Some(since) = self.unanswered.filter(|_| self.halvings < MAX_HALVINGS) else {
            return Time::NEVER;
        };
        let patience = SILENCE + 2 * self.round_trip.micros() + HALVING * i64::from(self.halvings);
        since.plus_micros(patience)
    }
}

#[cfg(test)]
mod tests;
