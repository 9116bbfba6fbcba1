//! Telling publishers which layers anybody wants: up at once, down after a while.

use std::time::{Duration, Instant};

/// Down only after this long: people look away and back, and a layer that comes back costs a key frame.
const DOWN_DELAY: Duration = Duration::from_secs(1);
/// The same for a layer whose end was regretted: somebody flips between two views, or scrolls.
const WARY_DOWN_DELAY: Duration = Duration::from_secs(5);
/// Wanted again so soon after it was turned off, a layer should have stayed.
const REGRET: Duration = Duration::from_secs(10);
/// Before the first "nobody", those in the room get time to arrive: two rounds of negotiation.
const FIRST_OFF_DELAY: Duration = Duration::from_secs(2);

/// What one track's publisher has been told and is to be told. Bit n is layer n.
#[derive(Clone, Debug)]
pub(crate) struct Dynacast {
    wanted: u8,
    told: Option<u8>,
    due: Option<Instant>,
    /// Since when less is wanted than was told.
    falling_since: Option<Instant>,
    /// When a layer was last turned off.
    fell: Option<Instant>,
    /// The last to be turned off was wanted again soon.
    is_wary: bool,
    /// Before it nothing is turned off.
    settled: Instant,
}

impl Dynacast {
    pub fn new(now: Instant) -> Self {
        let settled = now + FIRST_OFF_DELAY;
        Self {
            wanted: 0,
            told: None,
            due: Some(settled),
            falling_since: None,
            fell: None,
            is_wary: false,
            settled,
        }
    }

    /// The plane says what is wanted now.
    pub fn want(&mut self, now: Instant, layers: u8) {
        self.wanted = layers;
        let rises = layers & !self.told.unwrap_or(0) != 0;
        if rises || self.told == Some(layers) {
            self.due = rises.then_some(now);
            self.falling_since = None;
            if rises {
                self.is_wary = self.fell.is_some_and(|fell| now < fell + REGRET);
            }
            return;
        }
        // Each further fall gets its time, but does not keep the first one waiting for ever.
        let delay = if self.is_wary { WARY_DOWN_DELAY } else { DOWN_DELAY };
        let since = *self.falling_since.get_or_insert(now);
        self.due = Some((now + delay).min(since + delay.mul_f32(1.5)).max(self.settled));
    }

    /// Says it again, for a client that forgot.
    pub fn repeat(&mut self, now: Instant) {
        if self.told.take().is_some() {
            self.due = Some(now);
        }
    }

    /// What it was told last.
    pub fn told(&self) -> Option<u8> {
        self.told
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What to tell now, if anything is due.
    pub fn take(&mut self, now: Instant) -> Option<u8> {
        self.due.filter(|due| *due <= now)?;
        (self.due, self.falling_since) = (None, None);
        if self.told.unwrap_or(0) & !self.wanted != 0 {
            self.fell = Some(now);
        }
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

    /// Told that all three are wanted, long ago.
    fn settled() -> (Dynacast, Instant) {
        let start = origin();
        let mut dynacast = Dynacast::new(start);
        dynacast.want(start, 0b111);
        assert_eq!(dynacast.take(start), Some(0b111));
        (dynacast, start + 60 * SECOND)
    }

    #[test]
    fn rises_at_once_and_falls_after_a_second() {
        let (mut dynacast, now) = settled();
        dynacast.want(now, 0b001);
        assert_eq!(dynacast.take(now + SECOND / 2), None);
        assert_eq!(dynacast.take(now + SECOND), Some(0b001));
        dynacast.want(now + 60 * SECOND, 0b011);
        assert_eq!(dynacast.take(now + 60 * SECOND), Some(0b011));
    }

    #[test]
    fn a_glance_away_is_not_told() {
        let (mut dynacast, now) = settled();
        dynacast.want(now, 0);
        dynacast.want(now + SECOND / 2, 0b111);
        assert_eq!(dynacast.due(), None);
    }

    #[test]
    fn what_falls_step_by_step_falls_within_one_and_a_half_seconds() {
        let (mut dynacast, now) = settled();
        for step in 0..15 {
            dynacast.want(now + step * SECOND / 10, if step % 2 == 0 { 0b011 } else { 0b001 });
        }
        assert_eq!(dynacast.take(now + 3 * SECOND / 2), Some(0b011));
    }

    #[test]
    fn a_layer_whose_end_was_regretted_stays_for_five_seconds_the_next_time() {
        let (mut dynacast, now) = settled();
        dynacast.want(now, 0b001);
        assert_eq!(dynacast.take(now + SECOND), Some(0b001));
        dynacast.want(now + 4 * SECOND, 0b111);
        assert_eq!(dynacast.take(now + 4 * SECOND), Some(0b111));
        dynacast.want(now + 5 * SECOND, 0b001);
        assert_eq!(dynacast.take(now + 9 * SECOND), None);
        assert_eq!(dynacast.take(now + 10 * SECOND), Some(0b001));
        // And forgiven when the next was right.
        dynacast.want(now + 60 * SECOND, 0b111);
        assert_eq!(dynacast.take(now + 60 * SECOND), Some(0b111));
        dynacast.want(now + 70 * SECOND, 0b001);
        assert_eq!(dynacast.take(now + 71 * SECOND), Some(0b001));
    }

    #[test]
    fn of_views_that_flip_for_a_minute_few_turns_are_told() {
        let (mut dynacast, now) = settled();
        let mut told = 0;
        for tick in 0..600 {
            let at = now + tick * SECOND / 10;
            dynacast.want(at, if tick / 20 % 2 == 0 { 0b001 } else { 0b111 }); // each two seconds
            told += u32::from(dynacast.take(at).is_some());
        }
        assert_eq!(told, 2, "down once, up once, and not down again");
    }

    #[test]
    fn nobody_is_told_two_seconds_after_the_start_at_the_earliest() {
        let start = origin();
        let mut dynacast = Dynacast::new(start);
        dynacast.want(start, 0);
        assert_eq!(dynacast.take(start + 19 * SECOND / 10), None);
        assert_eq!(dynacast.take(start + 2 * SECOND), Some(0));
        // Whoever comes then is no regret: nothing that was watched was turned off.
        dynacast.want(start + 3 * SECOND, 0b1);
        assert_eq!(dynacast.take(start + 3 * SECOND), Some(0b1));
        dynacast.want(start + 4 * SECOND, 0);
        assert_eq!(dynacast.take(start + 5 * SECOND), Some(0));
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
