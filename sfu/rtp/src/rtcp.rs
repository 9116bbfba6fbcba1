//! RTCP: reading compound packets, building them.
//!
//! [`Compound`] iterates; [`RtcpWriter`] builds. Formats: [RFC 3550 §6](https://www.rfc-editor.org/rfc/rfc3550#section-6)
//! (reports, SDES, BYE), [RFC 4585 §6](https://www.rfc-editor.org/rfc/rfc4585#section-6) (NACK, PLI),
//! [RFC 5104 §4.3](https://www.rfc-editor.org/rfc/rfc5104#section-4.3) (FIR),
//! [RFC 3611](https://www.rfc-editor.org/rfc/rfc3611) (XR), draft-holmer-rmcat-transport-wide-cc-extensions-01 (TWCC),
//! draft-alvestrand-rmcat-remb-03 (REMB).

mod extended;
mod feedback;
mod report;
mod transport_feedback;
mod writer;

pub use extended::{DelaySinceLastReference, Delays, ExtendedBlock, ExtendedBlocks, ExtendedReport};
pub use feedback::{Fir, FirEntry, Nack, Remb};
pub use report::{
    Bye, ReceiverReport, ReportBlock, ReportBlocks, SdesItem, SenderInfo, SenderReport, SourceDescription,
    compact_ntp,
};
pub use transport_feedback::{
    MAX_FEEDBACK_STATUSES, MAX_REPORTED_STATUSES, PacketArrivals, TICKS_PER_SECOND, TransportFeedback,
};
pub use writer::RtcpWriter;

use crate::bytes::{u16_at, u32_at};

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const TRANSPORT_LAYER_FEEDBACK: u8 = 205;
const PAYLOAD_SPECIFIC_FEEDBACK: u8 = 206;
const EXTENDED_REPORT: u8 = 207;

const FORMAT_NACK: u8 = 1;
const FORMAT_TRANSPORT_WIDE: u8 = 15;
const FORMAT_PLI: u8 = 1;
const FORMAT_FIR: u8 = 4;
const FORMAT_APPLICATION: u8 = 15;

/// The common header, in bytes.
const HEADER_LEN: usize = 4;

/// One packet of a compound.
#[derive(Clone, Copy, Debug)]
pub enum RtcpPacket<'a> {
    SenderReport(SenderReport<'a>),
    ReceiverReport(ReceiverReport<'a>),
    SourceDescription(SourceDescription<'a>),
    Bye(Bye<'a>),
    /// Packets of `media` that the sender misses.
    Nack(Nack<'a>),
    /// The sender asks for a key frame of `media`.
    Pli {
        sender: u32,
        media: u32,
    },
    Fir(Fir<'a>),
    TransportFeedback(TransportFeedback<'a>),
    Remb(Remb<'a>),
    ExtendedReport(ExtendedReport<'a>),
    /// A type or format that nothing here acts on.
    Other {
        packet_type: u8,
        format: u8,
    },
}

/// Why a packet of a compound could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedRtcp {
    /// No version 2 header, or a length past the end: nothing after it can be found either.
    Framing,
    /// The body is too short for what its header announces, or breaks its grammar.
    Body { packet_type: u8 },
}

/// The packets of a compound ([RFC 3550 §6.1](https://www.rfc-editor.org/rfc/rfc3550#section-6.1)), reduced-size ones
/// ([RFC 5506](https://www.rfc-editor.org/rfc/rfc5506)) included: any packet may come first or alone.
///
/// A packet with a bad body is an error between the others; bad framing is the last item.
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Compound<'a> {
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<RtcpPacket<'a>, MalformedRtcp>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((packet, rest)) = split_packet(self.rest) else {
            self.rest = &[];
            return Some(Err(MalformedRtcp::Framing));
        };
        self.rest = rest;
        let packet_type = packet[1];
        Some(parse_packet(packet).ok_or(MalformedRtcp::Body { packet_type }))
    }
}

/// The first packet, header included, and what follows it.
fn split_packet(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let words = u16_at(datagram, 2)?;
    if datagram[0] >> 6 != 2 {
        return None;
    }
    datagram.split_at_checked(HEADER_LEN + 4 * usize::from(words))
}

fn parse_packet(packet: &[u8]) -> Option<RtcpPacket<'_>> {
    let (format, packet_type) = (packet[0] & 0x1f, packet[1]);
    let mut body = &packet[HEADER_LEN..];
    if packet[0] & 0x20 != 0 {
        let padding = usize::from(*body.last()?);
        if padding == 0 {
            return None;
        }
        body = &body[..body.len().checked_sub(padding)?];
    }
    Some(match (packet_type, format) {
        (SENDER_REPORT, count) => RtcpPacket::SenderReport(SenderReport::parse(body, count)?),
        (RECEIVER_REPORT, count) => RtcpPacket::ReceiverReport(ReceiverReport::parse(body, count)?),
        (SOURCE_DESCRIPTION, count) => RtcpPacket::SourceDescription(SourceDescription::new(body, count)),
        (BYE, count) => RtcpPacket::Bye(Bye::parse(body, count)?),
        (TRANSPORT_LAYER_FEEDBACK, FORMAT_NACK) => RtcpPacket::Nack(Nack::parse(body)?),
        (TRANSPORT_LAYER_FEEDBACK, FORMAT_TRANSPORT_WIDE) => {
            RtcpPacket::TransportFeedback(TransportFeedback::parse(body)?)
        }
        (PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_PLI) => {
            RtcpPacket::Pli { sender: u32_at(body, 0)?, media: u32_at(body, 4)? }
        }
        (PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_FIR) => RtcpPacket::Fir(Fir::parse(body)?),
        (PAYLOAD_SPECIFIC_FEEDBACK, FORMAT_APPLICATION) if Remb::is_remb(body) => {
            RtcpPacket::Remb(Remb::parse(body)?)
        }
        (EXTENDED_REPORT, _) => RtcpPacket::ExtendedReport(ExtendedReport::parse(body)?),
        _ => RtcpPacket::Other { packet_type, format },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Visits everything a packet offers.
    fn exhaust(packet: RtcpPacket<'_>) -> usize {
        match packet {
            RtcpPacket::SenderReport(report) => report.blocks.iter().count(),
            RtcpPacket::ReceiverReport(report) => report.blocks.iter().count(),
            RtcpPacket::SourceDescription(description) => description.items().count(),
            RtcpPacket::Bye(bye) => bye.ssrcs().count() + bye.reason().map_or(0, <[u8]>::len),
            RtcpPacket::Nack(nack) => nack.lost().count(),
            RtcpPacket::Fir(fir) => fir.entries().count(),
            RtcpPacket::TransportFeedback(feedback) => feedback.packets().count(),
            RtcpPacket::Remb(remb) => remb.ssrcs().count(),
            RtcpPacket::ExtendedReport(report) => report
                .blocks()
                .map(|block| match block {
                    ExtendedBlock::DelaySinceLastReference(delays) => delays.iter().count(),
                    ExtendedBlock::ReceiverReferenceTime { .. } | ExtendedBlock::Other { .. } => 1,
                })
                .sum(),
            RtcpPacket::Pli { .. } | RtcpPacket::Other { .. } => 1,
        }
    }

    #[test]
    fn a_lying_length_ends_the_compound() {
        let datagram = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x81, 206, 0, 200, 0, 0, 0, 1];
        let read: Vec<_> = Compound::new(&datagram).collect();
        assert!(matches!(
            read[..],
            [Ok(RtcpPacket::Pli { sender: 1, media: 2 }), Err(MalformedRtcp::Framing)]
        ));
        assert!(matches!(Compound::new(&[0x81, 206]).next(), Some(Err(MalformedRtcp::Framing))));
        assert!(matches!(Compound::new(&[0x41, 206, 0, 0]).next(), Some(Err(MalformedRtcp::Framing))));
        assert!(Compound::new(&[]).next().is_none());
    }

    #[test]
    fn a_bad_body_leaves_the_others_readable() {
        let datagram = [0x81, 206, 0, 1, 0, 0, 0, 1, 0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        let read: Vec<_> = Compound::new(&datagram).collect();
        assert!(matches!(
            read[..],
            [Err(MalformedRtcp::Body { packet_type: 206 }), Ok(RtcpPacket::Pli { sender: 1, media: 2 })]
        ));
    }

    #[test]
    fn strips_padding_and_refuses_impossible_padding() {
        let mut datagram = [0xa1, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 5, 0, 0, 0, 0, 0, 4];
        let Some(Ok(RtcpPacket::Nack(nack))) = Compound::new(&datagram).next() else { panic!("no NACK") };
        assert_eq!(nack.lost().collect::<Vec<_>>(), [5]);
        for bad in [0, 17, 255] {
            datagram[19] = bad;
            assert!(matches!(
                Compound::new(&datagram).next(),
                Some(Err(MalformedRtcp::Body { packet_type: 205 }))
            ));
        }
    }

    proptest! {
        #[test]
        fn reading_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for packet in Compound::new(&bytes).flatten() {
                exhaust(packet);
            }
        }

        #[test]
        fn every_type_reads_any_body(
            packet_type in 200u8..=207, format in 0u8..32, has_padding: bool,
            mut body in proptest::collection::vec(any::<u8>(), 0..160), is_remb: bool,
        ) {
            body.truncate(body.len() & !3);
            if is_remb && body.len() >= 12 {
                body[8..12].copy_from_slice(b"REMB");
            }
            let mut datagram = vec![0x80 | u8::from(has_padding) << 5 | format, packet_type, 0, (body.len() / 4) as u8];
            datagram.extend(&body);
            let read: Vec<_> = Compound::new(&datagram).collect();
            prop_assert_eq!(read.len(), 1);
            if let Ok(packet) = read[0] {
                prop_assert!(exhaust(packet) <= MAX_REPORTED_STATUSES.into());
            }
        }
    }
}
