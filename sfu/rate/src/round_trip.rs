//! The round trip, from a packet to the feedback that reports it.

use std::time::Duration;

/// Assumed before anything is known.
const FIRST: Duration = Duration::from_millis(100);
/// Longer is no round trip but a pause of something.
const MAX: Duration = Duration::from_secs(5);

/// Smoothed round-trip time. It includes the wait of the newest packet for its feedback, which is short.
#[derive(Debug, Default)]
pub struct RoundTrip {
    smoothed: Option<Duration>,
}

impl RoundTrip {
    pub fn add(&mut self, sample: Duration) {
        let sample = sample.min(MAX);
        self.smoothed = Some(self.smoothed.map_or(sample, |smoothed| (smoothed * 7 + sample) / 8));
    }

    pub fn smoothed(&self) -> Duration {
        self.smoothed.unwrap_or(FIRST)
    }
}
