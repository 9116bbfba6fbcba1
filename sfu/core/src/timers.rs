//! When to look at something again.
//!
//! A heap of `(instant, key)` with lazy deletion: whoever is due keeps its own [`Alarm`], and an entry that no longer
//! matches it is skipped. Arming earlier pushes; arming later is free, the early wake-up just arms again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    Peer(u32),
    Conference(u32),
}

/// When its owner is next looked at, if at all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Alarm(Option<Instant>);

#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, TimerKey)>>,
}

impl Timers {
    /// Makes sure that `key` is looked at no later than `at`.
    pub fn arm(&mut self, alarm: &mut Alarm, key: TimerKey, at: Instant) {
        if alarm.0.is_none_or(|armed| at < armed) {
            alarm.0 = Some(at);
            self.heap.push(Reverse((at, key)));
        }
    }

    /// The next instant that may concern somebody.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Entries, stale ones included.
    #[cfg(feature = "testing")]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// The next entry due. The caller compares it with the owner's alarm by [`Alarm::take`].
    pub fn pop(&mut self, now: Instant) -> Option<(Instant, TimerKey)> {
        let Reverse((at, _)) = self.heap.peek()?;
        (*at <= now).then(|| self.heap.pop().expect("peeked above").0)
    }
}

impl Alarm {
    /// Whether the popped entry is the one that counts; disarms if so.
    pub fn take(&mut self, popped: Instant) -> bool {
        let counts = self.0 == Some(popped);
        if counts {
            self.0 = None;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_earlier_alarm_replaces_a_later_one() {
        let start = crate::testing::start();
        let (early, late) = (start + Duration::from_millis(5), start + Duration::from_millis(9));
        let (mut timers, mut alarm) = (Timers::default(), Alarm::default());
        timers.arm(&mut alarm, TimerKey::Peer(3), late);
        timers.arm(&mut alarm, TimerKey::Peer(3), early);
        assert_eq!(timers.next(), Some(early));
        assert_eq!(timers.pop(start), None);
        let (at, key) = timers.pop(late).unwrap();
        assert_eq!((at, key), (early, TimerKey::Peer(3)));
        assert!(alarm.take(at));
        let (at, _) = timers.pop(late).unwrap();
        assert!(!alarm.take(at), "the later entry is stale");
    }
}
