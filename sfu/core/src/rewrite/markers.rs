//! Which packets end a picture for one subscription though they do not for the publisher: the highest layer that passes may
//! not be the highest sent. They go again with the marker that they had, whatever passes by then.

/// Egress numbers remembered: what the ring upstream holds.
const WINDOW: u64 = 1024;

/// Owns no memory before the first such packet.
#[derive(Clone, Debug, Default)]
pub struct Markers {
    /// By egress number modulo [`WINDOW`].
    added: Option<Box<[u64; WINDOW as usize / 64]>>,
}

impl Markers {
    /// A packet leaves under this number; `is_added` says whether it has a marker that the publisher's has not.
    #[inline]
    pub fn note(&mut self, number: u64, is_added: bool) {
        if self.added.is_none() && !is_added {
            return;
        }
        let bit = number % WINDOW;
        let word = &mut self.added.get_or_insert_default()[(bit / 64) as usize];
        *word = *word & !(1 << (bit % 64)) | u64::from(is_added) << (bit % 64);
    }

    /// Whether the packet under this number, which must be one of the last [`WINDOW`], had such a marker.
    pub fn is_added(&self, number: u64) -> bool {
        let bit = number % WINDOW;
        self.added.as_ref().is_some_and(|added| added[(bit / 64) as usize] >> (bit % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_a_marker_has_it_again() {
        let mut markers = Markers::default();
        markers.note(7, false);
        assert!(markers.added.is_none());
        for number in 8..3 * WINDOW {
            markers.note(number, number % 3 == 0);
            let oldest = number.saturating_sub(WINDOW - 1).max(8);
            assert!(
                markers.is_added(number) == (number % 3 == 0)
                    && markers.is_added(oldest) == (oldest % 3 == 0)
            );
        }
    }
}
