//! Is what we send limited by what there is to send, rather than by the line?

use std::time::{Duration, Instant};

use crate::BitRate;

/// The span that counts, in steps.
const STEPS: usize = 10;
const STEP: Duration = Duration::from_millis(50);
/// Below this share of the target nothing is learnt about the line; above the second something is again.
const BEGINS: f64 = 0.65;
const ENDS: f64 = 0.80;

const LONG: Duration = Duration::from_millis(700);

/// Notices application-limited sending, during which an estimate is neither proven nor refuted.
#[derive(Debug)]
pub struct ApplicationLimited {
    bytes: [u32; STEPS],
    newest: usize,
    began: Instant,
    limited: bool,
    since: Instant,
}

impl ApplicationLimited {
    pub fn new(now: Instant) -> Self {
        Self { bytes: [0; STEPS], newest: 0, began: now, limited: false, since: now }
    }

    pub fn on_sent(&mut self, now: Instant, bytes: u16) {
        self.advance(now);
        self.bytes[self.newest] = self.bytes[self.newest].saturating_add(bytes.into());
    }

    /// The rate sent over the last half second.
    pub fn sent(&mut self, now: Instant) -> BitRate {
        self.advance(now);
        let bytes: u64 = self.bytes.iter().map(|&bytes| u64::from(bytes)).sum();
        let span = STEP * (STEPS as u32 - 1) + now.saturating_duration_since(self.began);
        BitRate::of(bytes, span)
    }

    pub fn judge(&mut self, now: Instant, target: BitRate) -> bool {
        let used = self.sent(now).ratio(target);
        let limited = used < if self.limited { ENDS } else { BEGINS };
        if limited && !self.limited {
            self.since = now;
        }
        self.limited = limited;
        limited
    }

    /// Not only because what is sent follows a target that just rose.
    pub fn for_long(&self, now: Instant) -> bool {
        self.limited && now.saturating_duration_since(self.since) > LONG
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed < STEP {
            return;
        }
        let passed = passed.as_nanos() / STEP.as_nanos();
        for _ in 0..passed.min(STEPS as u128) {
            self.newest = (self.newest + 1) % STEPS;
            self.bytes[self.newest] = 0;
        }
        if passed >= STEPS as u128 {
            self.began = now;
        } else {
            self.began += STEP * passed as u32;
        }
    }
}
