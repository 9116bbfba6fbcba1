//! A camera with three simulcast layers.

use std::time::Duration;

use weir_rate::BitRate;
use weir_stage::Shape;
use weir_stage::chance::Chance;
use weir_stage::source::FrameSizes;

use crate::encoder::{Encoder, FRAME_INTERVAL};

/// A frame of each temporal layer in mean frames: three layers have 40, 60 and 100 % of the rate, as libwebrtc shares it out
/// (`kLayerRateAllocation`), and come in the order 0 2 1 2.
const WEIGHTS: [f64; 3] = [1.6, 0.8, 0.8];
/// A frame is no smaller.
const LEAST: usize = 60;

/// The stream's shape, without sizes: [`frame_sizes`] has them.
pub fn shape(frame_interval: Duration) -> Shape {
    Shape { interval: frame_interval, ..Shape::vp8_simulcast() }
}

/// Encoders for these layers, in kbit/s, each with a part of its own in the seed.
pub fn frame_sizes(layers: [u64; 3], frame_interval: Duration, seed: u64, part: u64) -> FrameSizes {
    // An encoder counts in frames of its own interval.
    let stretch = frame_interval.as_secs_f64() / FRAME_INTERVAL.as_secs_f64();
    let mut at = 0;
    let mut encoders = layers.map(|kbps| {
        at += 1;
        let encoder = Encoder::new(Chance::new(seed, part * 4 + at), BitRate::MAX, Duration::MAX);
        (encoder, BitRate::from_kbps(kbps).scaled(stretch))
    });
    Box::new(move |encoding, temporal, is_key| {
        let (encoder, rate) = &mut encoders[encoding];
        if is_key {
            encoder.ask();
            return encoder.frame(*rate);
        }
        ((encoder.frame(*rate) as f64 * WEIGHTS[usize::from(temporal)]) as usize).max(LEAST)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_have_their_rates_and_temporal_layers_their_shares() {
        let interval = Duration::from_micros(66_666);
        let mut sizes = frame_sizes([150, 500, 2_000], interval, 1, 7);
        for (encoding, kbps) in [150, 500, 2_000].into_iter().enumerate() {
            sizes(encoding, 0, true);
            let mut bytes = [0; 3];
            for frame in 0..1_800 {
                let temporal = [0, 2, 1, 2][frame % 4];
                bytes[usize::from(temporal)] += sizes(encoding, temporal, false);
            }
            let all: usize = bytes.iter().sum();
            let rate = BitRate::of(all as u64, interval * 1_800);
            assert!((0.93..1.07).contains(&rate.ratio(BitRate::from_kbps(kbps))), "{rate}");
            let base = bytes[0] as f64 / all as f64;
            assert!((0.37..0.43).contains(&base), "{base}");
        }
    }
}
