//! Who has opened how many conferences a moment ago.
//!
//! A token for a conference that its holder may create opens it ahead of them, and for minutes it stays though nobody comes.
//! Somebody who asks for tokens for ever new rooms must not fill the focus by that alone.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use weir_matrix::names::UserId;

/// Conferences that one person opens in [`WITHIN`]. Nobody calls in so many rooms; a program may.
const MOST: usize = 100;
/// As long as a conference that nobody enters stays.
const WITHIN: Duration = Duration::from_secs(300);
/// People remembered. Who is forgotten may open as many again; the focus bounds the sum.
const MAX_PEOPLE: usize = 4_096;

/// See the module's description.
pub struct Openers(LruCache<UserId, VecDeque<Instant>>);

impl Default for Openers {
    fn default() -> Self {
        Self(LruCache::new(NonZeroUsize::new(MAX_PEOPLE).expect("it is not 0")))
    }
}

impl Openers {
    /// Whether somebody may open one more now, which then counts.
    pub fn admit(&mut self, now: Instant, user: &UserId) -> bool {
        let opened = self.0.get_or_insert_mut(user.clone(), VecDeque::new);
        while opened.front().is_some_and(|at| *at + WITHIN <= now) {
            opened.pop_front();
        }
        let may = opened.len() < MOST;
        if may {
            opened.push_back(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn somebody_opens_so_many_and_others_are_not_held_up_by_that() {
        let (mut openers, start) = (Openers::default(), Instant::now());
        let user = |name: usize| UserId::parse(&format!("@u{name}:lab.example")).unwrap();
        for _ in 0..MOST {
            assert!(openers.admit(start, &user(0)));
        }
        assert!(!openers.admit(start + WITHIN - Duration::from_millis(1), &user(0)));
        assert!(openers.admit(start, &user(1)));
        assert!(openers.admit(start + WITHIN, &user(0)));
        for name in 2..2 * MAX_PEOPLE {
            assert!(openers.admit(start, &user(name)));
        }
        assert_eq!(openers.0.len(), MAX_PEOPLE);
    }
}
