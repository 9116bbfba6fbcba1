//! How long to wait for the rest of a picture.
//!
//! A publisher sends the packets of a picture one after the other, some microseconds apart, and the first wakes us.
//! Forwarded at once, it costs a message for each subscriber, and the rest another; together they leave in one. So an
//! empty socket is asked again for a while, less than what the second message to all subscribers would take.
//! Publishers that space their packets out never come in time: then hardly anything is spent on waiting.

/// Times an empty socket is asked again at most: some 30 microseconds.
const MOST_POLLS: usize = 64;
/// Times it is asked when waiting was of no use lately, to notice when it is again.
const LEAST_POLLS: usize = 4;
/// A message to one subscriber costs as much as asking this often, at least.
const POLLS_PER_SUBSCRIBER: usize = 1;

/// Grows while waiting is of use, and shrinks while it is not.
#[derive(Debug)]
pub(crate) struct Patience {
    polls: usize,
    in_vain: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self { polls: MOST_POLLS, in_vain: 0 }
    }
}

impl Patience {
    /// How often to ask an empty socket for the rest of a picture that so many subscribers wait for.
    pub fn polls(&self, subscribers: usize) -> usize {
        // With one or two there is little to win.
        if subscribers < 3 { 0 } else { self.polls.min(subscribers * POLLS_PER_SUBSCRIBER) }
    }

    /// Whether asking brought something.
    pub fn note(&mut self, came: bool) {
        if came {
            (self.polls, self.in_vain) = ((self.polls * 2).min(MOST_POLLS), 0);
            return;
        }
        self.in_vain += 1;
        if self.in_vain >= self.polls {
            (self.polls, self.in_vain) = ((self.polls / 2).max(LEAST_POLLS), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_never_comes_in_time_is_hardly_waited_for() {
        let mut patience = Patience::default();
        let mut spent = 0;
        for _ in 0..100 {
            for _ in 0..patience.polls(100) {
                patience.note(false);
                spent += 1;
            }
        }
        assert!(spent <= 100 * LEAST_POLLS + 2 * MOST_POLLS, "{spent} polls");
    }

    #[test]
    fn patience_comes_back_with_success() {
        let mut patience = Patience::default();
        (0..1_000).for_each(|_| patience.note(false));
        assert_eq!(patience.polls(100), LEAST_POLLS);
        (0..10).for_each(|_| patience.note(true));
        assert_eq!(patience.polls(100), MOST_POLLS);
    }

    #[test]
    fn waiting_costs_less_than_it_can_save() {
        let patience = Patience::default();
        assert_eq!([0, 1, 2].map(|subscribers| patience.polls(subscribers)), [0; 3]);
        assert_eq!(patience.polls(10), 10);
        assert_eq!(patience.polls(10_000), MOST_POLLS);
    }
}
