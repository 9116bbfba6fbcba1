//! Bits in network order, for formats that ignore byte boundaries.

/// Reads bits from the most significant end; `None` past the last.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits from the beginning.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn bit(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit != 0)
    }

    /// An unsigned number of up to 32 bits: `f(n)`.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0_u32;
        let mut left = count as usize;
        while left > 0 {
            let byte = *self.bytes.get(self.at / 8)?;
            let in_byte = 8 - self.at % 8;
            let take = left.min(in_byte);
            let part = u32::from(byte) >> (in_byte - take) & ((1 << take) - 1);
            value = value << take | part;
            self.at += take;
            left -= take;
        }
        Some(value)
    }

    /// One of `choices` numbers, the smaller ones a bit shorter: `ns(n)`
    /// ([AV1 §4.10.7](https://aomediacodec.github.io/av1-spec/#nsn)).
    pub(crate) fn non_symmetric(&mut self, choices: u32) -> Option<u32> {
        let width = u32::BITS - choices.leading_zeros();
        let short_ones = (1 << width) - choices;
        let value = self.bits(width - 1)?;
        if value < short_ones {
            return Some(value);
        }
        let last = self.bits(1)?;
        Some((value << 1) - short_ones + last)
    }

    /// Bits read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }
}

/// Writes bits from the most significant end into zeroed bytes; `None` past the last.
#[derive(Debug)]
pub(crate) struct BitWriter<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> BitWriter<'a> {
    /// Clears `bytes`.
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        bytes.fill(0);
        Self { bytes, at: 0 }
    }

    pub(crate) fn bit(&mut self, bit: bool) -> Option<()> {
        let byte = self.bytes.get_mut(self.at / 8)?;
        *byte |= u8::from(bit) << (7 - self.at % 8);
        self.at += 1;
        Some(())
    }

    /// The lowest `count` bits of `value`.
    pub(crate) fn bits(&mut self, value: u32, count: u32) -> Option<()> {
        (0..count).rev().try_for_each(|bit| self.bit(value >> bit & 1 != 0))
    }

    /// The next `count` bits of `from`.
    pub(crate) fn copy(&mut self, from: &mut BitReader<'_>, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.bit(from.bit()?))
    }

    /// Bytes begun.
    pub(crate) fn len(&self) -> usize {
        self.at.div_ceil(8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_non_symmetric_codes_of_the_specification() {
        // n = 5: 00, 01, 10, 110, 111
        for (byte, value, bits) in [(0x00, 0, 2), (0x40, 1, 2), (0x80, 2, 2), (0xc0, 3, 3), (0xe0, 4, 3)] {
            let bytes = [byte];
            let mut reader = BitReader::new(&bytes);
            assert_eq!(reader.non_symmetric(5), Some(value));
            assert_eq!(reader.position(), bits);
        }
        assert_eq!(BitReader::new(&[]).non_symmetric(1), Some(0));
        assert_eq!(BitReader::new(&[]).non_symmetric(2), None);
    }

    #[test]
    fn ends_with_the_bytes() {
        let mut reader = BitReader::new(&[0xff, 0x01]);
        assert_eq!(reader.bits(15), Some(0x7f80));
        assert_eq!(reader.bits(2), None);
        let mut bytes = [0; 1];
        let mut writer = BitWriter::new(&mut bytes);
        assert_eq!(writer.bits(0x7f, 7), Some(()));
        assert_eq!(writer.bits(3, 2), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(numbers in proptest::collection::vec((any::<u32>(), 0u32..=32), 0..20)) {
            let mut bytes = [0xee; 80];
            let mut writer = BitWriter::new(&mut bytes);
            for (number, width) in &numbers {
                writer.bits(*number, *width).unwrap();
            }
            let mut reader = BitReader::new(&bytes);
            for (number, width) in &numbers {
                let mask = 1_u64.checked_shl(*width).map_or(0, |bit| bit - 1) as u32;
                prop_assert_eq!(reader.bits(*width), Some(number & mask));
            }
        }
    }
}
