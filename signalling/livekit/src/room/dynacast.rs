//! Telling publishers which layers anybody wants: up at once, down after a while.

use std::time::{Duration, Instant};

/// Down only after this long: people look away and back.
const DOWN_DELAY: Duration = Duration::from_secs(5);
/// Before the first "nobody", subscribers get time to arrive.
const FIRST_OFF_DELAY: Duration = Duration::from_secs(10);

/// What one track's publisher has been told and is to be told. Bit n is layer n.
#[derive(Clone, Debug)]
pub(crate) struct Dynacast {
    wanted: u8,
    told: Option<u8>,
    due: Option<Instant>,
    /// Before it nothing is turned off.
    settled: Instant,
}

impl Dynacast {
    pub fn new(now: Instant) -> Self {
        Self { wanted: 0, told: None, due: Some(now + FIRST_OFF_DELAY), settled: now + FIRST_OFF_DELAY }
    }

    /// The plane says what is wanted now.
    pub fn want(&mut self, now: Instant, layers: u8) {
        self.wanted = layers;
        let rises = layers & !self.told.unwrap_or(0) != 0;
        self.due = if self.told == Some(layers) {
            None
        } else if rises {
            Some(now)
        } else {
            Some((now + DOWN_DELAY).max(self.settled.min(now + FIRST_OFF_DELAY)))
        };
    }

    /// Says it again, for a client that forgot.
    pub fn repeat(&mut self, now: Instant) {
        if self.told.take().is_some() {
            self.due = Some(now);
        }
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What to tell now, if anything is due.
    pub fn take(&mut self, now: Instant) -> Option<u8> {
        self.due.filter(|due| *due <= now)?;
        self.due = None;
        (self.told != Some(self.wanted)).then(|| *self.told.insert(self.wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time; tests only add to it")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn rises_at_once_and_falls_after_five_seconds() {
        let start = origin();
        let mut dynacast = Dynacast::new(start);
        dynacast.want(start, 0b111);
        assert_eq!(dynacast.take(start), Some(0b111));
        let later = start + 20 * SECOND;
        dynacast.want(later, 0b001);
        assert_eq!(dynacast.take(later + 4 * SECOND), None);
        assert_eq!(dynacast.take(later + 5 * SECOND), Some(0b001));
        dynacast.want(later + 6 * SECOND, 0b011);
        assert_eq!(dynacast.take(later + 6 * SECOND), Some(0b011));
    }

    #[test]
    fn a_glance_away_is_not_told() {
        let start = origin();
        let mut dynacast = Dynacast::new(start);
        dynacast.want(start, 0b111);
        dynacast.take(start);
        dynacast.want(start + 20 * SECOND, 0);
        dynacast.want(start + 22 * SECOND, 0b111);
        assert_eq!(dynacast.due(), None);
    }

    #[test]
    fn nobody_is_told_ten_seconds_after_the_start_at_the_earliest() {
        let start = origin();
        let mut dynacast = Dynacast::new(start);
        assert_eq!(dynacast.take(start + 9 * SECOND), None);
        assert_eq!(dynacast.take(start + 10 * SECOND), Some(0));
    }

    #[test]
    fn is_repeated_when_asked() {
        let start = origin();
        let mut dynacast = Dynacast::new(start);
        dynacast.want(start, 0b1);
        dynacast.take(start);
        dynacast.repeat(start + SECOND);
        assert_eq!(dynacast.take(start + SECOND), Some(0b1));
    }
}
