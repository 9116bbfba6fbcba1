//! What is to be asked of one homeserver, and how much of it at once.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{Answer, Dialect, JobId, LONGEST_PAUSE, SHORTEST_BACKOFF};

/// Calls under way to one homeserver. More would not be answered sooner, and a homeserver that hangs keeps this many
/// of everybody's.
const WIDEST: usize = 4;

#[derive(Debug)]
pub(super) struct Line {
    /// By the time they have left.
    pub waiting: BTreeSet<(Instant, JobId)>,
    /// A homeserver limits us, not a job: all wait then.
    pub paused_until: Option<Instant>,
    pub dialect: Dialect,
    /// It has understood us: what it says it does not know later, somebody on the way says, or it has changed.
    pub has_understood: bool,
    pub jobs: usize,
    asking: usize,
    /// How many may be under way: one after trouble, and one more for each that goes well.
    window: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            waiting: BTreeSet::new(),
            paused_until: None,
            dialect: Dialect::default(),
            has_understood: false,
            jobs: 0,
            asking: 0,
            window: WIDEST,
        }
    }
}

impl Line {
    pub fn pop(&mut self, now: Instant) -> Option<JobId> {
        if self.asking >= self.window || self.paused_until.is_some_and(|until| until > now) {
            return None;
        }
        self.paused_until = None;
        let (_, id) = self.waiting.pop_first()?;
        self.asking += 1;
        Some(id)
    }

    pub fn note(&mut self, now: Instant, answer: &Answer) {
        self.asking -= 1;
        self.has_understood |= matches!(answer, Answer::Done | Answer::Gone);
        match answer {
            Answer::Limited(wait) => {
                let until = now + (*wait).clamp(SHORTEST_BACKOFF, LONGEST_PAUSE);
                self.paused_until = self.paused_until.max(Some(until));
                self.window = 1;
            }
            Answer::Failed(_) => self.window = 1,
            _ => self.window = (self.window + 1).min(WIDEST),
        }
    }

    pub fn is_idle(&self) -> bool {
        self.jobs == 0 && self.asking == 0
    }
}
