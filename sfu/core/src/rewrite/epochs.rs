//! Values that hold for stretches of egress sequence numbers.

use std::collections::VecDeque;

/// Offsets by egress number: the present one, and those of earlier stretches that retransmissions may still reach.
///
/// Past stretches are kept by their length, saturating at 16 bits: a request names 16 bits, so nothing further back
/// is ever looked up. Bound: `MAX` past stretches; one that never changes owns no memory.
#[derive(Clone, Debug)]
pub(super) struct Epochs<T, const MAX: usize> {
    present: T,
    /// The egress number the present stretch begins with.
    began: Option<u64>,
    /// Oldest first: the length of the stretch and its value. Each ends where the next begins.
    past: VecDeque<(u16, T)>,
}

impl<T: Copy, const MAX: usize> Epochs<T, MAX> {
    pub fn new(value: T) -> Self {
        Self { present: value, began: None, past: VecDeque::new() }
    }

    pub fn present(&self) -> T {
        self.present
    }

    /// Whether the present stretch has this egress number, rather than one before.
    #[inline]
    pub fn is_present(&self, egress: u64) -> bool {
        self.began.is_none_or(|began| egress >= began)
    }

    /// From this egress number on, `value` holds. Numbers must not descend.
    pub fn begin(&mut self, egress: u64, value: T) {
        let len = self.began.map_or(0, |began| egress.saturating_sub(began));
        if len > 0 {
            if self.past.len() == MAX {
                self.past.pop_front();
            } else if self.past.len() == self.past.capacity() {
                self.past.reserve_exact(self.past.len().max(2).min(MAX - self.past.len()));
            }
            self.past.push_back((u16::try_from(len).unwrap_or(u16::MAX), self.present));
        }
        self.present = value;
        self.began = Some(egress);
    }

    /// What holds at an egress number; `None` when that is forgotten.
    #[inline]
    pub fn at(&self, egress: u64) -> Option<T> {
        if self.is_present(egress) {
            return Some(self.present);
        }
        let mut end = self.began.unwrap_or(0);
        for &(len, value) in self.past.iter().rev() {
            let start = end.saturating_sub(u64::from(len));
            if egress >= start {
                return Some(value);
            }
            end = start;
        }
        None
    }
}
