//! Extended reports: what a receiver that sends nothing needs for its round trip
//! ([RFC 3611 §4.4, §4.5](https://www.rfc-editor.org/rfc/rfc3611#section-4.4)).

use crate::bytes::{u16_at, u32_at, u64_at};

pub(super) const RECEIVER_REFERENCE_TIME: u8 = 4;
pub(super) const DELAY_SINCE_LAST_REFERENCE: u8 = 5;

#[derive(Clone, Copy, Debug)]
pub struct ExtendedReport<'a> {
    pub sender: u32,
    blocks: &'a [u8],
}

impl<'a> ExtendedReport<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        Some(Self { sender: u32_at(body, 0)?, blocks: body.get(4..)? })
    }

    pub fn blocks(self) -> ExtendedBlocks<'a> {
        ExtendedBlocks { rest: self.blocks }
    }
}

/// The blocks of a report; ends at the first that runs past the packet.
#[derive(Clone, Debug)]
pub struct ExtendedBlocks<'a> {
    rest: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub enum ExtendedBlock<'a> {
    /// The sender's clock, 32.32 seconds.
    ReceiverReferenceTime {
        ntp: u64,
    },
    DelaySinceLastReference(Delays<'a>),
    Other {
        block_type: u8,
    },
}

/// Answers to reference times, one for each receiver.
#[derive(Clone, Copy, Debug)]
pub struct Delays<'a>(&'a [[u8; 12]]);

impl<'a> Delays<'a> {
    pub fn iter(self) -> impl ExactSizeIterator<Item = DelaySinceLastReference> + 'a {
        self.0.iter().map(|&[s0, s1, s2, s3, l0, l1, l2, l3, d0, d1, d2, d3]| DelaySinceLastReference {
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            last_reference: u32::from_be_bytes([l0, l1, l2, l3]),
            delay: u32::from_be_bytes([d0, d1, d2, d3]),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelaySinceLastReference {
    /// Whose reference time this answers.
    pub ssrc: u32,
    /// [`super::compact_ntp`] of that reference time.
    pub last_reference: u32,
    /// Since it arrived, in 1/65536 s.
    pub delay: u32,
}

impl<'a> Iterator for ExtendedBlocks<'a> {
    type Item = ExtendedBlock<'a>;

    fn next(&mut self) -> Option<ExtendedBlock<'a>> {
        let block_type = *self.rest.first()?;
        let len = 4 * usize::from(u16_at(self.rest, 2)?);
        let (block, rest) = self.rest.split_at_checked(4 + len)?;
        self.rest = rest;
        let content = &block[4..];
        Some(match (block_type, u64_at(content, 0)) {
            (RECEIVER_REFERENCE_TIME, Some(ntp)) => ExtendedBlock::ReceiverReferenceTime { ntp },
            (DELAY_SINCE_LAST_REFERENCE, _) => {
                ExtendedBlock::DelaySinceLastReference(Delays(content.as_chunks().0))
            }
            _ => ExtendedBlock::Other { block_type },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Compound, RtcpPacket};
    use super::*;

    #[test]
    fn reads_reference_times_and_their_answers() {
        let mut datagram = vec![0x80, 207, 0, 10, 0, 0, 0, 1];
        datagram.extend([9, 0, 0, 0]); // a block type nobody knows
        datagram.extend([4, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
        datagram.extend([5, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9]);
        datagram.extend([4, 0, 0, 200]); // runs past the packet
        let Some(Ok(RtcpPacket::ExtendedReport(report))) = Compound::new(&datagram).next() else {
            panic!("no extended report")
        };
        let blocks: Vec<_> = report.blocks().collect();
        assert_eq!(blocks.len(), 3);
        assert!(matches!(blocks[0], ExtendedBlock::Other { block_type: 9 }));
        assert!(matches!(blocks[1], ExtendedBlock::ReceiverReferenceTime { ntp: 0x0102_0304_0506_0708 }));
        let ExtendedBlock::DelaySinceLastReference(delays) = blocks[2] else { panic!("no delays") };
        assert_eq!(
            delays.iter().collect::<Vec<_>>(),
            [DelaySinceLastReference { ssrc: 7, last_reference: 8, delay: 9 }]
        );
    }
}
