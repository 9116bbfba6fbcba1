//! Wire numbers that wrap, as numbers that do not.
//!
//! Each unwrapper takes the value nearest to the highest seen, so reordering by up to half the number space is
//! understood both ways. Counting starts one whole cycle above zero, which leaves room for packets that were
//! overtaken by the first one.

/// A sequence number of 16 bits on the wire, extended to 64
/// ([RFC 3550 A.1](https://www.rfc-editor.org/rfc/rfc3550#appendix-A.1)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedSequence(pub u64);

impl ExtendedSequence {
    /// As it goes on the wire.
    pub fn wire(self) -> u16 {
        self.0 as u16
    }

    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// How far this is past `earlier`; `None` when it is before.
    pub fn since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl std::fmt::Display for ExtendedSequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Extends 16-bit numbers: RTP and transport-wide sequence numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapper16 {
    highest: Option<u64>,
}

impl Unwrapper16 {
    pub fn new() -> Self {
        Self::default()
    }

    /// The extended number, which becomes the highest seen if it is.
    #[inline]
    pub fn unwrap(&mut self, wire: u16) -> ExtendedSequence {
        let extended = self.peek(wire);
        if self.highest.is_none_or(|highest| extended.0 > highest) {
            self.highest = Some(extended.0);
        }
        extended
    }

    /// The extended number without noting it, for numbers that a peer merely mentions, as in a NACK.
    #[inline]
    pub fn peek(&self, wire: u16) -> ExtendedSequence {
        let Some(highest) = self.highest else {
            return ExtendedSequence((1 << 16) + u64::from(wire));
        };
        let step = wire.wrapping_sub(highest as u16) as i16;
        // Half a cycle away counts as forward, like everything nearer that way.
        let step = if step == i16::MIN { 1 << 15 } else { i64::from(step) };
        ExtendedSequence(highest.checked_add_signed(step).unwrap_or(u64::from(wire)))
    }

    pub fn highest(&self) -> Option<ExtendedSequence> {
        self.highest.map(ExtendedSequence)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_on_across_the_wrap() {
        let mut unwrapper = Unwrapper16::new();
        let first = unwrapper.unwrap(65_534);
        assert_eq!(unwrapper.unwrap(65_535).since(first), Some(1));
        assert_eq!(unwrapper.unwrap(0).since(first), Some(2));
        assert_eq!(unwrapper.unwrap(1).since(first), Some(3));
    }

    #[test]
    fn understands_an_old_packet_after_the_wrap() {
        let mut unwrapper = Unwrapper16::new();
        let first = unwrapper.unwrap(0);
        let overtaken = unwrapper.unwrap(65_535);
        assert_eq!(first.since(overtaken), Some(1));
        assert_eq!(unwrapper.highest(), Some(first));
    }

    #[test]
    fn half_a_cycle_counts_as_forward_and_one_more_as_backward() {
        let mut unwrapper = Unwrapper16::new();
        let first = unwrapper.unwrap(100);
        assert_eq!(unwrapper.peek(100 + 32_768).since(first), Some(32_768));
        assert_eq!(first.since(unwrapper.peek(100 + 32_769)), Some(32_767));
    }

    #[test]
    fn peeking_notes_nothing() {
        let mut unwrapper = Unwrapper16::new();
        let first = unwrapper.unwrap(10);
        unwrapper.peek(5_000);
        assert_eq!(unwrapper.highest(), Some(first));
    }

    #[test]
    fn never_falls_below_zero() {
        let mut unwrapper = Unwrapper16 { highest: Some(3) };
        assert_eq!(unwrapper.unwrap(65_535).wire(), 65_535);
    }

    proptest! {
        #[test]
        fn any_step_of_less_than_half_a_cycle_is_understood(
            first: u16, steps in proptest::collection::vec(-32_767i64..=32_768, 1..200),
        ) {
            let mut unwrapper = Unwrapper16::new();
            let mut highest = unwrapper.unwrap(first).0;
            for step in steps {
                let sent = highest.strict_add_signed(step);
                prop_assert_eq!(unwrapper.unwrap(sent as u16), ExtendedSequence(sent));
                highest = highest.max(sent);
            }
        }
    }
}
