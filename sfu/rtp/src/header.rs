//! The RTP header ([RFC 3550 §5.1](https://www.rfc-editor.org/rfc/rfc3550#section-5.1)) and what kind of datagram
//! arrived at the port all protocols share.

use std::ops::Range;

use crate::bytes::{u16_at, u32_at};

/// The header without CSRCs and extensions, in bytes.
pub const FIXED_HEADER_LEN: usize = 12;

/// The longest packet looked at: what a UDP datagram can carry. Offsets into a packet therefore fit `u16`.
pub const MAX_PACKET_LEN: usize = 65_535;

/// A part of a packet, kept small since it travels with every packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteRange {
    pub start: u16,
    pub end: u16,
}

impl ByteRange {
    /// The bytes meant; empty when `packet` is not the packet this was found in.
    pub fn of(self, packet: &[u8]) -> &[u8] {
        packet.get(self.as_range()).unwrap_or_default()
    }

    pub fn as_range(self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }
}

/// The header extension block ([RFC 3550 §5.3.1](https://www.rfc-editor.org/rfc/rfc3550#section-5.3.1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionBlock {
    /// 0xBEDE for one-byte elements, 0x100 to 0x10F for two-byte elements
    /// ([RFC 8285](https://www.rfc-editor.org/rfc/rfc8285#section-4)).
    pub profile: u16,
    /// The elements, after the four bytes of profile and length.
    pub elements: ByteRange,
}

/// An RTP header as read. SRTP leaves all of it clear, so it is read before the packet is opened.
///
/// ```text
///  0                   1                   2                   3
/// |V=2|P|X|  CC   |M|     PT      |       sequence number         |
/// |                           timestamp                           |
/// |                             SSRC                              |
/// |                     CSRC, CC times (0-15)                     |
/// |      profile (if X)           | length in 32-bit words        |
/// |                       elements (if X)                         |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    pub marker: bool,
    /// The P bit. The padding itself is readable only once the packet is open: [`Self::payload_range`].
    pub has_padding: bool,
    pub payload_type: u8,
    pub sequence_number: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub csrc_count: u8,
    /// Everything before the payload, CSRCs and the extension block included, in bytes.
    pub header_len: u16,
    pub extension: Option<ExtensionBlock>,
}

impl RtpHeader {
    /// `None` when it is not version 2, when CSRCs or extension run past the packet, or when the packet is longer
    /// than [`MAX_PACKET_LEN`]. Padding is not looked at: under SRTP it is still encrypted.
    #[inline]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        if packet.len() > MAX_PACKET_LEN {
            return None;
        }
        let fixed: &[u8; FIXED_HEADER_LEN] = packet.first_chunk()?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let csrc_count = fixed[0] & 0x0f;
        let mut header_len = FIXED_HEADER_LEN + 4 * usize::from(csrc_count);
        let mut extension = None;
        if fixed[0] & 0x10 != 0 {
            let profile = u16_at(packet, header_len)?;
            let elements_len = 4 * usize::from(u16_at(packet, header_len + 2)?);
            let start = header_len + 4;
            header_len = start + elements_len;
            if header_len > packet.len() {
                return None;
            }
            let elements = ByteRange { start: start as u16, end: header_len as u16 };
            extension = Some(ExtensionBlock { profile, elements });
        }
        if header_len > packet.len() {
            return None;
        }
        Some(Self {
            marker: fixed[1] & 0x80 != 0,
            has_padding: fixed[0] & 0x20 != 0,
            payload_type: fixed[1] & 0x7f,
            sequence_number: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            csrc_count,
            header_len: header_len as u16,
            extension,
        })
    }

    /// Where the payload of the opened `packet` is, without padding; empty for a packet of padding alone, as
    /// bandwidth probes are. `None` when the padding length is zero or larger than what follows the header.
    #[inline]
    pub fn payload_range(&self, packet: &[u8]) -> Option<Range<usize>> {
        let start = usize::from(self.header_len);
        let mut end = packet.len();
        if start > end {
            return None;
        }
        if self.has_padding {
            let padding = usize::from(*packet.last()?);
            if padding == 0 || padding > end - start {
                return None;
            }
            end -= padding;
        }
        Some(start..end)
    }

    /// The contributing sources, as [`Self::parse`] found them.
    pub fn csrcs<'a>(&self, packet: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
        (0..usize::from(self.csrc_count)).map_while(move |n| u32_at(packet, FIXED_HEADER_LEN + 4 * n))
    }
}

/// The fixed fields of a header to be written: no CSRCs, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedHeader {
    pub marker: bool,
    /// Seven bits; the eighth is cut off.
    pub payload_type: u8,
    pub sequence_number: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Sets the X bit: the caller appends a block made by [`crate::extension::ExtensionWriter`].
    pub has_extension: bool,
    /// Sets the P bit: the caller ends the packet with padding and its length.
    pub has_padding: bool,
}

impl FixedHeader {
    #[inline]
    pub fn to_bytes(self) -> [u8; FIXED_HEADER_LEN] {
        let [s0, s1] = self.sequence_number.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc.to_be_bytes();
        let flags = 0x80 | u8::from(self.has_padding) << 5 | u8::from(self.has_extension) << 4;
        let marker_and_type = u8::from(self.marker) << 7 | self.payload_type & 0x7f;
        [flags, marker_and_type, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]
    }
}

/// The first bytes of a packet, for changing them in place.
///
/// ```
/// # use weir_rtp::header::{FIXED_HEADER_LEN, FixedHeaderMut, RtpHeader};
/// let mut packet = [0x80; 20];
/// let mut fields = FixedHeaderMut::new(&mut packet).expect("20 bytes hold a header");
/// fields.set_sequence_number(7);
/// fields.set_ssrc(0x1234);
/// assert_eq!(RtpHeader::parse(&packet).map(|header| header.sequence_number), Some(7));
/// ```
#[derive(Debug)]
pub struct FixedHeaderMut<'a>(&'a mut [u8; FIXED_HEADER_LEN]);

impl<'a> FixedHeaderMut<'a> {
    /// `None` when the packet is shorter than a header.
    #[inline]
    pub fn new(packet: &'a mut [u8]) -> Option<Self> {
        packet.first_chunk_mut().map(Self)
    }

    #[inline]
    pub fn set_marker_and_payload_type(&mut self, marker: bool, payload_type: u8) {
        self.0[1] = u8::from(marker) << 7 | payload_type & 0x7f;
    }

    #[inline]
    pub fn set_sequence_number(&mut self, sequence_number: u16) {
        self.0[2..4].copy_from_slice(&sequence_number.to_be_bytes());
    }

    #[inline]
    pub fn set_timestamp(&mut self, timestamp: u32) {
        self.0[4..8].copy_from_slice(&timestamp.to_be_bytes());
    }

    #[inline]
    pub fn set_ssrc(&mut self, ssrc: u32) {
        self.0[8..12].copy_from_slice(&ssrc.to_be_bytes());
    }

    #[inline]
    pub fn set_padding_bit(&mut self, has_padding: bool) {
        self.0[0] = self.0[0] & !0x20 | u8::from(has_padding) << 5;
    }
}

/// Which protocol a datagram belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    Stun,
    Dtls,
    /// A TURN channel message.
    Turn,
    Rtp,
    Rtcp,
    Unknown,
}

/// By the first byte ([RFC 7983 §7](https://www.rfc-editor.org/rfc/rfc7983#section-7)) and, for RTP and RTCP on one
/// port, the second ([RFC 5761 §4](https://www.rfc-editor.org/rfc/rfc5761#section-4)).
#[inline]
pub fn classify(datagram: &[u8]) -> DatagramKind {
    match datagram {
        [0..=3, ..] => DatagramKind::Stun,
        [20..=63, ..] => DatagramKind::Dtls,
        [64..=79, ..] => DatagramKind::Turn,
        [128..=191, 192..=223, ..] => DatagramKind::Rtcp,
        [128..=191, _, ..] => DatagramKind::Rtp,
        _ => DatagramKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: [u8; 14] = [0x80, 0xe0, 0x12, 0x34, 0, 0, 0, 9, 0xde, 0xad, 0xbe, 0xef, 1, 2];

    #[test]
    fn reads_a_plain_header() {
        let header = RtpHeader::parse(&PLAIN).unwrap();
        assert!(header.marker);
        assert_eq!(header.payload_type, 96);
        assert_eq!(header.sequence_number, 0x1234);
        assert_eq!(header.timestamp, 9);
        assert_eq!(header.ssrc, 0xdead_beef);
        assert_eq!(header.header_len, 12);
        assert_eq!(header.extension, None);
        assert_eq!(header.payload_range(&PLAIN), Some(12..14));
    }

    #[test]
    fn counts_csrcs_and_extension_into_the_header() {
        let mut packet = vec![0x92, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        packet.extend([0, 0, 0, 10, 0, 0, 0, 11]);
        packet.extend([0xbe, 0xde, 0, 1, 0x10, 7, 0, 0]);
        packet.push(0xff);
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!(header.header_len, 28);
        assert_eq!(header.csrcs(&packet).collect::<Vec<_>>(), [10, 11]);
        let block = header.extension.unwrap();
        assert_eq!(block.profile, 0xbede);
        assert_eq!(block.elements.of(&packet), [0x10, 7, 0, 0]);
    }

    #[test]
    fn refuses_what_runs_past_the_packet() {
        for len in 0..12 {
            assert_eq!(RtpHeader::parse(&PLAIN[..len]), None, "{len} bytes");
        }
        let mut csrcs = PLAIN;
        csrcs[0] = 0x8f;
        assert_eq!(RtpHeader::parse(&csrcs), None);
        let mut cut_extension = PLAIN;
        cut_extension[0] = 0x90;
        assert_eq!(RtpHeader::parse(&cut_extension), None);
        let mut long_extension = PLAIN.to_vec();
        long_extension[0] = 0x90;
        long_extension.extend([0, 2, 0, 0, 0, 0]); // says 2 words, holds 1
        assert_eq!(RtpHeader::parse(&long_extension), None);
        let mut version = PLAIN;
        version[0] = 0x40;
        assert_eq!(RtpHeader::parse(&version), None);
    }

    #[test]
    fn strips_padding_and_refuses_impossible_padding() {
        let mut packet = PLAIN.to_vec();
        packet[0] |= 0x20;
        packet.extend([0, 0, 3]);
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!(header.payload_range(&packet), Some(12..14));
        *packet.last_mut().unwrap() = 5;
        assert_eq!(header.payload_range(&packet), Some(12..12));
        *packet.last_mut().unwrap() = 6;
        assert_eq!(header.payload_range(&packet), None);
        *packet.last_mut().unwrap() = 0;
        assert_eq!(header.payload_range(&packet), None);
        let empty = RtpHeader { has_padding: true, ..RtpHeader::parse(&PLAIN[..12]).unwrap() };
        assert_eq!(empty.payload_range(&PLAIN[..12]), None);
    }

    #[test]
    fn tells_the_protocols_apart() {
        assert_eq!(classify(&[]), DatagramKind::Unknown);
        assert_eq!(classify(&[0, 1]), DatagramKind::Stun);
        assert_eq!(classify(&[22, 254]), DatagramKind::Dtls);
        assert_eq!(classify(&[64, 0]), DatagramKind::Turn);
        assert_eq!(classify(&[0x80, 111]), DatagramKind::Rtp);
        assert_eq!(classify(&[0x80, 0x80 | 96]), DatagramKind::Rtp);
        assert_eq!(classify(&[0x81, 191]), DatagramKind::Rtp);
        assert_eq!(classify(&[0x81, 192]), DatagramKind::Rtcp);
        assert_eq!(classify(&[0x81, 223]), DatagramKind::Rtcp);
        assert_eq!(classify(&[0x81, 224]), DatagramKind::Rtp);
        assert_eq!(classify(&[0x80]), DatagramKind::Unknown);
        assert_eq!(classify(&[192, 0]), DatagramKind::Unknown);
    }

    proptest! {
        #[test]
        fn parsing_is_total(packet in proptest::collection::vec(any::<u8>(), 0..200)) {
            classify(&packet);
            if let Some(header) = RtpHeader::parse(&packet) {
                prop_assert!(usize::from(header.header_len) <= packet.len());
                prop_assert_eq!(header.csrcs(&packet).count(), usize::from(header.csrc_count));
                if let Some(payload) = header.payload_range(&packet) {
                    prop_assert!(packet.get(payload).is_some());
                }
            }
        }

        #[test]
        fn writes_what_it_reads(
            marker: bool, payload_type in 0u8..128, sequence_number: u16, timestamp: u32, ssrc: u32,
        ) {
            let fields = FixedHeader {
                marker, payload_type, sequence_number, timestamp, ssrc, has_extension: false, has_padding: false,
            };
            let bytes = fields.to_bytes();
            let mut rewritten = [0x80; FIXED_HEADER_LEN];
            let mut writer = FixedHeaderMut::new(&mut rewritten).unwrap();
            writer.set_marker_and_payload_type(marker, payload_type);
            writer.set_sequence_number(sequence_number);
            writer.set_timestamp(timestamp);
            writer.set_ssrc(ssrc);
            prop_assert_eq!(rewritten, bytes);
            let header = RtpHeader::parse(&bytes).unwrap();
            prop_assert_eq!(
                (header.marker, header.payload_type, header.sequence_number, header.timestamp, header.ssrc),
                (marker, payload_type, sequence_number, timestamp, ssrc)
            );
        }
    }
}
