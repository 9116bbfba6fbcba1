//! A picture at once for somebody who begins to watch: the newest key frame and what followed it, from the ring.

use std::time::{Duration, Instant};

use crate::publication::Publication;
use crate::subscription::Subscription;

/// The most packets that one peer is replayed in a [`WINDOW`]. A Linux socket with the buffer it is born with holds some
/// 90 packets, and clients are busy with other things while they join: a burst of more is lost at the very end of its
/// way, besides flooding a thin line. Whoever gets no replay gets a key frame that is asked for, a round trip later.
pub(super) const MAX_REPLAY: usize = 48;
const WINDOW: Duration = Duration::from_millis(250);

/// A stretch of an encoding, all of which the ring may still hold.
pub(super) struct Replay {
    pub encoding: u8,
    pub first: u64,
    pub packets: usize,
}

/// The stretch of the encoding that the subscription waits for which can be replayed.
pub(super) fn replayable(
    now: Instant,
    publication: &Publication,
    subscription: &Subscription,
) -> Option<Replay> {
    let encoding = subscription.wants_key_frame()?;
    let state = publication.encodings.get(usize::from(encoding))?;
    let (first, latest) = (state.ring.last_key_frame()?, state.ring.latest()?);
    let packets = usize::try_from(latest - first).ok()?.checked_add(1)?;
    (packets <= MAX_REPLAY && state.activity.is_active(now)).then_some(Replay { encoding, first, packets })
}

/// What a peer may still be replayed.
#[derive(Debug, Default)]
pub(crate) struct ReplayBudget {
    since: Option<Instant>,
    spent: usize,
}

impl ReplayBudget {
    /// Takes so many packets, all or none.
    pub fn take(&mut self, now: Instant, packets: usize) -> bool {
        if self.since.is_none_or(|since| now >= since + WINDOW) {
            *self = Self { since: Some(now), spent: 0 };
        }
        let granted = self.spent + packets <= MAX_REPLAY;
        if granted {
            self.spent += packets;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_whole_or_not_and_comes_back_after_the_window() {
        let now = crate::testing::start();
        let mut budget = ReplayBudget::default();
        assert!(budget.take(now, MAX_REPLAY - 10));
        assert!(!budget.take(now, 11));
        assert!(budget.take(now, 10), "what was refused was not spent");
        assert!(!budget.take(now + WINDOW - Duration::from_millis(1), 1));
        assert!(budget.take(now + WINDOW, MAX_REPLAY));
    }
}
