//! How loud sound is, from decoding it.

use anyhow::Result;
use opus::{Channels, Decoder};

const RATE: u32 = 48_000;
const CHANNELS: usize = 2;
/// 120 ms, the longest an Opus packet may be.
const LONGEST: usize = RATE as usize * 120 / 1000 * CHANNELS;

pub struct Energy {
    decoder: Decoder,
    samples: Vec<f32>,
}

impl Energy {
    pub fn new() -> Result<Self> {
        Ok(Self { decoder: Decoder::new(RATE, Channels::Stereo)?, samples: vec![0.0; LONGEST] })
    }

    /// The mean square of a packet's samples, one being full scale.
    pub fn of(&mut self, packet: &[u8]) -> Result<f64> {
        let length = self.decoder.decode_float(packet, &mut self.samples, false)? * CHANNELS;
        let sum: f64 = self.samples[..length].iter().map(|sample| f64::from(*sample).powi(2)).sum();
        Ok(sum / length.max(1) as f64)
    }
}
