//! The round trip, from a packet to the feedback that reports it.

use std::time::Duration;

/// Assumed before anything is known. All times here in microseconds.
const FIRST: i64 = 100_000;
/// Longer is no round trip but a pause of something.
const MAX: i64 = 5_000_000;

/// Smoothed round-trip time. It includes the wait of the newest packet for its feedback, which is short.
#[derive(Debug, Default)]
pub struct RoundTrip {
    smoothed: Option<i64>,
}

impl RoundTrip {
    pub fn add(&mut self, sample: i64) {
        let sample = sample.clamp(0, MAX);
        self.smoothed = Some(self.smoothed.map_or(sample, |smoothed| (smoothed * 7 + sample) / 8));
    }

    pub fn smoothed(&self) -> Duration {
        Duration::from_micros(self.micros().unsigned_abs())
    }

    /// The same in microseconds.
    pub fn micros(&self) -> i64 {
        self.smoothed.unwrap_or(FIRST)
    }
}
