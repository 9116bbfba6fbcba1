//! Building compound packets.

use super::extended::{DELAY_SINCE_LAST_REFERENCE, RECEIVER_REFERENCE_TIME};
use super::transport_feedback::Statuses;
use super::{
    BYE, DelaySinceLastReference, EXTENDED_REPORT, FORMAT_APPLICATION, FORMAT_FIR, FORMAT_NACK, FORMAT_PLI,
    FORMAT_TRANSPORT_WIDE, FirEntry, HEADER_LEN, PAYLOAD_SPECIFIC_FEEDBACK, RECEIVER_REPORT, Remb,
    ReportBlock, SENDER_REPORT, SOURCE_DESCRIPTION, SenderInfo, SourceDescription, TRANSPORT_LAYER_FEEDBACK,
};

/// What five bits can count: report blocks, or sources of a BYE.
const MAX_COUNT: usize = 31;

/// Appends RTCP packets to a buffer. One that does not fit, or breaks its format, leaves the buffer as it was and is
/// answered `false` (or 0, where a part may be written).
///
/// A compound begins with a report unless reduced size was negotiated
/// ([RFC 5506](https://www.rfc-editor.org/rfc/rfc5506)); the order is the caller's.
///
/// ```
/// # use weir_rtp::rtcp::RtcpWriter;
/// let mut buffer = [0; 100];
/// let mut writer = RtcpWriter::new(&mut buffer);
/// assert!(writer.receiver_report(1, &[]));
/// assert!(writer.pli(1, 2));
/// assert_eq!(writer.finish(), 8 + 12);
/// ```
#[derive(Debug)]
pub struct RtcpWriter<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> RtcpWriter<'a> {
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The length of the compound in bytes.
    pub fn finish(self) -> usize {
        self.len
    }

    /// At most 31 blocks.
    #[must_use]
    pub fn sender_report(&mut self, ssrc: u32, info: &SenderInfo, blocks: &[ReportBlock]) -> bool {
        let Some(mut body) = self.report(SENDER_REPORT, 24, blocks) else { return false };
        body.put(&ssrc.to_be_bytes());
        body.put(&info.ntp.to_be_bytes());
        body.put(&info.rtp_timestamp.to_be_bytes());
        body.put(&info.packet_count.to_be_bytes());
        body.put(&info.octet_count.to_be_bytes());
        body.put_blocks(blocks);
        true
    }

    /// At most 31 blocks.
    #[must_use]
    pub fn receiver_report(&mut self, ssrc: u32, blocks: &[ReportBlock]) -> bool {
        let Some(mut body) = self.report(RECEIVER_REPORT, 4, blocks) else { return false };
        body.put(&ssrc.to_be_bytes());
        body.put_blocks(blocks);
        true
    }

    fn report(&mut self, packet_type: u8, fixed_len: usize, blocks: &[ReportBlock]) -> Option<Body<'_>> {
        if blocks.len() > MAX_COUNT {
            return None;
        }
        self.packet(packet_type, blocks.len() as u8, fixed_len + ReportBlock::LEN * blocks.len())
    }

    /// One chunk with a CNAME of at most 255 bytes.
    #[must_use]
    pub fn source_description(&mut self, ssrc: u32, cname: &str) -> bool {
        let Ok(cname_len) = u8::try_from(cname.len()) else { return false };
        // At least one zero byte ends the items.
        let len = (4 + 2 + cname.len() + 1).next_multiple_of(4);
        let Some(mut body) = self.packet(SOURCE_DESCRIPTION, 1, len) else { return false };
        body.put(&ssrc.to_be_bytes());
        body.put(&[SourceDescription::CNAME, cname_len]);
        body.put(cname.as_bytes());
        true
    }

    /// At most 31 sources.
    #[must_use]
    pub fn bye(&mut self, ssrcs: &[u32]) -> bool {
        if ssrcs.len() > MAX_COUNT {
            return false;
        }
        let Some(mut body) = self.packet(BYE, ssrcs.len() as u8, 4 * ssrcs.len()) else { return false };
        body.put_words(ssrcs);
        true
    }

    #[must_use]
    pub fn pli(&mut self, sender: u32, media: u32) -> bool {
        let Some(mut body) = self.packet(PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_PLI, 8) else { return false };
        body.put_words(&[sender, media]);
        true
    }

    #[must_use]
    pub fn fir(&mut self, sender: u32, entries: &[FirEntry]) -> bool {
        let len = 8 + 8 * entries.len();
        let Some(mut body) = self.packet(PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_FIR, len) else { return false };
        body.put_words(&[sender, 0]);
        for entry in entries {
            body.put(&entry.ssrc.to_be_bytes());
            body.put(&[entry.command_sequence, 0, 0, 0]);
        }
        true
    }

    /// Asks for `lost`, in ascending order (across the wrap): what lies within 16 of the first of an entry shares it.
    /// Returns how many numbers were written; the rest did not fit.
    #[must_use]
    pub fn nack(&mut self, sender: u32, media: u32, lost: &[u16]) -> usize {
        let room = self.buffer.len() - self.len;
        let Some(room_for_entries) = room.checked_sub(HEADER_LEN + 8) else { return 0 };
        // The length field counts words in 16 bits: far beyond any datagram.
        let max_entries = (room_for_entries / 4).min(usize::from(u16::MAX) - 2);
        let (entry_count, written) = {
            let mut entries = NackEntries { lost };
            let count = entries.by_ref().take(max_entries).count();
            (count, lost.len() - entries.lost.len())
        };
        if entry_count == 0 {
            return 0;
        }
        let len = 8 + 4 * entry_count;
        let Some(mut body) = self.packet(TRANSPORT_LAYER_FEEDBACK, FORMAT_NACK, len) else { return 0 };
        body.put_words(&[sender, media]);
        for (first, mask) in (NackEntries { lost }).take(entry_count) {
            body.put(&first.to_be_bytes());
            body.put(&mask.to_be_bytes());
        }
        written
    }

    /// Reports when packets arrived, in ticks of 250 µs ([`super::TICKS_PER_SECOND`]) since any epoch that stays.
    ///
    /// `packets` are transport-wide sequence numbers in ascending order (across the wrap); numbers left out are
    /// reported lost. Returns how many items are covered: the caller repeats with the rest while there is one. It
    /// stops short when the buffer is full, after [`super::MAX_FEEDBACK_STATUSES`], at a number that is not ahead, and
    /// where two arrivals lie more than 8 s apart. Items without any arrival among them are covered by writing
    /// nothing: a feedback has no meaning without a time. 0 when not even one item fits.
    #[must_use]
    pub fn transport_feedback(
        &mut self,
        sender: u32,
        media: u32,
        feedback_count: u8,
        packets: impl IntoIterator<Item = (u16, Option<u64>)>,
    ) -> usize {
        let room = self.buffer.len() - self.len;
        let Some(room_for_body) = room.checked_sub(HEADER_LEN) else { return 0 };
        let statuses = Statuses::collect(packets.into_iter(), room_for_body);
        if !statuses.has_arrivals() {
            return statuses.consumed;
        }
        let body_len = statuses.body_len();
        let Some(body) = self.packet(TRANSPORT_LAYER_FEEDBACK, FORMAT_TRANSPORT_WIDE, body_len) else {
            return 0;
        };
        statuses.write(sender, media, feedback_count, body.rest);
        statuses.consumed
    }

    /// `bitrate` in bit/s, of which the upper 18 bits are kept; at most 255 streams.
    #[must_use]
    pub fn remb(&mut self, sender: u32, bitrate: u64, ssrcs: &[u32]) -> bool {
        let Ok(count) = u8::try_from(ssrcs.len()) else { return false };
        let len = 16 + 4 * ssrcs.len();
        let Some(mut body) = self.packet(PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_APPLICATION, len) else {
            return false;
        };
        body.put_words(&[sender, 0]);
        body.put(Remb::IDENTIFIER);
        body.put(&[count]);
        body.put(&Remb::encode_bitrate(bitrate));
        body.put_words(ssrcs);
        true
    }

    /// An extended report that asks the peer to answer with the delay since this time (32.32 seconds).
    #[must_use]
    pub fn receiver_reference_time(&mut self, sender: u32, ntp: u64) -> bool {
        let Some(mut body) = self.packet(EXTENDED_REPORT, 0, 16) else { return false };
        body.put(&sender.to_be_bytes());
        body.put(&[RECEIVER_REFERENCE_TIME, 0, 0, 2]);
        body.put(&ntp.to_be_bytes());
        true
    }

    /// An extended report that answers reference times.
    #[must_use]
    pub fn delay_since_last_reference(&mut self, sender: u32, delays: &[DelaySinceLastReference]) -> bool {
        let words = 3 * delays.len();
        let Ok(block_words) = u16::try_from(words) else { return false };
        let Some(mut body) = self.packet(EXTENDED_REPORT, 0, 8 + 4 * words) else { return false };
        body.put(&sender.to_be_bytes());
        body.put(&[DELAY_SINCE_LAST_REFERENCE, 0]);
        body.put(&block_words.to_be_bytes());
        for delay in delays {
            body.put_words(&[delay.ssrc, delay.last_reference, delay.delay]);
        }
        true
    }

    /// Writes a common header and reserves a zeroed body of `body_len` bytes, a multiple of four.
    fn packet(&mut self, packet_type: u8, format: u8, body_len: usize) -> Option<Body<'_>> {
        let words = u16::try_from(body_len / 4).ok()?;
        let packet = self.buffer.get_mut(self.len..)?.get_mut(..HEADER_LEN + body_len)?;
        self.len += packet.len();
        let (header, rest) = packet.split_at_mut(HEADER_LEN);
        header[..2].copy_from_slice(&[0x80 | format, packet_type]);
        header[2..].copy_from_slice(&words.to_be_bytes());
        rest.fill(0);
        Some(Body { rest })
    }
}

/// What is still to be written of a packet whose length is settled.
struct Body<'a> {
    rest: &'a mut [u8],
}

impl Body<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let (target, rest) = std::mem::take(&mut self.rest).split_at_mut(bytes.len());
        target.copy_from_slice(bytes);
        self.rest = rest;
    }

    fn put_words(&mut self, words: &[u32]) {
        for word in words {
            self.put(&word.to_be_bytes());
        }
    }

    fn put_blocks(&mut self, blocks: &[ReportBlock]) {
        for block in blocks {
            self.put(&block.to_bytes());
        }
    }
}

/// Packs ascending numbers into pairs of first number and mask of the 16 after it.
struct NackEntries<'a> {
    lost: &'a [u16],
}

impl Iterator for NackEntries<'_> {
    type Item = (u16, u16);

    fn next(&mut self) -> Option<(u16, u16)> {
        let (first, rest) = self.lost.split_first()?;
        self.lost = rest;
        let mut mask = 0;
        while let Some((next, rest)) = self.lost.split_first() {
            match next.wrapping_sub(*first) {
                0 => {}
                distance @ 1..=16 => mask |= 1 << (distance - 1),
                _ => break,
            }
            self.lost = rest;
        }
        Some((*first, mask))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Compound, ExtendedBlock, RtcpPacket};
    use super::*;

    fn block() -> impl Strategy<Value = ReportBlock> {
        (any::<[u32; 5]>(), any::<u8>(), -(1 << 23)..1 << 23).prop_map(
            |(words, fraction_lost, cumulative_lost)| ReportBlock {
                ssrc: words[0],
                fraction_lost,
                cumulative_lost,
                highest_sequence: words[1],
                jitter: words[2],
                last_sender_report: words[3],
                delay_since_last_sender_report: words[4],
            },
        )
    }

    #[test]
    fn a_packet_that_does_not_fit_leaves_the_others() {
        let mut buffer = [0; 27];
        let mut writer = RtcpWriter::new(&mut buffer);
        assert!(writer.pli(1, 2));
        assert!(writer.pli(3, 4));
        assert!(!writer.pli(5, 6));
        assert!(!writer.receiver_report(1, &[]));
        assert_eq!(writer.nack(1, 2, &[1]), 0);
        assert_eq!(writer.transport_feedback(1, 2, 3, [(1, Some(1))]), 0);
        assert_eq!(writer.len(), 24);
        assert_eq!(Compound::new(&buffer[..24]).count(), 2);
    }

    #[test]
    fn refuses_what_its_format_cannot_count() {
        let mut buffer = [0; 4_000];
        let mut writer = RtcpWriter::new(&mut buffer);
        assert!(!writer.receiver_report(1, &[ReportBlock::default(); 32]));
        assert!(!writer.bye(&[0; 32]));
        assert!(!writer.source_description(1, &"x".repeat(256)));
        assert!(!writer.remb(1, 2, &[0; 256]));
        assert!(writer.is_empty());
        assert!(writer.receiver_report(1, &[ReportBlock::default(); 31]));
    }

    #[test]
    fn a_full_buffer_takes_the_first_of_a_nack() {
        let mut buffer = [0; 16];
        let mut writer = RtcpWriter::new(&mut buffer);
        assert_eq!(writer.nack(1, 2, &[65_530, 65_531, 10, 11, 12]), 3); // 10 is 16 after 65,530
        let Some(Ok(RtcpPacket::Nack(nack))) = Compound::new(&buffer).next() else { panic!("no NACK") };
        assert_eq!(nack.lost().collect::<Vec<_>>(), [65_530, 65_531, 10]);
    }

    proptest! {
        #[test]
        fn reports_read_back(
            ssrc: u32, ntp: u64, words: [u32; 3], blocks in proptest::collection::vec(block(), 0..=31),
        ) {
            let info = SenderInfo { ntp, rtp_timestamp: words[0], packet_count: words[1], octet_count: words[2] };
            let mut buffer = [0xee; 2_000];
            let mut writer = RtcpWriter::new(&mut buffer);
            prop_assert!(writer.sender_report(ssrc, &info, &blocks));
            prop_assert!(writer.receiver_report(ssrc, &blocks));
            let len = writer.finish();
            let read: Vec<_> = Compound::new(&buffer[..len]).map(Result::unwrap).collect();
            let [RtcpPacket::SenderReport(sender), RtcpPacket::ReceiverReport(receiver)] = read[..] else {
                panic!("other packets")
            };
            prop_assert_eq!((sender.ssrc, sender.info, receiver.ssrc), (ssrc, info, ssrc));
            prop_assert_eq!(sender.blocks.iter().collect::<Vec<_>>(), &blocks[..]);
            prop_assert_eq!(receiver.blocks.iter().collect::<Vec<_>>(), &blocks[..]);
        }

        #[test]
        fn names_and_goodbyes_read_back(
            ssrcs in proptest::collection::vec(any::<u32>(), 0..=31), cname in "[a-z]{0,60}",
        ) {
            let mut buffer = [0xee; 400];
            let mut writer = RtcpWriter::new(&mut buffer);
            prop_assert!(writer.source_description(5, &cname));
            prop_assert!(writer.bye(&ssrcs));
            let len = writer.finish();
            let read: Vec<_> = Compound::new(&buffer[..len]).map(Result::unwrap).collect();
            let [RtcpPacket::SourceDescription(description), RtcpPacket::Bye(bye)] = read[..] else {
                panic!("other packets")
            };
            prop_assert_eq!(description.cname(5), Some(cname.as_bytes()));
            prop_assert_eq!(description.items().count(), 1);
            prop_assert_eq!(bye.ssrcs().collect::<Vec<_>>(), ssrcs);
            prop_assert_eq!(bye.reason(), None);
        }

        #[test]
        fn key_frame_requests_read_back(sender: u32, media: u32, command_sequence: u8) {
            let entries = [
                FirEntry { ssrc: media, command_sequence },
                FirEntry { ssrc: sender, command_sequence: command_sequence.wrapping_add(1) },
            ];
            let mut buffer = [0xee; 100];
            let mut writer = RtcpWriter::new(&mut buffer);
            prop_assert!(writer.pli(sender, media));
            prop_assert!(writer.fir(sender, &entries));
            let len = writer.finish();
            let read: Vec<_> = Compound::new(&buffer[..len]).map(Result::unwrap).collect();
            let [RtcpPacket::Pli { sender: pli_sender, media: pli_media }, RtcpPacket::Fir(fir)] = read[..] else {
                panic!("other packets")
            };
            prop_assert_eq!((pli_sender, pli_media, fir.sender), (sender, media, sender));
            prop_assert_eq!(fir.entries().collect::<Vec<_>>(), entries);
        }

        #[test]
        fn nacks_read_back(first: u16, steps in proptest::collection::vec(1u16..30, 0..100), room in 0usize..300) {
            let mut number = first;
            let lost: Vec<_> = steps.iter().map(|step| { number = number.wrapping_add(*step); number }).collect();
            let mut buffer = vec![0xee; room];
            let mut writer = RtcpWriter::new(&mut buffer);
            let written = writer.nack(1, 2, &lost);
            let len = writer.finish();
            let read: Vec<_> = Compound::new(&buffer[..len])
                .flat_map(|packet| match packet {
                    Ok(RtcpPacket::Nack(nack)) => nack.lost().collect::<Vec<_>>(),
                    other => panic!("{other:?}"),
                })
                .collect();
            prop_assert_eq!(&read, &lost[..written]);
            prop_assert!(written == lost.len() || room - len < 16);
        }

        #[test]
        fn rembs_read_back_rounded_down(bitrate: u64, shift in 0u32..64, ssrcs in proptest::collection::vec(any::<u32>(), 0..9)) {
            let bitrate = bitrate >> shift;
            let mut buffer = [0xee; 100];
            let mut writer = RtcpWriter::new(&mut buffer);
            prop_assert!(writer.remb(7, bitrate, &ssrcs));
            let len = writer.finish();
            let Some(Ok(RtcpPacket::Remb(remb))) = Compound::new(&buffer[..len]).next() else { panic!("no REMB") };
            prop_assert_eq!(remb.sender, 7);
            prop_assert_eq!(remb.ssrcs().collect::<Vec<_>>(), ssrcs);
            prop_assert!(remb.bitrate <= bitrate && bitrate - remb.bitrate <= bitrate >> 17);
        }

        #[test]
        fn extended_reports_read_back(ntp: u64, words: [u32; 3]) {
            let delay = DelaySinceLastReference { ssrc: words[0], last_reference: words[1], delay: words[2] };
            let mut buffer = [0xee; 100];
            let mut writer = RtcpWriter::new(&mut buffer);
            prop_assert!(writer.receiver_reference_time(7, ntp));
            prop_assert!(writer.delay_since_last_reference(7, &[delay, delay]));
            let len = writer.finish();
            let blocks: Vec<_> = Compound::new(&buffer[..len])
                .flat_map(|packet| match packet {
                    Ok(RtcpPacket::ExtendedReport(report)) => report.blocks(),
                    other => panic!("{other:?}"),
                })
                .collect();
            let [ExtendedBlock::ReceiverReferenceTime { ntp: read }, ExtendedBlock::DelaySinceLastReference(delays)] =
                blocks[..] else { panic!("other blocks") };
            prop_assert_eq!(read, ntp);
            prop_assert_eq!(delays.iter().collect::<Vec<_>>(), [delay, delay]);
        }
    }
}
