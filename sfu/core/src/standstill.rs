//! Pictures that stand still at a subscriber though they should not: what operators want to hear of.

/// So many looks, a quarter of a second apart, at a publisher that sends and a subscriber that gets nothing, are a stall.
const LOOKS: u8 = 4;

/// What one subscription's pictures do, by looks of the same interval.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standstill {
    /// How many packets had been sent at the last look.
    sent: u32,
    /// Looks without any since.
    looks: u8,
}

impl Standstill {
    /// `sent` counts packets; `is_due` says whether the subscriber is to get any, and `moves` whether the publisher has
    /// sent some since the last look. Says whether a stall begins to count.
    pub fn look(&mut self, sent: u32, is_due: bool, moves: bool) -> bool {
        if self.sent != sent || !is_due {
            *self = Self { sent, looks: 0 };
            return false;
        }
        if !moves {
            return false; // a shared screen that does not change
        }
        self.looks = self.looks.saturating_add(1);
        self.looks == LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_once_however_long_it_is_and_again_after_a_packet() {
        let mut standstill = Standstill::default();
        let stalls = |standstill: &mut Standstill, sent| {
            (0..1_000).filter(|_| standstill.look(sent, true, true)).count()
        };
        assert_eq!(stalls(&mut standstill, 7), 1);
        assert_eq!(stalls(&mut standstill, 8), 1);
    }

    #[test]
    fn less_than_a_second_or_nothing_to_send_or_nothing_wished_is_no_stall() {
        let mut standstill = Standstill::default();
        for sent in 1..100 {
            assert!((0..LOOKS).all(|_| !standstill.look(sent, true, true)));
        }
        assert!((0..100).all(|_| !standstill.look(99, false, true)));
        assert!((0..100).all(|_| !standstill.look(99, true, false)));
    }
}
