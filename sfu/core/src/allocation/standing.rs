//! What a subscription remembers of its ups and downs, so that it does not swing.

use std::time::{Duration, Instant};

/// After a step down for want of room, no step up for so long; doubled each time that a step up did not last.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
const MAX_PATIENCE: Duration = Duration::from_secs(16);
/// A step up that lasted so long was right.
const LASTED: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    rose: Option<Instant>,
    not_before: Option<Instant>,
    patience: Duration,
}

impl Standing {
    pub fn may_rise(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    pub fn on_rise(&mut self, now: Instant) {
        self.rose = Some(now);
    }

    /// It was granted less for want of room.
    pub fn on_fall(&mut self, now: Instant) {
        let in_vain = self.rose.take().is_some_and(|rose| now.saturating_duration_since(rose) < LASTED);
        self.patience = match in_vain {
            true => (self.patience * 2).clamp(FIRST_PATIENCE, MAX_PATIENCE),
            false => FIRST_PATIENCE,
        };
        self.not_before = Some(now + self.patience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn who_falls_soon_after_rising_waits_ever_longer() {
        let (mut now, mut standing) = (start(), Standing::default());
        assert!(standing.may_rise(now));
        let mut waits = Vec::new();
        for _ in 0..7 {
            standing.on_rise(now);
            now += Duration::from_secs(2);
            standing.on_fall(now);
            let fell = now;
            while !standing.may_rise(now) {
                now += Duration::from_millis(500);
            }
            waits.push((now - fell).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
        standing.on_rise(now);
        now += LASTED;
        standing.on_fall(now);
        assert!(standing.may_rise(now + FIRST_PATIENCE));
    }
}
