//! The AV1 aggregation header
//! ([AV1 RTP §4.4](https://aomediacodec.github.io/av1-rtp-spec/#44-av1-aggregation-header)).

/// The byte before the OBU elements.
///
/// ```text
/// |Z|Y| W |N|-|-|-|
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregationHeader {
    /// Z: the first element continues one of the packet before.
    pub continues: bool,
    /// Y: the last element goes on in the next packet.
    pub is_continued: bool,
    /// W: how many elements there are, when from 1 to 3; 0 says that each has its length.
    pub element_count: u8,
    /// N: the first packet of a coded video sequence, hence of a key frame.
    pub starts_sequence: bool,
}

impl AggregationHeader {
    #[inline]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        Some(Self {
            continues: first & 0x80 != 0,
            is_continued: first & 0x40 != 0,
            element_count: first >> 4 & 0x03,
            starts_sequence: first & 0x08 != 0,
        })
    }

    /// A sequence can't start within an element: N with Z is malformed and starts nothing.
    pub fn is_key_frame_start(&self) -> bool {
        self.starts_sequence && !self.continues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_bits() {
        let read = AggregationHeader::parse(&[0b0110_1000]).unwrap();
        assert_eq!(
            read,
            AggregationHeader {
                continues: false,
                is_continued: true,
                element_count: 2,
                starts_sequence: true
            }
        );
        assert!(read.is_key_frame_start());
        assert!(!AggregationHeader::parse(&[0b1000_1000]).unwrap().is_key_frame_start());
        assert!(!AggregationHeader::parse(&[0b0001_0000]).unwrap().is_key_frame_start());
        assert_eq!(AggregationHeader::parse(&[]), None);
    }
}
