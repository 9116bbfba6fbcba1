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

use std::time::{Duration, Instant};

use crate::BitRate;
use crate::probe::ProbeResult;
use crate::trend::Usage;

/// Growth a second while the line's rate is unknown.
const MULTIPLY: f64 = 1.08;
/// What one response time adds near the line's rate: a packet.
const ADD_BYTES: u64 = 1_200;
/// It adds at least this share a second, or fast lines would be filled too slowly.
const ADD_LEAST: f64 = 0.04;
/// A response takes a round trip and what feedback and detection take.
const DETECTION: Duration = Duration::from_millis(100);
/// No estimate rises above so many times of what was proven.
const OF_PROVEN: f64 = 1.5;
const BESIDES: BitRate = BitRate::from_kbps(10);

/// While a queue drains, the rate in shares of the line's: this much without queue, and less by the queue's length.
const DRAIN: f64 = 0.9;
const DRAIN_LEAST: f64 = 0.4;
const DRAIN_OVER: f64 = 500_000.0;
/// The same for a short queue that is no reason to doubt the estimate.
const RELIEF_LEAST: f64 = 0.88;
const RELIEF_OVER: f64 = 400_000.0;
/// Where to go on once the queue is gone.
const RESUME: f64 = 0.95;
/// A queue shorter than this is gone. In microseconds.
const DRAINED: i64 = 10_000;
/// Above this much queue the rate is high enough.
const BRAKE: i64 = 15_000;
/// A queue that one packet met and that is more than jitter.
const SUDDEN: i64 = 30_000;
/// A queue longer than this is too much, also when it does not grow.
const STANDING: i64 = 50_000;
/// A queue that does not drain within this (and some round trips) is not ours, or none.
const PATIENCE: Duration = Duration::from_millis(1_500);

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
    /// The queue that the newest packet met, jitter included.
    pub newest: i64,
    /// Of late and over longer; `None` while too little arrived.
    pub recent: Option<BitRate>,
    pub steady: Option<BitRate>,
    pub round_trip: Duration,
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
    /// The queue did not drain: take the present delay for the path's.
    Rebase,
}

/// The delay-based estimate.
#[derive(Debug)]
pub struct RateControl {
    estimate: BitRate,
    /// What is sent at while a short queue drains.
    relief: Option<BitRate>,
    phase: Phase,
    /// The line's rate where it was last met.
    capacity: Option<BitRate>,
    updated: Instant,
    drain_began: Instant,
    last_queue: i64,
    least: BitRate,
    most: BitRate,
}

impl RateControl {
    pub fn new(now: Instant, start: BitRate, least: BitRate, most: BitRate) -> Self {
        Self {
            estimate: start.clamp(least, most),
            relief: None,
            phase: Phase::Increase,
            capacity: None,
            updated: now,
            drain_began: now,
            last_queue: 0,
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

    /// What the line carries once the queue is gone: the estimate, but for the dips that drain a queue.
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

    pub fn handle(&mut self, now: Instant, signals: Signals) -> Verdict {
        let elapsed = now.saturating_duration_since(self.updated).min(Duration::from_secs(1));
        self.updated = now;
        if self.phase == Phase::Drain {
            self.relief = None;
            return self.drain(now, signals);
        }
        self.relieve(signals);
        // A trend without a queue is of frames that grew.
        let queues = signals.queue > DRAINED || signals.newest > SUDDEN;
        let congested = (signals.usage == Usage::Over && queues)
            || signals.queue > STANDING
            || (signals.queue > BRAKE && signals.lossy);
        match signals.usage {
            _ if congested && signals.probed => self.phase = Phase::Hold,
            _ if congested => return self.fall(now, signals),
            _ if signals.queue > BRAKE => self.phase = Phase::Hold,
            Usage::Under => self.phase = Phase::Hold,
            _ => {
                self.phase = Phase::Increase;
                self.increase(elapsed, signals);
            }
        }
        Verdict::Nothing
    }

    /// A probe proved a rate. True when it was only half believed: against what was known of the line, since other flows
    /// may have paused for a moment.
    pub fn on_proven(&mut self, result: ProbeResult) -> bool {
        let agrees = |capacity: BitRate| result.saturated && result.rate < capacity.scaled(BEYOND);
        let agreed = self.capacity.filter(|&capacity| agrees(capacity));
        // A full line that carried more than was known carries that.
        self.capacity =
            agreed.map(|capacity| capacity.max(capacity.plus(result.rate).scaled(0.5))).or(self.capacity);
        let agreed = agreed.and(self.capacity);
        let rate = agreed.map_or(result.rate, |capacity| result.rate.min(capacity.scaled(RESUME)));
        if self.phase == Phase::Drain || rate <= self.estimate {
            return false;
        }
        if agreed.is_some() {
            self.estimate = rate;
            return false;
        }
        let known = self.capacity.take();
        let raised = if known.is_some() { self.estimate.plus(rate).scaled(0.5) } else { rate };
        self.estimate = raised.clamp(self.least, self.most);
        self.capacity = known.filter(|&capacity| rate < capacity.scaled(BEYOND));
        known.is_some()
    }

    /// Something other than delay says that the line carries no more than this.
    pub fn limit(&mut self, rate: BitRate) {
        self.estimate = self.estimate.min(rate).max(self.least);
    }

    /// A short queue, of a probe or of a large frame, is no reason to doubt the estimate; but at an estimate that is right
    /// it would never drain.
    fn relieve(&mut self, signals: Signals) {
        if signals.queue < DRAINED {
            self.relief = None;
        } else if signals.queue > BRAKE || self.relief.is_some() {
            let carried = self.capacity.unwrap_or(self.estimate).min(self.estimate);
            let share = (1.0 - signals.queue as f64 / RELIEF_OVER).clamp(RELIEF_LEAST, 1.0);
            self.relief = Some(carried.scaled(share));
        }
    }

    fn fall(&mut self, now: Instant, signals: Signals) -> Verdict {
        // Without any measurement the estimate itself is all that is known.
        let measured = signals.recent.or(signals.steady).unwrap_or(self.estimate.scaled(DRAIN));
        let before = self.estimate;
        let measured = measured.min(before);
        let close =
            |capacity: BitRate| measured > capacity.scaled(NEAR) && measured < capacity.scaled(BEYOND);
        self.capacity = Some(match self.capacity.filter(|&capacity| close(capacity)) {
            Some(capacity) => capacity.scaled(KEEP).plus(measured.scaled(1.0 - KEEP)),
            None => measured,
        });
        self.phase = Phase::Drain;
        self.drain_began = now;
        self.last_queue = signals.queue;
        self.set_draining(signals.queue);
        Verdict::Fell(before)
    }

    fn drain(&mut self, now: Instant, signals: Signals) -> Verdict {
        // Until the fall takes effect the line is full, and what arrives is what it carries; the first measurement still
        // held some of the time before. A queue that grows later says that the line became slower meanwhile.
        let drained_for = now.saturating_duration_since(self.drain_began);
        let grows = signals.queue > std::mem::replace(&mut self.last_queue, signals.queue);
        let first = drained_for < signals.round_trip && signals.queue > BRAKE;
        if (first || (grows && signals.queue > STANDING))
            && let Some(recent) = signals.recent
        {
            self.capacity = Some(recent.min(self.capacity.unwrap_or(recent).scaled(BEYOND)));
        }
        if signals.queue < DRAINED && signals.usage != Usage::Over {
            self.resume();
            return Verdict::Nothing;
        }
        if drained_for > PATIENCE + 2 * signals.round_trip {
            self.resume();
            return Verdict::Rebase;
        }
        self.set_draining(signals.queue);
        Verdict::Nothing
    }

    fn set_draining(&mut self, queue: i64) {
        let capacity = self.capacity.unwrap_or(self.estimate);
        let share = (DRAIN - queue as f64 / DRAIN_OVER).clamp(DRAIN_LEAST, DRAIN);
        self.estimate = capacity.scaled(share).min(self.estimate.max(capacity)).max(self.least);
    }

    fn resume(&mut self) {
        self.estimate = self.resumed();
        self.phase = Phase::Increase;
    }

    fn resumed(&self) -> BitRate {
        self.capacity.unwrap_or(self.estimate).scaled(RESUME).clamp(self.least, self.most)
    }

    fn increase(&mut self, elapsed: Duration, signals: Signals) {
        if signals.limited {
            return; // what is not used is not proven
        }
        let Some(proven) = signals.recent.max(signals.steady) else { return };
        let near = self.capacity.is_some_and(|capacity| self.estimate > capacity.scaled(NEAR));
        let seconds = elapsed.as_secs_f64();
        let raised = if near {
            let response = signals.round_trip + DETECTION;
            let add = BitRate::of(ADD_BYTES, response).max(self.estimate.scaled(ADD_LEAST));
            self.estimate.plus(add.scaled(seconds))
        } else {
            self.estimate.scaled(MULTIPLY.powf(seconds))
        };
        let bound = proven.scaled(OF_PROVEN).plus(BESIDES);
        self.estimate = raised.min(bound).max(self.estimate).clamp(self.least, self.most);
        if self.capacity.is_some_and(|capacity| self.estimate > capacity.scaled(BEYOND)) {
            self.capacity = None;
        }
    }
}
