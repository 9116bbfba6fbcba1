//! Key-frame requests of one encoding: many viewers ask, the publisher hears it once.

use std::time::{Duration, Instant};

/// The least time between two requests for one encoding. A key frame costs the publisher several times a delta
/// frame; libwebrtc's encoders answer within a frame or two, so asking again sooner buys a second key frame, not an
/// earlier one. Longer would prolong a frozen picture when the request or the frame was lost.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(crate) struct KeyFrameRequests {
    wanted: bool,
    asked: Option<Instant>,
}

impl KeyFrameRequests {
    /// Somebody cannot go on without a key frame.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// A key frame came: nobody waits any more. Who still does will say so at the next packet.
    pub fn on_key_frame(&mut self) {
        self.wanted = false;
    }

    /// Whether to send a request now. Asks again while it is wanted and the last was long enough ago.
    pub fn poll(&mut self, now: Instant) -> bool {
        let due = self.wanted && self.due().is_none_or(|at| now >= at);
        if due {
            self.asked = Some(now);
        }
        due
    }

    /// When to [`Self::poll`] again, while somebody waits for what was asked for.
    pub fn retry_at(&self) -> Option<Instant> {
        self.due().filter(|_| self.wanted)
    }

    fn due(&self) -> Option<Instant> {
        self.asked.map(|at| at + MIN_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wishes_are_one_request_until_the_interval_has_passed() {
        let start = crate::testing::start();
        let mut requests = KeyFrameRequests::default();
        assert!(!requests.poll(start));
        requests.want();
        requests.want();
        assert!(requests.poll(start));
        assert!(!requests.poll(start + MIN_INTERVAL / 2));
        assert!(requests.poll(start + MIN_INTERVAL));
        requests.on_key_frame();
        assert!(!requests.poll(start + 2 * MIN_INTERVAL));
    }
}
