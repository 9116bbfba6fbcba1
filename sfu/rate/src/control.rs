//! From what the delay says to a rate.
//!
//! ```text
//!            over / standing queue
//!   Increase ─────────────────────► Drain ──► Increase, at a little under the line's rate
//!      ▲ │ under                      │        once the queue is gone
//!      │ ▼                            └─────► Increase, with the delay believed to be the path's
//!     Hold                                     once draining did not help
//! ```
//!
//! Increase multiplies while the line's rate is unknown and adds near where it was last met. Drain goes below the
//! line's rate by as much as the queue is long, since 0.85 of it would leave a full queue standing for seconds.

use std::time::Duration;

use crate::acknowledged::FullLine;
use crate::dips::Dips;
use crate::probe::ProbeResult;
use crate::trend::Usage;
use crate::{BitRate, Time};

/// Growth a second while the line's rate is unknown.
const MULTIPLY: f64 = 1.08;
/// Growth a second towards what a probe hinted at.
const RAMP: f64 = 2.2;
/// The same where the line was not full.
const PROVEN_RAMP: f64 = 4.0;
/// The same on a line that is shared: a probe sees as much as others leave for a moment.
const SHARED_RAMP: f64 = 1.7;
/// A ramp was in vain if the line was full so soon after a probe hinted at more, at less than this share of that. Others
/// share it then, and are believed to for so long.
const VAIN: f64 = 0.8;
const VAIN_WITHIN: Duration = Duration::from_secs(3);
const SHARED: Duration = Duration::from_secs(20);
/// A probe that met a full line below this share of the estimate doubts it.
const DOUBTFUL: f64 = 0.93;
/// So long after a line carried more than was known, its rate is looked for.
const CHANGED: Duration = Duration::from_secs(3);
/// So long after a line was full, others may want to share it.
const MET: Duration = Duration::from_secs(20);
/// A probe at half as much again takes so much of a line that two others share equally with us; who gets more than this
/// has less than others, or the line became wider.
const WORTH_A_RAMP: f64 = 1.25;
/// What a second adds near the line's rate. It is the same for all who share a line, so that they become equal; more
/// lets them sooner, and overshoots further.
const ADD: BitRate = BitRate::from_kbps(60);
/// It adds at least this share, or fast lines would be filled too slowly, and at most that, or slow ones would queue.
const ADD_LEAST: f64 = 0.04;
const ADD_MOST: f64 = 0.12;
/// No estimate rises above so many times of what was proven.
const OF_PROVEN: f64 = 1.5;
/// The same where the line was full of late.
const OF_MET: f64 = 1.15;
const BESIDES: BitRate = BitRate::from_kbps(10);

/// While a queue drains, the rate in shares of the line's: this much without queue, and less by the queue's length.
const DRAIN: f64 = 0.9;
const DRAIN_LEAST: f64 = 0.4;
const DRAIN_OVER: f64 = 500_000.0;
/// The same for a short queue that is no reason to doubt the estimate.
const RELIEF_LEAST: f64 = 0.85;
const RELIEF_OVER: f64 = 250_000.0;
/// Where to go on once the queue is gone.
const RESUME: f64 = 0.95;
/// A fall without a measurement of the full line goes no further than to this share.
const UNMEASURED: f64 = 0.85;
/// A queue shorter than this is gone. In microseconds.
const DRAINED: i64 = 10_000;
/// Above this much queue a megabit a second is high enough. Who sends more is content with less queue and who sends
/// less endures more, so that those who share a queue become equal.
const BRAKE: f64 = 11_500.0;
const BRAKE_RATE: BitRate = BitRate::from_kbps(1_000);
const BRAKE_LEAST: f64 = 6_000.0;
const BRAKE_MOST: f64 = 26_000.0;
/// Where delays scatter more queue is none. In microseconds.
const OF_NOISE: f64 = 1.0;
const MAX_NOISE: f64 = 8_000.0;
/// What a second with twice that queue takes away.
const YIELD: f64 = 0.25;
/// Beside somebody who keeps the queue full all of this is endured.
const CONTESTED: f64 = 4.0;
/// A queue that only the newest packets met and that is more than jitter.
const SUDDEN: i64 = 30_000;
/// A queue longer than this is too much, also when it does not grow. One that only the newest packets met is, at twice as
/// much: a line that became slower at once fills its queue before the least delay of late tells.
const STANDING: i64 = 40_000;
const ABRUPT: i64 = 2;
/// A queue that does not drain within this (and some round trips) is not ours, or none.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Beside somebody who keeps the queue full, draining is only polite: less, and shorter.
const POLITE_PATIENCE: Duration = Duration::from_millis(300);
const POLITE_LEAST: f64 = 0.85;
/// So long after a queue did not drain, somebody is believed to keep it full.
const CONTEST: Duration = Duration::from_secs(20);

/// How near the line's rate increase becomes additive, and how far above it that rate is forgotten.
const NEAR: f64 = 0.85;
const BEYOND: f64 = 1.15;
/// How much of the line's known rate stays with each new measurement.
const KEEP: f64 = 0.5;

/// What the controller does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Increase,
    Hold,
    Drain,
}

/// What a feedback said.
#[derive(Clone, Copy, Debug)]
pub struct Signals {
    pub usage: Usage,
    /// In microseconds.
    pub queue: i64,
    /// The queue that the newest packets met.
    pub newest: i64,
    /// The same, if it does not shrink.
    pub filling: i64,
    /// By how much what is taken for the path's delay is longer than it was.
    pub lifted: i64,
    /// The newest packets came all at once: somebody on the way paused.
    pub released: bool,
    /// Of late and over longer; `None` while too little arrived.
    pub recent: Option<BitRate>,
    pub steady: Option<BitRate>,
    /// What the line carried while it was full.
    pub full: Option<FullLine>,
    pub round_trip: Duration,
    /// How much delays scatter, in microseconds.
    pub noise: f64,
    /// Sending is limited by what there is to send.
    pub limited: bool,
    /// More is lost than at lower rates.
    pub lossy: bool,
    /// The queue may be our own probe's.
    pub probed: bool,
}

/// What the caller does beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Nothing,
    /// The estimate fell from this.
    Fell(BitRate),
    /// What a probe hinted at is there: ask for more.
    Reached,
    /// The queue did not drain: take the present delay for the path's.
    Rebase,
}

/// How far a probe's result is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    Full,
    /// Some of it; another is to confirm the rest.
    Half,
    /// Only once it is confirmed.
    None,
}

/// A rise that is tried quickly but step by step, and taken back if a queue says so.
#[derive(Clone, Copy, Debug)]
struct Ramp {
    from: BitRate,
    to: BitRate,
    growth: f64,
}

/// The delay-based estimate.
#[derive(Debug)]
#[repr(C)] // what each feedback asks for comes first
pub struct RateControl {
    estimate: BitRate,
    least: BitRate,
    /// What went through of late.
    steady: BitRate,
    updated: Time,
    phase: Phase,
    is_dipping: bool,
    /// What is sent at while a short queue drains.
    relief: Option<BitRate>,
    ramp: Option<Ramp>,
    /// Until when somebody else is believed to keep the queue full.
    contested: Option<Time>,
    /// Since when there is a queue that is not ours.
    stands_since: Option<Time>,
    dips: Dips,
    /// The line's rate where it was last met.
    capacity: Option<BitRate>,
    /// When the line was last full.
    met: Option<Time>,
    most: BitRate,
    /// What the last ramp went for, and since when.
    hinted: Option<(Time, BitRate)>,
    /// Until when others are believed to share the line.
    shared: Option<Time>,
    drain_began: Time,
    /// When more than the line was known for went through.
    proven: Option<Time>,
    last_queue: i64,
    /// What the last probe showed, if that was less than the estimate.
    doubted: Option<BitRate>,
}

impl RateControl {
    pub fn new(now: Time, start: BitRate, least: BitRate, most: BitRate) -> Self {
        Self {
            estimate: start.clamp(least, most),
            relief: None,
            ramp: None,
            hinted: None,
            shared: None,
            phase: Phase::Increase,
            capacity: None,
            updated: now,
            drain_began: now,
            met: None,
            proven: None,
            contested: None,
            stands_since: None,
            last_queue: 0,
            doubted: None,
            steady: BitRate::ZERO,
            dips: Dips::default(),
            is_dipping: false,
            least,
            most,
        }
    }

    pub fn estimate(&self) -> BitRate {
        self.estimate
    }

    /// The estimate, or a little less while a short queue drains.
    pub fn target(&self) -> BitRate {
        self.relief.map_or(self.estimate, |relief| relief.min(self.estimate)).max(self.least)
    }

    /// Whether less than [`Self::target`] is to be sent for a moment, by [`crate::dips::SHARE`].
    pub fn is_dipping(&self) -> bool {
        self.is_dipping
    }

    /// What the line carries once the queue is gone: the estimate, but for what drains a queue.
    pub fn sustainable(&self) -> BitRate {
        match self.phase {
            Phase::Drain => self.resumed(),
            Phase::Increase | Phase::Hold => self.estimate,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn capacity(&self) -> Option<BitRate> {
        self.capacity
    }

    pub fn handle(&mut self, now: Time, signals: Signals) -> Verdict {
        let elapsed = now.saturating_duration_since(self.updated).min(Duration::from_secs(1));
        self.updated = now;
        self.steady = signals.steady.unwrap_or(BitRate::ZERO);
        // Who sends less than he may has nothing to leave out, and who drains does so already.
        let dips = self.dips.handle(now, signals.lifted);
        self.is_dipping = dips && !signals.limited && self.phase != Phase::Drain;
        if self.phase == Phase::Drain {
            self.relief = None;
            return self.drain(now, signals);
        }
        let brake = self.brake(now, signals);
        self.relieve(signals, brake);
        let brakes = signals.queue > brake && !signals.probed;
        if brakes && let Some(ramp) = self.ramp.take() {
            self.shared = Some(now + SHARED);
            self.estimate = ramp.from.clamp(self.least, self.estimate);
        }
        // A trend without a queue is of frames that grew.
        let queues = signals.queue > brake.max(DRAINED) || signals.newest > SUDDEN;
        let standing = if self.is_contested(now) { STANDING * CONTESTED as i64 } else { STANDING };
        let congested = !signals.released
            && ((signals.usage == Usage::Over && queues)
                || signals.queue > standing
                || signals.filling > ABRUPT * standing
                || (signals.queue > brake && signals.lossy));
        if !congested {
            self.stands_since = None;
        }
        match signals.usage {
            _ if congested && signals.probed => self.phase = Phase::Hold,
            _ if congested => {
                return match self.measure(signals) {
                    Some(measured) => self.fall(now, measured, signals.queue),
                    None => self.stand(now, signals.round_trip),
                };
            }
            _ if signals.queue > brake => {
                self.phase = Phase::Hold;
                if brakes {
                    let over = (signals.queue as f64 / brake as f64 - 1.0).min(2.0);
                    let less = 1.0 - YIELD * over * elapsed.as_secs_f64();
                    self.estimate = self.estimate.scaled(less).max(self.least);
                }
            }
            Usage::Under => self.phase = Phase::Hold,
            _ => {
                self.phase = Phase::Increase;
                if self.increase(now, elapsed, signals, brake) {
                    return Verdict::Reached;
                }
            }
        }
        Verdict::Nothing
    }

    /// A probe proved a rate.
    pub fn on_proven(&mut self, now: Time, result: ProbeResult, limited: bool) -> Belief {
        self.doubt(result);
        let agrees = |capacity: BitRate| result.saturated && result.rate < capacity.scaled(BEYOND);
        let shared = self.is_shared(now);
        if let Some(capacity) = self.capacity.filter(|&capacity| agrees(capacity)) {
            // A full line that carried more than was known carries that; but from a shared one a burst takes more than is
            // its own.
            if !shared {
                let capacity = capacity.max(capacity.plus(result.rate).scaled(0.5));
                self.capacity = Some(capacity);
                if self.phase != Phase::Drain {
                    self.estimate = self.estimate.max(result.rate.min(capacity.scaled(RESUME)));
                }
            }
            return Belief::Full;
        }
        if self.phase == Phase::Drain || result.rate <= self.estimate {
            return Belief::Full;
        }
        if !self.is_met(now) && self.capacity.is_none() {
            self.raise(result.rate);
            return Belief::Full;
        }
        if limited {
            // What is not used does no harm if it is not there; half of it is, until the next probe.
            self.raise(if result.confirmed {
                result.rate
            } else {
                self.estimate.plus(result.rate).scaled(0.5)
            });
            self.capacity = self.capacity.filter(|known| result.rate < known.scaled(BEYOND));
            return if result.confirmed { Belief::Full } else { Belief::Half };
        }
        // Others may have paused for a moment; and from a full line a burst takes more than its share.
        if !result.saturated && !result.confirmed {
            return Belief::None;
        }
        if !result.saturated {
            self.proven = Some(now);
        }
        let changed = self.proven.is_some_and(|at| now.saturating_duration_since(at) < CHANGED);
        if changed || result.rate > self.estimate.scaled(WORTH_A_RAMP) {
            let growth = match result.saturated {
                _ if shared => SHARED_RAMP,
                true => RAMP,
                false => PROVEN_RAMP,
            };
            self.hinted = Some((now, result.rate));
            self.ramp = Some(Ramp { from: self.estimate, to: result.rate, growth });
            if !result.saturated && !shared {
                self.raise(self.estimate.plus(result.rate).scaled(0.5));
            }
        }
        Belief::Full
    }

    /// An estimate that is not used is not refuted by a queue. Two probes in a row that met a full line below it do that,
    /// but for what demonstrably went through.
    fn doubt(&mut self, result: ProbeResult) {
        let below = result.saturated && result.rate < self.estimate.scaled(DOUBTFUL);
        let before = std::mem::replace(&mut self.doubted, below.then_some(result.rate));
        if let (Some(before), true) = (before, below) {
            let carried = before.max(result.rate).max(self.steady);
            self.estimate = self.estimate.min(carried).max(self.least);
        }
    }

    fn raise(&mut self, rate: BitRate) {
        self.estimate = rate.clamp(self.least, self.most);
    }

    /// Something other than delay says that the line carries no more than this.
    pub fn limit(&mut self, rate: BitRate) {
        self.estimate = self.estimate.min(rate).max(self.least);
    }

    /// Takes back what [`Self::limit`] did.
    pub fn restore(&mut self, rate: BitRate) {
        self.estimate = self.estimate.max(rate).min(self.most);
    }

    /// A short queue, of a probe or of a large frame, is no reason to doubt the estimate; but at an estimate that is right
    /// it would never drain.
    fn relieve(&mut self, signals: Signals, brake: i64) {
        if signals.queue < DRAINED.min(brake) {
            self.relief = None;
        } else if signals.queue > brake || self.relief.is_some() {
            let carried = self.capacity.unwrap_or(self.estimate).min(self.estimate);
            let share = (1.0 - signals.queue as f64 / RELIEF_OVER).clamp(RELIEF_LEAST, 1.0);
            self.relief = Some(carried.scaled(share));
        }
    }

    /// What the line carries, where a queue says that it is full. What arrives is what it carries while a queue grows;
    /// a queue that stands while we send less than we may was not filled by us, and what arrives is only what we sent.
    fn measure(&self, signals: Signals) -> Option<BitRate> {
        let doubtful = self.estimate.scaled(UNMEASURED);
        if let Some(full) = signals.full.filter(|full| full.grew || !signals.limited) {
            // A short queue may be of packets that overtook one another. If it is not, it is longer next time.
            let is_short = signals.queue.max(signals.newest) < STANDING;
            return Some(if is_short { full.rate.max(doubtful) } else { full.rate });
        }
        // What arrived of late includes pauses of those on the way: alone it proves little.
        let measured = signals.recent.or(signals.steady).unwrap_or(BitRate::ZERO);
        (!signals.limited).then_some(measured.max(doubtful))
    }

    fn stand(&mut self, now: Time, round_trip: Duration) -> Verdict {
        self.phase = Phase::Hold;
        let since = *self.stands_since.get_or_insert(now);
        if now.saturating_duration_since(since) < PATIENCE + 2 * round_trip {
            return Verdict::Nothing;
        }
        self.stands_since = None;
        Verdict::Rebase
    }

    fn fall(&mut self, now: Time, measured: BitRate, queue: i64) -> Verdict {
        let before = self.estimate;
        let measured = measured.min(before);
        let hinted = self.hinted.take().filter(|(at, _)| now.saturating_duration_since(*at) < VAIN_WITHIN);
        if hinted.is_some_and(|(_, hinted)| measured < hinted.scaled(VAIN)) {
            self.shared = Some(now + SHARED);
        }
        let close =
            |capacity: BitRate| measured > capacity.scaled(NEAR) && measured < capacity.scaled(BEYOND);
        self.capacity = Some(match self.capacity.filter(|&capacity| close(capacity)) {
            Some(capacity) => capacity.scaled(KEEP).plus(measured.scaled(1.0 - KEEP)),
            None => measured,
        });
        self.phase = Phase::Drain;
        self.drain_began = now;
        self.met = Some(now);
        self.stands_since = None;
        self.ramp = None;
        self.last_queue = queue;
        self.set_draining(now, queue);
        Verdict::Fell(before)
    }

    fn drain(&mut self, now: Time, signals: Signals) -> Verdict {
        // Until the fall takes effect the line is full, and what arrives is what it carries; the first measurement still
        // held some of the time before. A queue that grows later says that the line became slower meanwhile.
        let drained_for = now.saturating_duration_since(self.drain_began);
        let grows = signals.queue > std::mem::replace(&mut self.last_queue, signals.queue);
        let first = drained_for < signals.round_trip && signals.queue > DRAINED;
        // What came of less than the line takes says only that it takes as much.
        let known = self.capacity.unwrap_or(self.estimate);
        match signals.full {
            Some(full) if full.grew && (first || grows && signals.queue > STANDING) => {
                self.capacity = Some(full.rate.min(known.scaled(BEYOND)));
            }
            Some(full) if first => self.capacity = Some(full.rate.clamp(known, known.scaled(BEYOND))),
            _ => {}
        }
        if signals.queue < DRAINED && (signals.usage != Usage::Over || signals.newest < DRAINED) {
            self.resume();
            return Verdict::Nothing;
        }
        let patience = if self.is_contested(now) { POLITE_PATIENCE } else { PATIENCE };
        if drained_for > patience + 2 * signals.round_trip {
            self.resume();
            self.contested = Some(now + CONTEST);
            return Verdict::Rebase;
        }
        self.set_draining(now, signals.queue);
        Verdict::Nothing
    }

    /// The line was full of late.
    fn is_met(&self, now: Time) -> bool {
        self.met.is_some_and(|met| now.saturating_duration_since(met) < MET)
    }

    /// Others take their share of the line, and yield as we do.
    fn is_shared(&self, now: Time) -> bool {
        self.shared.is_some_and(|until| now < until) && !self.is_contested(now)
    }

    fn is_contested(&self, now: Time) -> bool {
        self.contested.is_some_and(|until| now < until)
    }

    fn set_draining(&mut self, now: Time, queue: i64) {
        let capacity = self.capacity.unwrap_or(self.estimate);
        let least = if self.is_contested(now) { POLITE_LEAST } else { DRAIN_LEAST };
        let share = (DRAIN - queue as f64 / DRAIN_OVER).clamp(least, DRAIN);
        self.estimate = capacity.scaled(share).min(self.estimate.max(capacity)).max(self.least);
    }

    fn resume(&mut self) {
        self.estimate = self.resumed();
        self.phase = Phase::Increase;
    }

    fn resumed(&self) -> BitRate {
        self.capacity.unwrap_or(self.estimate).scaled(RESUME).clamp(self.least, self.most)
    }

    fn brake(&self, now: Time, signals: Signals) -> i64 {
        let contested = if self.is_contested(now) { CONTESTED } else { 1.0 };
        let brake = (BRAKE * BRAKE_RATE.ratio(self.estimate)).clamp(BRAKE_LEAST, BRAKE_MOST);
        ((brake + OF_NOISE * signals.noise.min(MAX_NOISE)) * contested) as i64
    }

    /// True when what a probe hinted at is reached.
    fn increase(&mut self, now: Time, elapsed: Duration, signals: Signals, brake: i64) -> bool {
        if signals.limited {
            // What is not used is not proven, and does no harm if it is not there: half of it is, until the next probe.
            if let Some(ramp) = self.ramp.take() {
                self.raise(self.estimate.max(self.estimate.plus(ramp.to).scaled(0.5)));
            }
            return false;
        }
        let Some(proven) = signals.recent.max(signals.steady) else { return false };
        if let Some(ramp) = self.ramp {
            let to = self.estimate.scaled(ramp.growth.powf(elapsed.as_secs_f64())).min(ramp.to);
            self.estimate = to.clamp(self.estimate, self.most);
            let reached = self.estimate >= ramp.to;
            if reached {
                (self.ramp, self.proven) = (None, Some(now));
            }
            return reached;
        }
        let near = self.capacity.is_some_and(|capacity| self.estimate > capacity.scaled(NEAR));
        // The nearer to the brake, the slower.
        let seconds = elapsed.as_secs_f64() * (1.0 - signals.queue as f64 / brake as f64).clamp(0.0, 1.0);
        let raised = if near {
            let add = ADD.clamp(self.estimate.scaled(ADD_LEAST), self.estimate.scaled(ADD_MOST));
            self.estimate.plus(add.scaled(seconds))
        } else {
            self.estimate.scaled(MULTIPLY.powf(seconds))
        };
        let bound = proven.scaled(if self.is_met(now) { OF_MET } else { OF_PROVEN }).plus(BESIDES);
        self.estimate = raised.min(bound).max(self.estimate).clamp(self.least, self.most);
        if self.capacity.is_some_and(|capacity| self.estimate > capacity.scaled(BEYOND)) {
            self.capacity = None;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEEDBACK: Duration = Duration::from_millis(50);

    fn kbps(rate: u64) -> BitRate {
        BitRate::from_kbps(rate)
    }

    fn start() -> Time {
        Time::ZERO + Duration::from_secs(9)
    }

    fn signals(rate: BitRate, queue: i64) -> Signals {
        Signals {
            usage: if queue > STANDING { Usage::Over } else { Usage::Normal },
            queue,
            newest: queue,
            filling: queue,
            lifted: 0,
            released: false,
            recent: Some(rate),
            steady: Some(rate),
            full: (queue > STANDING).then_some(FullLine { rate, grew: true }),
            round_trip: Duration::from_millis(100),
            noise: 0.0,
            limited: false,
            lossy: false,
            probed: false,
        }
    }

    /// What a second brings after a confirmed probe that met a full line at twice the estimate.
    fn climb(control: &mut RateControl, now: &mut Time) -> f64 {
        let before = control.estimate();
        let rate = before.scaled(2.0);
        let result = ProbeResult { asked: rate, rate, saturated: true, confirmed: true };
        control.on_proven(*now, result, false);
        for _ in 0..20 {
            *now += FEEDBACK;
            control.handle(*now, signals(control.estimate(), 0));
        }
        control.estimate().ratio(before)
    }

    #[test]
    fn who_climbed_in_vain_climbs_slower_for_a_while() {
        let mut now = start();
        let mut control = RateControl::new(now, kbps(1_000), kbps(30), kbps(10_000));
        let fill = |control: &mut RateControl, now: &mut Time| {
            for queue in [STANDING + 20_000, 0] {
                *now += FEEDBACK;
                control.handle(*now, signals(kbps(1_000), queue));
            }
        };
        fill(&mut control, &mut now);
        let alone = climb(&mut control, &mut now);
        assert!((1.9..2.05).contains(&alone), "{alone}");
        fill(&mut control, &mut now); // what was hinted at was not there
        let shared = climb(&mut control, &mut now);
        assert!((1.6..1.75).contains(&shared), "{shared}");
        for _ in 0..10 {
            now += FEEDBACK;
            control.handle(now, signals(control.estimate(), 0)); // and gets there
        }
        now += SHARED;
        fill(&mut control, &mut now);
        let again = climb(&mut control, &mut now);
        assert!((1.9..2.05).contains(&again), "{again}");
    }
}
