//! Is what we send limited by what there is to send, rather than by the line?

use crate::BitRate;

/// The span that counts, in steps; all times here in microseconds.
const STEPS: usize = 10;
const STEP: i64 = 50_000;
/// Below this share of the target nothing is learnt about the line; above the second something is again.
const BEGINS: f64 = 0.65;
const ENDS: f64 = 0.80;

const LONG: i64 = 700_000;

/// Notices application-limited sending, during which an estimate is neither proven nor refuted.
#[derive(Debug, Default)]
pub struct ApplicationLimited {
    bytes: [u32; STEPS],
    /// Of all steps.
    total: u32,
    newest: u8,
    began: i64,
    limited: bool,
    since: i64,
}

impl ApplicationLimited {
    #[inline]
    pub fn on_sent(&mut self, now: i64, bytes: u16) {
        self.advance(now);
        let bytes = u32::from(bytes).min(u32::MAX - self.total);
        self.bytes[usize::from(self.newest)] += bytes;
        self.total += bytes;
    }

    /// The rate sent over the last half second.
    pub fn sent(&mut self, now: i64) -> BitRate {
        self.advance(now);
        let span = STEP * (STEPS as i64 - 1) + now - self.began;
        BitRate::over(self.total.into(), span)
    }

    /// Judges by the share of the target that [`Self::sent`] is.
    pub fn judge(&mut self, now: i64, used: f64) -> bool {
        let limited = used < if self.limited { ENDS } else { BEGINS };
        if limited && !self.limited {
            self.since = now;
        }
        self.limited = limited;
        limited
    }

    /// Not only because what is sent follows a target that just rose.
    pub fn for_long(&self, now: i64) -> bool {
        self.limited && now - self.since > LONG
    }

    fn advance(&mut self, now: i64) {
        if now - self.began < STEP {
            return;
        }
        let passed = (now - self.began) / STEP;
        for _ in 0..passed.min(STEPS as i64) {
            self.newest = if usize::from(self.newest) + 1 == STEPS { 0 } else { self.newest + 1 };
            self.total -= std::mem::take(&mut self.bytes[usize::from(self.newest)]);
        }
        self.began = if passed < STEPS as i64 { self.began + STEP * passed } else { now };
    }
}
