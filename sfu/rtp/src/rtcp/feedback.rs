//! Feedback on single streams: NACK, FIR, REMB.

use crate::bytes::{u24_at, u32_at};

/// Packets missed ([RFC 4585 §6.2.1](https://www.rfc-editor.org/rfc/rfc4585#section-6.2.1)).
#[derive(Clone, Copy, Debug)]
pub struct Nack<'a> {
    pub sender: u32,
    pub media: u32,
    entries: &'a [[u8; 4]],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        Some(Self {
            sender: u32_at(body, 0)?,
            media: u32_at(body, 4)?,
            entries: body.get(8..)?.as_chunks().0,
        })
    }

    /// The sequence numbers, in the order sent; 17 at most for each four bytes. A peer may repeat them.
    pub fn lost(self) -> impl Iterator<Item = u16> + 'a {
        self.entries.iter().flat_map(|&[p0, p1, b0, b1]| {
            let (first, mask) = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([b0, b1]));
            let following = (0..16).filter(move |bit| mask >> bit & 1 != 0);
            std::iter::once(first).chain(following.map(move |bit| first.wrapping_add(bit + 1)))
        })
    }
}

/// Key frames asked for, each counted ([RFC 5104 §4.3.1](https://www.rfc-editor.org/rfc/rfc5104#section-4.3.1)).
#[derive(Clone, Copy, Debug)]
pub struct Fir<'a> {
    pub sender: u32,
    entries: &'a [[u8; 8]],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirEntry {
    /// Of the stream that shall send a key frame.
    pub ssrc: u32,
    /// A repetition has the same number and asks for nothing new.
    pub command_sequence: u8,
}

impl<'a> Fir<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        Some(Self { sender: u32_at(body, 0)?, entries: body.get(8..)?.as_chunks().0 })
    }

    pub fn entries(self) -> impl ExactSizeIterator<Item = FirEntry> + 'a {
        self.entries.iter().map(|&[s0, s1, s2, s3, command_sequence, ..]| FirEntry {
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            command_sequence,
        })
    }
}

/// The receiver's estimate of its line (draft-alvestrand-rmcat-remb-03).
#[derive(Clone, Copy, Debug)]
pub struct Remb<'a> {
    pub sender: u32,
    /// In bit/s; 18 bits of precision.
    pub bitrate: u64,
    ssrcs: &'a [[u8; 4]],
}

impl<'a> Remb<'a> {
    pub(super) const IDENTIFIER: &'static [u8; 4] = b"REMB";
    const MANTISSA_BITS: u32 = 18;

    pub(super) fn is_remb(body: &[u8]) -> bool {
        body.get(8..12).is_some_and(|identifier| identifier == Self::IDENTIFIER)
    }

    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let sender = u32_at(body, 0)?;
        let count = usize::from(*body.get(12)?);
        let exponent_and_mantissa = u24_at(body, 13)?;
        let exponent = exponent_and_mantissa >> Self::MANTISSA_BITS;
        let mantissa = u64::from(exponent_and_mantissa & ((1 << Self::MANTISSA_BITS) - 1));
        // More than 64 bits of bit/s is no limit.
        let bitrate = if mantissa == 0 || exponent <= mantissa.leading_zeros() {
            mantissa.checked_shl(exponent).unwrap_or_default()
        } else {
            u64::MAX
        };
        Some(Self { sender, bitrate, ssrcs: body.get(16..)?.as_chunks().0.get(..count)? })
    }

    /// Exponent and mantissa of `bitrate`, rounded down.
    pub(super) fn encode_bitrate(bitrate: u64) -> [u8; 3] {
        let bits = u64::BITS - bitrate.leading_zeros();
        let exponent = bits.saturating_sub(Self::MANTISSA_BITS);
        let [_, encoded @ ..] =
            (exponent << Self::MANTISSA_BITS | (bitrate >> exponent) as u32).to_be_bytes();
        encoded
    }

    /// The streams the estimate covers.
    pub fn ssrcs(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.ssrcs.iter().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Compound, RtcpPacket};
    use super::*;

    #[test]
    fn a_nack_names_the_first_and_the_masked_followers() {
        let datagram = [0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe, 0x80, 0x03];
        let Some(Ok(RtcpPacket::Nack(nack))) = Compound::new(&datagram).next() else { panic!("no NACK") };
        assert_eq!((nack.sender, nack.media), (1, 2));
        assert_eq!(nack.lost().collect::<Vec<_>>(), [65_534, 65_535, 0, 14]);
    }

    #[test]
    fn reads_a_remb_as_libwebrtc_writes_it() {
        // 1 stream, exponent 3, mantissa 0x3fb93
        let datagram = [
            0x8f, 206, 0, 5, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0x0f, 0xfb, 0x93,
            0x23, 0x45, 0x67, 0x89,
        ];
        let Some(Ok(RtcpPacket::Remb(remb))) = Compound::new(&datagram).next() else { panic!("no REMB") };
        assert_eq!(remb.bitrate, 0x3fb93 << 3);
        assert_eq!(remb.ssrcs().collect::<Vec<_>>(), [0x2345_6789]);
        assert_eq!(Remb::encode_bitrate(remb.bitrate), [0x0f, 0xfb, 0x93]);
    }

    #[test]
    fn an_absurd_remb_is_no_limit() {
        let mut datagram =
            [0x8f, 206, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 0, 0xff, 0xff, 0xff];
        let Some(Ok(RtcpPacket::Remb(remb))) = Compound::new(&datagram).next() else { panic!("no REMB") };
        assert_eq!(remb.bitrate, u64::MAX);
        datagram[16] = 1; // a stream that is not there
        assert!(Compound::new(&datagram).next().unwrap().is_err());
    }

    #[test]
    fn other_application_feedback_is_left_alone() {
        let datagram = [0x8f, 206, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, b'X', b'E', b'M', b'B', 0, 0, 0, 0];
        assert!(matches!(
            Compound::new(&datagram).next(),
            Some(Ok(RtcpPacket::Other { packet_type: 206, format: 15 }))
        ));
    }
}
