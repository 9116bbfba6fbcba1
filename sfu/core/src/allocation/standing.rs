//! What a peer's line remembers of ups and downs, so that what is sent over it does not swing.

use std::time::{Duration, Instant};

/// After a step down for want of room, nobody steps up to what was sent then for so long; doubled each time that a step up
/// did not last.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
const MAX_PATIENCE: Duration = Duration::from_secs(64);
/// A step up that lasted so long was right.
const LASTED: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    rose: Option<Instant>,
    not_before: Option<Instant>,
    patience: Duration,
    /// What was sent in all when it was too much.
    failed: u64,
}

impl Standing {
    /// What not to rise to at present, in bits a second, of all that is sent.
    pub fn failed(&self, now: Instant) -> u64 {
        if self.waits(now) { self.failed } else { u64::MAX }
    }

    fn waits(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|at| now < at)
    }

    pub fn on_rise(&mut self, now: Instant) {
        self.rose = Some(now);
    }

    /// Of what was sent less is granted for want of room.
    pub fn on_fall(&mut self, now: Instant, sent: u64) {
        let in_vain = self.rose.take().is_some_and(|rose| now.saturating_duration_since(rose) < LASTED);
        if in_vain {
            self.patience = (self.patience * 2).clamp(FIRST_PATIENCE, MAX_PATIENCE);
        } else if !self.waits(now) {
            self.patience = FIRST_PATIENCE;
        }
        self.failed = sent.min(self.failed(now));
        self.not_before = Some(now + self.patience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn what_fails_soon_after_rising_is_tried_ever_later() {
        let (mut now, mut standing) = (start(), Standing::default());
        assert_eq!(standing.failed(now), u64::MAX);
        let mut waits = Vec::new();
        for _ in 0..8 {
            standing.on_rise(now);
            now += Duration::from_secs(2);
            standing.on_fall(now, 1_000_000);
            let fell = now;
            while standing.failed(now) == 1_000_000 {
                now += Duration::from_millis(500);
            }
            waits.push((now - fell).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64]);
        standing.on_rise(now);
        now += LASTED;
        standing.on_fall(now, 1_000_000);
        assert_eq!(standing.failed(now + FIRST_PATIENCE), u64::MAX);
    }

    #[test]
    fn the_least_that_failed_counts() {
        let (now, mut standing) = (start(), Standing::default());
        standing.on_fall(now, 1_000_000);
        standing.on_fall(now, 800_000);
        standing.on_fall(now, 900_000);
        assert_eq!(standing.failed(now), 800_000);
    }
}
