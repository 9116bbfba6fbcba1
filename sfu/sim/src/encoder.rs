//! A scripted camera: frames whose sizes follow a rate as encoders follow one, roughly and after a while.

use std::time::Duration;

use weir_rate::BitRate;

use weir_stage::chance::Chance;

/// Frames a second.
pub const FRAME_INTERVAL: Duration = Duration::from_micros(33_333);
/// A key frame in frames of the same rate; those after it are smaller until it is paid.
const KEY_FRAME: f64 = 4.0;
/// How frame sizes scatter.
const SCATTER: f64 = 0.15;
/// The share of what was overspent that the next frame saves.
const REPAY: f64 = 0.15;
/// An encoder takes a lower rate with the next frame, and nears a higher one by this share a frame.
const RAMP: f64 = 0.25;

/// Makes frames.
#[derive(Debug)]
pub struct Encoder {
    chance: Chance,
    rate: BitRate,
    most: BitRate,
    overspent: f64,
    key_frame: bool,
    /// Mean time between key frames that somebody asks for.
    asked_every: Duration,
}

impl Encoder {
    pub fn new(chance: Chance, most: BitRate, asked_every: Duration) -> Self {
        Self { chance, rate: BitRate::ZERO, most, overspent: 0.0, key_frame: true, asked_every }
    }

    /// The bytes of the next frame at `target`, at [`FRAME_INTERVAL`].
    pub fn frame(&mut self, target: BitRate) -> usize {
        let target = target.min(self.most);
        let gap = target.minus(self.rate).scaled(RAMP);
        self.rate = self.rate.plus(gap).min(target);
        let budget = self.rate.bytes_in(FRAME_INTERVAL) as f64;
        let asked = FRAME_INTERVAL.as_secs_f64() / self.asked_every.as_secs_f64();
        let key_frame = std::mem::take(&mut self.key_frame) || self.chance.happens(asked);
        let scatter = (1.0 + SCATTER * self.chance.normal()).max(0.3);
        let wished = if key_frame { budget * KEY_FRAME } else { (budget - REPAY * self.overspent) * scatter };
        let bytes = wished.max(budget * 0.2).max(60.0);
        // What was overspent longer ago is forgotten, as encoders do.
        self.overspent = (self.overspent + bytes - budget).clamp(-2.0 * budget, 8.0 * budget);
        bytes as usize
    }

    /// The next frame is a key frame.
    pub fn ask(&mut self) {
        self.key_frame = true;
    }

    /// Another picture, of this rate, whose first frame is next.
    pub fn begin(&mut self, rate: BitRate) {
        (self.rate, self.overspent, self.key_frame) = (rate, 0.0, true);
    }

    /// The present frame is left out.
    pub fn skip(&mut self) {
        self.overspent -= self.rate.bytes_in(FRAME_INTERVAL) as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_make_the_rate() {
        let mut encoder = Encoder::new(Chance::new(3, 0), BitRate::from_kbps(4_000), Duration::from_secs(10));
        let target = BitRate::from_kbps(1_000);
        let first = encoder.frame(target);
        (0..30).for_each(|_| _ = encoder.frame(target));
        let bytes: usize = (0..900).map(|_| encoder.frame(target)).sum();
        let rate = BitRate::of(bytes as u64, FRAME_INTERVAL * 900);
        assert!((950..=1_050).contains(&(rate.bps() / 1_000)), "{rate}");
        assert!(first > 2_000, "a key frame, though the rate only begins: {first}");
    }
}
