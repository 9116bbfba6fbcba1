//! How often something may be done: so often at once, and so often a second after that.

use std::time::{Duration, Instant};

/// What is left of an allowance.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: f64,
    counted_at: Instant,
}

impl Allowance {
    /// Nothing of `burst` is taken yet.
    pub fn new(now: Instant, burst: f64) -> Self {
        Self { left: burst, counted_at: now }
    }

    /// Takes one, if one is left of `burst`, to which `per_second` come back.
    pub fn take(&mut self, now: Instant, burst: f64, per_second: f64) -> bool {
        let passed: Duration = now.saturating_duration_since(self.counted_at);
        self.left = (self.left + passed.as_secs_f64() * per_second).min(burst);
        self.counted_at = now;
        let is_left = self.left >= 1.0;
        self.left -= f64::from(u8::from(is_left));
        is_left
    }
}
