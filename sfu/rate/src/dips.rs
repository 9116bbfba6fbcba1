//! A queue that each of those who keep it full takes for the others'.
//!
//! Whoever drains such a queue alone sees nothing of it, believes somebody greedy at the other end, and takes the delay for
//! the path's. What remains is that the path was much shorter a moment ago. So all send less for a second now and then, and
//! whoever sees the delay shrink joins in; if all who fill the queue do, it drains. Beside somebody greedy it costs a little.

use std::time::Duration;

use crate::Time;

/// A path that seems longer by this than it was within the last minute is crowded. In microseconds.
const CROWDED: i64 = 60_000;
/// What is sent meanwhile, of what would be. Pacing allows a fifth more for a moment.
pub const SHARE: f64 = 0.7;
const EVERY: Duration = Duration::from_secs(8);
const LASTS: Duration = Duration::from_secs(1);
/// By so much (in microseconds) a delay shrinks when others dip; less is jitter.
const SEEN: i64 = 8_000;

/// Whether a path that seems longer by this, in microseconds, may be such a queue.
pub fn is_crowded(lifted: i64) -> bool {
    lifted >= CROWDED
}

/// When to send less. [`Default`] is on a path of its usual length.
#[derive(Debug, Default)]
pub struct Dips {
    /// When the next begins and the present one ends, on a crowded line.
    times: Option<(Time, Time)>,
    /// By how much the path seemed longer since the last one, at most.
    highest: i64,
}

impl Dips {
    /// Whether to send less now, where the path seems longer by `lifted`.
    pub fn handle(&mut self, now: Time, lifted: i64) -> bool {
        if !is_crowded(lifted) {
            *self = Self::default();
            return false;
        }
        let (next, until) = self.times.get_or_insert((now + EVERY, now));
        self.highest = self.highest.max(lifted);
        if now >= *next || now >= *until && self.highest - lifted > SEEN {
            (*next, *until) = (now + EVERY, now + LASTS);
        }
        if now < *until {
            self.highest = lifted;
        }
        now < *until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEEDBACK: Duration = Duration::from_millis(50);

    /// Ten seconds of a path that seems so much longer at each feedback: whether less is sent then.
    fn play(lifted: impl Fn(i64) -> i64) -> Vec<bool> {
        let (mut dips, mut now) = (Dips::default(), Time::ZERO + Duration::from_secs(9));
        let mut handle = |feedback: i64| {
            now += FEEDBACK;
            dips.handle(now, lifted(feedback))
        };
        (0..200).map(&mut handle).collect()
    }

    fn begins(dips: &[bool]) -> Option<usize> {
        dips.iter().position(|dips| *dips)
    }

    #[test]
    fn alone_it_is_a_second_now_and_then() {
        let alone = play(|_| 2 * CROWDED);
        assert_eq!(begins(&alone), Some(160), "after eight seconds");
        assert_eq!(alone.iter().filter(|dips| **dips).count(), 20, "a second");
        assert_eq!(begins(&play(|_| CROWDED / 2)), None, "a path of much the same length");
    }

    #[test]
    fn whoever_sees_others_joins_in() {
        // The delay shrinks little by little, as when one of ten dips.
        let joining = play(|feedback| 2 * CROWDED - (feedback - 60).max(0) * 1_000);
        assert_eq!(begins(&joining), Some(69));
        let drained = play(|feedback| 2 * CROWDED - (feedback - 60).max(0) * 5_000);
        assert_eq!(begins(&drained), Some(62));
        assert_eq!(drained.iter().filter(|dips| **dips).count(), 11, "until it is no longer crowded");
    }
}
