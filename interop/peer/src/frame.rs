//! Putting pictures together from the payloads of their packets.

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use rtc::rtp::codec::av1::Av1Depacketizer;
use rtc::rtp::codec::h264::H264Packet;
use rtc::rtp::codec::vp8::Vp8Packet;
use rtc::rtp::codec::vp9::Vp9Packet;
use rtc::rtp::packetizer::Depacketizer;

use crate::codec::Codec;
use crate::vp9;

/// What a whole picture tells of itself.
#[derive(Debug, Default)]
pub struct Picture {
    pub is_key: bool,
    /// Where the codec's payload descriptor counts pictures.
    pub id: Option<u16>,
    /// Where it is easily read: key frames of VP8.
    pub size: Option<(u32, u32)>,
}

/// Fails if these are not all payloads of one picture, in order.
pub fn assemble(codec: Codec, payloads: &[Bytes]) -> Result<Picture> {
    ensure!(!payloads.is_empty(), "no payload");
    match codec {
        Codec::Vp8 => vp8(payloads),
        Codec::Vp9 => vp9(payloads),
        Codec::H264 => h264(payloads),
        Codec::Av1 => av1(payloads),
        Codec::Opus => Ok(Picture::default()),
    }
}

#[cfg(test)]
pub fn is_key(codec: Codec, payloads: &[Bytes]) -> Result<bool> {
    Ok(assemble(codec, payloads)?.is_key)
}

fn vp8(payloads: &[Bytes]) -> Result<Picture> {
    let mut frame = BytesMut::new();
    let mut picture = Picture::default();
    for (at, payload) in payloads.iter().enumerate() {
        let mut packet = Vp8Packet::default();
        let piece = packet.depacketize(payload)?;
        let begins = packet.s == 1 && packet.pid == 0;
        ensure!(begins == (at == 0), "a frame begins at its packet {at}");
        let id = (packet.i == 1).then_some(packet.picture_id);
        ensure!(at == 0 || id == picture.id, "picture id {id:?} within picture {:?}", picture.id);
        picture.id = id;
        frame.extend_from_slice(&piece);
    }
    // RFC 6386, section 9.1.
    picture.is_key = frame.first().context("an empty frame")? & 1 == 0;
    if picture.is_key {
        ensure!(frame.get(3..6) == Some(&[0x9d, 0x01, 0x2a]), "no start code in a key frame");
        let side =
            |at: usize| Some(u32::from(u16::from_le_bytes([*frame.get(at)?, *frame.get(at + 1)?]) & 0x3fff));
        picture.size = side(6).zip(side(8));
    }
    Ok(picture)
}

fn vp9(payloads: &[Bytes]) -> Result<Picture> {
    let mut picture = Picture::default();
    let mut within = false;
    for (at, payload) in payloads.iter().enumerate() {
        let mut packet = Vp9Packet::default();
        let piece = packet.depacketize(payload)?;
        ensure!(packet.b != within, "a layer's frame begins within another, or not at all, at packet {at}");
        within = !packet.e;
        let id = packet.i.then_some(packet.picture_id);
        if at == 0 {
            // The base layer's comes first.
            picture.is_key = !packet.p;
            picture.id = id;
            ensure!(
                picture.is_key == vp9::is_key_frame(&piece),
                "P of the payload descriptor against the frame's own header"
            );
        }
        ensure!(id == picture.id, "picture id {id:?} within picture {:?}", picture.id);
    }
    ensure!(!within, "the last packet does not end a frame");
    Ok(picture)
}

fn h264(payloads: &[Bytes]) -> Result<Picture> {
    const IDR: u8 = 5;
    const PARAMETERS: u8 = 7;
    let mut reader = H264Packet::default();
    let mut stream = BytesMut::new();
    for payload in payloads {
        stream.extend_from_slice(&reader.depacketize(payload)?);
    }
    let types: Vec<u8> =
        stream.windows(5).filter(|at| at[..4] == [0, 0, 0, 1]).map(|at| at[4] & 0x1f).collect();
    ensure!(types.iter().any(|nal| (1..=IDR).contains(nal)), "no slice among NAL units {types:?}");
    let is_key = types.contains(&IDR);
    ensure!(!is_key || types.contains(&PARAMETERS), "a key frame without its parameters");
    Ok(Picture { is_key, ..Picture::default() })
}

fn av1(payloads: &[Bytes]) -> Result<Picture> {
    const CONTINUED: u8 = 0b1000_0000;
    const CONTINUES: u8 = 0b0100_0000;
    const SEQUENCE_HEADER: u8 = 1;
    let mut reader = Av1Depacketizer::default();
    let mut stream = BytesMut::new();
    let mut continues = false;
    for payload in payloads {
        let first = payload.first().context("an empty payload")?;
        ensure!((first & CONTINUED != 0) == continues, "an OBU is cut between packets");
        continues = first & CONTINUES != 0;
        stream.extend_from_slice(&reader.depacketize(payload)?);
    }
    ensure!(!continues, "the last packet's OBU continues");
    let first = stream.first().context("no OBU")?;
    Ok(Picture { is_key: first >> 3 & 0xf == SEQUENCE_HEADER, ..Picture::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::Clip;

    /// Every clip's first picture, in packets so small that there are many.
    fn first_pictures() -> impl Iterator<Item = (Codec, Vec<Bytes>)> {
        Codec::VIDEO.into_iter().map(|codec| {
            let clip = Clip::pictures(codec).unwrap().remove(0);
            (codec, codec.payloader().payload(300, &clip.frames[0]).unwrap())
        })
    }

    #[test]
    fn a_whole_picture_is_a_key_frame_and_a_cut_one_is_refused() {
        for (codec, payloads) in first_pictures() {
            assert!(payloads.len() > 4, "{codec:?}");
            assert!(assemble(codec, &payloads).unwrap().is_key, "{codec:?}");
            assert!(assemble(codec, &payloads[1..]).is_err(), "{codec:?} without its beginning");
        }
    }

    #[test]
    fn sizes_of_vp8_are_read() {
        for clip in Clip::pictures(Codec::Vp8).unwrap() {
            let payloads = Codec::Vp8.payloader().payload(1200, &clip.frames[0]).unwrap();
            assert_eq!(assemble(Codec::Vp8, &payloads).unwrap().size, Some((clip.width, clip.height)));
        }
    }
}
