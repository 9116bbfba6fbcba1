//! VP9 in RTP (RFC 9628), flexible mode, one layer. The payloader of the `rtc` crate never sets P, so that receivers take
//! every picture for a key frame.

use bytes::{BufMut, Bytes, BytesMut};
use rtc::rtp::packetizer::Payloader;
use rtc::shared::error::Result;

const PICTURE_ID: u8 = 0x80;
const PREDICTED: u8 = 0x40;
const FLEXIBLE: u8 = 0x10;
const BEGIN: u8 = 0x08;
const END: u8 = 0x04;
/// One reference, the picture before.
const PREVIOUS: u8 = 1 << 1;
const LONGEST_DESCRIPTOR: usize = 4;

#[derive(Clone, Debug, Default)]
pub struct Vp9Payloader {
    picture_id: u16,
}

impl Payloader for Vp9Payloader {
    fn payload(&mut self, mtu: usize, frame: &Bytes) -> Result<Vec<Bytes>> {
        let predicted = !is_key_frame(frame);
        let pieces: Vec<&[u8]> = frame.chunks(mtu.saturating_sub(LONGEST_DESCRIPTOR).max(1)).collect();
        let last = pieces.len().saturating_sub(1);
        let payloads = pieces.iter().enumerate().map(|(at, piece)| {
            let mut first = PICTURE_ID | FLEXIBLE;
            first |= if predicted { PREDICTED } else { 0 };
            first |= if at == 0 { BEGIN } else { 0 };
            first |= if at == last { END } else { 0 };
            let mut payload = BytesMut::with_capacity(LONGEST_DESCRIPTOR + piece.len());
            payload.put_u8(first);
            payload.put_u16(0x8000 | self.picture_id);
            if predicted {
                payload.put_u8(PREVIOUS);
            }
            payload.put_slice(piece);
            payload.freeze()
        });
        let payloads = payloads.collect();
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        Ok(payloads)
    }

    fn clone_to(&self) -> Box<dyn Payloader> {
        Box::new(self.clone())
    }
}

/// From the uncompressed header of profile 0: frame marker (2), profile (2), show_existing_frame, frame_type (0 = key).
pub fn is_key_frame(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & 0b1111_1100 == 0b1000_0000)
}
