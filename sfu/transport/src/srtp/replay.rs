//! Which indexes have been seen ([RFC 3711 §3.3.2](https://www.rfc-editor.org/rfc/rfc3711#section-3.3.2)).

/// Packets behind the newest that may still arrive. A second of 1,000 packets a second: later than that no
/// retransmission is of use. The RFC's least is 64.
pub(super) const WINDOW: u64 = 1_024;
const WORDS: usize = (WINDOW / 64) as usize;

/// A sliding bitmap over the last [`WINDOW`] indexes.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplayWindow {
    newest: Option<u64>,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    pub fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// Whether the index was seen, or is too old to tell.
    pub fn is_replay(&self, index: u64) -> bool {
        match self.newest {
            None => false,
            Some(newest) if index > newest => false,
            Some(newest) => newest - index >= WINDOW || self.seen[slot(index)] & bit(index) != 0,
        }
    }

    /// Notes an index that authenticated and is no replay.
    pub fn insert(&mut self, index: u64) {
        match self.newest {
            Some(newest) if index <= newest => {}
            Some(newest) => {
                for passed in newest + 1..=index.min(newest + WINDOW) {
                    self.seen[slot(passed)] &= !bit(passed);
                }
                self.newest = Some(index);
            }
            None => self.newest = Some(index),
        }
        self.seen[slot(index)] |= bit(index);
    }
}

fn slot(index: u64) -> usize {
    (index / 64) as usize % WORDS
}

fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_passes_once_and_old_ones_never() {
        let mut window = ReplayWindow::default();
        for index in [5_000, 5_003, 5_001, 5_000 + WINDOW / 2] {
            assert!(!window.is_replay(index));
            window.insert(index);
            assert!(window.is_replay(index));
        }
        assert!(!window.is_replay(5_002), "a gap stays open");
        window.insert(9_000);
        assert!(window.is_replay(9_000 - WINDOW), "too old");
        assert!(!window.is_replay(9_001 - WINDOW));
        assert!(!window.is_replay(8_999), "the jump cleared what it passed");
    }
}
