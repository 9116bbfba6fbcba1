//! Key-frame requests of one encoding: many viewers ask, the publisher hears it once.

use std::time::{Duration, Instant};

/// The least time between two requests for one encoding. A key frame costs the publisher several times a delta
/// frame; libwebrtc's encoders answer within a frame or two, so asking again sooner buys a second key frame, not an
/// earlier one. Longer would prolong a frozen picture when the request or the frame was lost.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// A wish holds for so long. Who waits to switch says so again at every look at the layers, which are closer together;
/// a receiver that cannot decode asks again by itself. Without an end, an encoding that stopped would be asked for ever.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct KeyFrameRequests {
    wanted_until: Option<Instant>,
    /// When it was first asked for what is wanted now.
    asked_first: Option<Instant>,
    asked: Option<Instant>,
}

impl KeyFrameRequests {
    /// Somebody cannot go on without a key frame.
    pub fn want(&mut self, now: Instant) {
        if self.wanted_until.is_none_or(|until| now >= until) {
            self.asked_first = None;
        }
        self.wanted_until = Some(now + PATIENCE);
    }

    /// A key frame came: nobody waits any more. Who still does will say so at the next packet.
    pub fn on_key_frame(&mut self) {
        self.wanted_until = None;
    }

    /// Whether to send a request now. Asks again while it is wanted and the last was long enough ago.
    pub fn poll(&mut self, now: Instant) -> bool {
        self.wanted_until = self.wanted_until.filter(|until| now < *until);
        let due = self.wanted_until.is_some() && self.due().is_none_or(|at| now >= at);
        if due {
            self.asked = Some(now);
            self.asked_first.get_or_insert(now);
        }
        due
    }

    /// Whether a request has gone unanswered for so long that the publisher probably ignores requests.
    pub fn is_ignored(&self, now: Instant) -> bool {
        let waits = self.wanted_until.is_some_and(|until| now < until);
        waits && self.asked_first.is_some_and(|asked| now >= asked + MIN_INTERVAL)
    }

    /// When to [`Self::poll`] again, while somebody waits for what was asked for.
    pub fn retry_at(&self) -> Option<Instant> {
        self.due().filter(|due| self.wanted_until.is_some_and(|until| *due < until))
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
        requests.want(start);
        requests.want(start);
        assert!(requests.poll(start));
        assert!(!requests.poll(start + MIN_INTERVAL / 2));
        assert!(requests.poll(start + MIN_INTERVAL));
        requests.on_key_frame();
        assert!(!requests.poll(start + 2 * MIN_INTERVAL));
    }

    #[test]
    fn who_sends_no_key_frame_for_long_ignores_the_request() {
        let start = crate::testing::start();
        let mut requests = KeyFrameRequests::default();
        requests.want(start);
        assert!(requests.poll(start));
        requests.want(start + MIN_INTERVAL / 2);
        assert!(!requests.is_ignored(start + MIN_INTERVAL / 2));
        assert!(requests.is_ignored(start + MIN_INTERVAL));
        requests.on_key_frame();
        assert!(!requests.is_ignored(start + MIN_INTERVAL));
        let again = start + MIN_INTERVAL / 2;
        requests.want(again);
        assert!(
            !requests.poll(again) && !requests.is_ignored(again + MIN_INTERVAL),
            "it was not asked for yet"
        );
        assert!(requests.poll(start + MIN_INTERVAL));
        assert!(requests.is_ignored(start + 2 * MIN_INTERVAL));
        assert!(!requests.is_ignored(start + 10 * PATIENCE), "that ended");
    }

    #[test]
    fn a_wish_that_nobody_renews_ends() {
        let start = crate::testing::start();
        let mut requests = KeyFrameRequests::default();
        requests.want(start);
        let (mut now, mut count) = (start, 0);
        while requests.poll(now) {
            count += 1;
            let Some(retry) = requests.retry_at() else { break };
            now = retry;
        }
        assert_eq!(count, 4);
        assert_eq!(requests.retry_at(), None);
        requests.want(now);
        assert!(!requests.poll(now + PATIENCE), "nobody looked while it held");
        assert_eq!(requests.retry_at(), None, "and a retry in the past would be due for ever");
    }
}
