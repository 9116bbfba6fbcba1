//! The media it publishes: clips encoded beforehand, played in a loop. Each begins with its only key frame.

use std::io::Cursor;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rtc::media::io::{ivf_reader::IVFReader, ogg_reader::OggReader};

use crate::codec::Codec;
use crate::energy::Energy;

pub const PICTURES_PER_SECOND: u32 = 15;
pub const AUDIO_PACKETS_PER_SECOND: u32 = 50;

/// One encoding of a test picture, or a tone.
#[derive(Clone)]
pub struct Clip {
    pub width: u32,
    pub height: u32,
    pub frames: Rc<[Bytes]>,
    /// Of each audio packet, in −dBov (RFC 6464).
    pub levels: Rc<[u8]>,
}

impl Clip {
    /// The encodings of a camera, from the smallest. Only VP8 is there in more than one size.
    pub fn pictures(codec: Codec) -> Result<Vec<Self>> {
        match codec {
            Codec::Vp8 => [
                &include_bytes!("../clips/vp8-180.ivf")[..],
                include_bytes!("../clips/vp8-360.ivf"),
                include_bytes!("../clips/vp8-720.ivf"),
            ]
            .into_iter()
            .map(from_ivf)
            .collect(),
            Codec::Vp9 => Ok(vec![from_ivf(include_bytes!("../clips/vp9-360.ivf"))?]),
            Codec::Av1 => Ok(vec![from_ivf(include_bytes!("../clips/av1-360.ivf"))?]),
            Codec::H264 => Ok(vec![from_annex_b(include_bytes!("../clips/h264-360.h264"), 640, 360)?]),
            Codec::Opus => Ok(Vec::new()),
        }
    }

    /// A steady 440 Hz.
    pub fn tone() -> Result<Self> {
        from_ogg(include_bytes!("../clips/tone.ogg"))
    }

    fn of_pictures(width: u32, height: u32, frames: Vec<Bytes>) -> Result<Self> {
        ensure!(!frames.is_empty(), "a clip without pictures");
        Ok(Self { width, height, frames: frames.into(), levels: Rc::default() })
    }
}

fn from_ivf(file: &[u8]) -> Result<Clip> {
    let (mut reader, header) = IVFReader::new(Cursor::new(file))?;
    let mut frames = Vec::new();
    while let Ok((frame, _)) = reader.parse_next_frame() {
        frames.push(frame.freeze());
    }
    Clip::of_pictures(header.width.into(), header.height.into(), frames)
}

/// Access units begin with delimiters; the encoder was told to write them.
fn from_annex_b(file: &[u8], width: u32, height: u32) -> Result<Clip> {
    const DELIMITER: [u8; 5] = [0, 0, 0, 1, 9];
    let starts: Vec<usize> =
        (0..file.len()).filter(|at| file[*at..].starts_with(&DELIMITER)).chain([file.len()]).collect();
    let units = starts.windows(2).map(|unit| Bytes::copy_from_slice(&file[unit[0]..unit[1]]));
    Clip::of_pictures(width, height, units.collect())
}

/// Pages hold one packet each; the muxer was told so.
fn from_ogg(file: &[u8]) -> Result<Clip> {
    let (mut reader, _) = OggReader::new(Cursor::new(file), true)?;
    let (mut frames, mut levels) = (Vec::new(), Vec::new());
    let mut energy = Energy::new()?;
    while let Ok((packet, page)) = reader.parse_next_page() {
        if page.opus_header_type(&packet).is_some() {
            continue;
        }
        let mean = energy.of(&packet).context("the tone does not decode")?;
        let level = (-10.0 * mean.max(1e-12).log10()).clamp(0.0, 127.0);
        frames.push(packet.freeze());
        levels.push(level as u8);
    }
    ensure!(!frames.is_empty(), "a clip without sound");
    Ok(Clip { width: 0, height: 0, frames: frames.into(), levels: levels.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::is_key;

    #[test]
    fn clips_begin_with_their_only_key_frame() {
        for codec in Codec::VIDEO {
            for clip in Clip::pictures(codec).unwrap() {
                let keys: Vec<usize> = (0..clip.frames.len())
                    .filter(|at| {
                        let payloads = codec.payloader().payload(1200, &clip.frames[*at]).unwrap();
                        is_key(codec, &payloads).unwrap()
                    })
                    .collect();
                assert_eq!((keys, clip.frames.len()), (vec![0], 30), "{codec:?} {}", clip.width);
            }
        }
    }

    #[test]
    fn the_tone_is_loud_and_steady() {
        let tone = Clip::tone().unwrap();
        assert!((49..=52).contains(&tone.frames.len()), "{} packets", tone.frames.len());
        let settled = &tone.levels[2..tone.levels.len() - 2];
        assert!(settled.iter().all(|level| (10..20).contains(level)), "{settled:?}");
    }
}
