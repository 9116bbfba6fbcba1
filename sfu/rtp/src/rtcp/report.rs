//! Sender and receiver reports, SDES and BYE: RFC 3550 §6.4 to §6.6.

use crate::bytes::{u24_at, u32_at, u64_at};

/// The middle 32 bits of an NTP timestamp, as LSR and LRR carry it: 16.16 seconds.
pub fn compact_ntp(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// What the sender of media says of its clock and counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// 32.32 seconds since 1900.
    pub ntp: u64,
    /// The same moment on the RTP clock.
    pub rtp_timestamp: u32,
    pub packet_count: u32,
    /// Payload bytes sent.
    pub octet_count: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct SenderReport<'a> {
    pub ssrc: u32,
    pub info: SenderInfo,
    pub blocks: ReportBlocks<'a>,
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(body: &'a [u8], count: u8) -> Option<Self> {
        Some(Self {
            ssrc: u32_at(body, 0)?,
            info: SenderInfo {
                ntp: u64_at(body, 4)?,
                rtp_timestamp: u32_at(body, 12)?,
                packet_count: u32_at(body, 16)?,
                octet_count: u32_at(body, 20)?,
            },
            blocks: ReportBlocks::parse(body.get(24..)?, count)?,
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct ReceiverReport<'a> {
    pub ssrc: u32,
    pub blocks: ReportBlocks<'a>,
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(body: &'a [u8], count: u8) -> Option<Self> {
        Some(Self { ssrc: u32_at(body, 0)?, blocks: ReportBlocks::parse(body.get(4..)?, count)? })
    }
}

/// How one stream arrives at its receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// Of the stream reported on.
    pub ssrc: u32,
    /// Since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Since the beginning; 24 bits with sign on the wire, duplicates make it negative. Written saturated.
    pub cumulative_lost: i32,
    /// The highest sequence number received; its upper half counts cycles.
    pub highest_sequence: u32,
    /// In units of the RTP clock.
    pub jitter: u32,
    /// [`compact_ntp`] of the last sender report, 0 when none came.
    pub last_sender_report: u32,
    /// Since that report arrived, in 1/65536 s.
    pub delay_since_last_sender_report: u32,
}

impl ReportBlock {
    pub(super) const LEN: usize = 24;
    /// What 24 bits with sign can say.
    const CUMULATIVE_RANGE: std::ops::RangeInclusive<i32> = -(1 << 23)..=(1 << 23) - 1;

    fn parse(bytes: &[u8; Self::LEN]) -> Option<Self> {
        Some(Self {
            ssrc: u32_at(bytes, 0)?,
            fraction_lost: bytes[4],
            cumulative_lost: (u24_at(bytes, 5)? << 8) as i32 >> 8,
            highest_sequence: u32_at(bytes, 8)?,
            jitter: u32_at(bytes, 12)?,
            last_sender_report: u32_at(bytes, 16)?,
            delay_since_last_sender_report: u32_at(bytes, 20)?,
        })
    }

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let lost = self.cumulative_lost.clamp(*Self::CUMULATIVE_RANGE.start(), *Self::CUMULATIVE_RANGE.end());
        let mut bytes = [0; Self::LEN];
        bytes[0..4].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes[4..8].copy_from_slice(&lost.to_be_bytes());
        bytes[4] = self.fraction_lost;
        bytes[8..12].copy_from_slice(&self.highest_sequence.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.jitter.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.last_sender_report.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.delay_since_last_sender_report.to_be_bytes());
        bytes
    }

    /// The round trip in 1/65536 s, when this block answers a sender report and arrives at `now`
    /// ([`compact_ntp`] of the clock that wrote the report). `None` when it answers none or the peer's delay cannot
    /// be true.
    pub fn round_trip(&self, now: u32) -> Option<u32> {
        if self.last_sender_report == 0 {
            return None;
        }
        let round_trip =
            now.wrapping_sub(self.last_sender_report).wrapping_sub(self.delay_since_last_sender_report);
        (round_trip < 1 << 31).then_some(round_trip)
    }
}

/// The blocks of a report; at most 31.
#[derive(Clone, Copy, Debug)]
pub struct ReportBlocks<'a>(&'a [[u8; ReportBlock::LEN]]);

impl<'a> ReportBlocks<'a> {
    fn parse(bytes: &'a [u8], count: u8) -> Option<Self> {
        bytes.as_chunks().0.get(..usize::from(count)).map(Self)
    }

    pub fn iter(self) -> impl ExactSizeIterator<Item = ReportBlock> + 'a {
        self.0.iter().map(|bytes| ReportBlock::parse(bytes).unwrap_or_default())
    }
}

/// What sources are called. Only the CNAME is of use to a focus.
#[derive(Clone, Copy, Debug)]
pub struct SourceDescription<'a> {
    chunks: &'a [u8],
    count: u8,
}

/// One item of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdesItem<'a> {
    pub ssrc: u32,
    /// 1 is CNAME.
    pub kind: u8,
    /// UTF-8 if the peer keeps the rules.
    pub text: &'a [u8],
}

impl<'a> SourceDescription<'a> {
    pub(super) const CNAME: u8 = 1;

    pub(super) fn new(chunks: &'a [u8], count: u8) -> Self {
        Self { chunks, count }
    }

    /// The items of all chunks; ends at the first that runs past the packet.
    pub fn items(self) -> impl Iterator<Item = SdesItem<'a>> + 'a {
        let Self { chunks, count: mut chunks_left } = self;
        let mut at = 0;
        let mut ssrc = None;
        std::iter::from_fn(move || {
            loop {
                let Some(current) = ssrc else {
                    chunks_left = chunks_left.checked_sub(1)?;
                    ssrc = Some(u32_at(chunks, at)?);
                    at += 4;
                    continue;
                };
                let kind = *chunks.get(at)?;
                if kind == 0 {
                    // One to four zero bytes up to the next word end the chunk.
                    at = (at + 1).next_multiple_of(4);
                    ssrc = None;
                    continue;
                }
                let len = usize::from(*chunks.get(at + 1)?);
                let text = chunks.get(at + 2..at + 2 + len)?;
                at += 2 + len;
                return Some(SdesItem { ssrc: current, kind, text });
            }
        })
    }

    /// The first CNAME of `ssrc`.
    pub fn cname(self, ssrc: u32) -> Option<&'a [u8]> {
        self.items().find(|item| item.ssrc == ssrc && item.kind == Self::CNAME).map(|item| item.text)
    }
}

/// Sources that leave.
#[derive(Clone, Copy, Debug)]
pub struct Bye<'a> {
    ssrcs: &'a [[u8; 4]],
    rest: &'a [u8],
}

impl<'a> Bye<'a> {
    pub(super) fn parse(body: &'a [u8], count: u8) -> Option<Self> {
        let (ssrcs, rest) = body.split_at_checked(4 * usize::from(count))?;
        Some(Self { ssrcs: ssrcs.as_chunks().0, rest })
    }

    pub fn ssrcs(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.ssrcs.iter().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub fn reason(self) -> Option<&'a [u8]> {
        let len = usize::from(*self.rest.first()?);
        self.rest.get(1..1 + len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Compound, RtcpPacket};
    use super::*;

    #[test]
    fn reads_a_sender_report_with_a_block() {
        let mut datagram = vec![0x81, 200, 0, 12, 0, 0, 0, 7];
        datagram.extend(0x0102_0304_0506_0708_u64.to_be_bytes());
        datagram.extend([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
        datagram.extend([0, 0, 0, 9, 128, 0xff, 0xff, 0xfe, 0, 1, 0, 5]);
        datagram.extend([0, 0, 0, 6, 3, 4, 5, 6, 0, 1, 0, 0]);
        let Some(Ok(RtcpPacket::SenderReport(report))) = Compound::new(&datagram).next() else {
            panic!("no report")
        };
        assert_eq!(report.ssrc, 7);
        assert_eq!(report.info.ntp, 0x0102_0304_0506_0708);
        assert_eq!(compact_ntp(report.info.ntp), 0x0304_0506);
        let block = report.blocks.iter().next().unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (128, -2));
        assert_eq!(block.highest_sequence, 0x1_0005);
        assert_eq!(block.round_trip(0x0306_0506), Some(0x1_0000));
        assert_eq!(block.round_trip(0x0304_0507), None);
        datagram[0] = 0x82; // says one block more than there is
        assert!(Compound::new(&datagram).next().unwrap().is_err());
    }

    #[test]
    fn a_block_that_answers_no_report_has_no_round_trip() {
        assert_eq!(ReportBlock::default().round_trip(5), None);
    }

    #[test]
    fn cumulative_loss_saturates_on_the_wire() {
        for (lost, on_wire) in [(1 << 23, (1 << 23) - 1), (-(1 << 23) - 1, -(1 << 23)), (-1, -1)] {
            let block = ReportBlock { cumulative_lost: lost, fraction_lost: 9, ..ReportBlock::default() };
            let read = ReportBlock::parse(&block.to_bytes()).unwrap();
            assert_eq!((read.cumulative_lost, read.fraction_lost), (on_wire, 9));
        }
    }

    #[test]
    fn reads_the_items_of_several_chunks() {
        let datagram = [
            0x82, 202, 0, 6, 0, 0, 0, 1, 1, 2, b'a', b'b', 2, 1, b'x', 0, 0, 0, 0, 2, 1, 1, b'c', 0, 0, 0, 0,
            0,
        ];
        let Some(Ok(RtcpPacket::SourceDescription(description))) = Compound::new(&datagram).next() else {
            panic!("no description")
        };
        let items: Vec<_> = description.items().collect();
        assert_eq!(
            items,
            [
                SdesItem { ssrc: 1, kind: 1, text: b"ab" },
                SdesItem { ssrc: 1, kind: 2, text: b"x" },
                SdesItem { ssrc: 2, kind: 1, text: b"c" },
            ]
        );
        assert_eq!(description.cname(2), Some(&b"c"[..]));
        assert_eq!(description.cname(3), None);
    }

    #[test]
    fn reads_a_goodbye_with_its_reason() {
        let datagram = [0x81, 203, 0, 2, 0, 0, 0, 5, 3, b'o', b'u', b't'];
        let Some(Ok(RtcpPacket::Bye(bye))) = Compound::new(&datagram).next() else { panic!("no goodbye") };
        assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [5]);
        assert_eq!(bye.reason(), Some(&b"out"[..]));
    }
}
