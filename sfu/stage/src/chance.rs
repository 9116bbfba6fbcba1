//! Seeded chance.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A generator that the seed and a part's name determine: parts do not disturb each other's draws.
#[derive(Debug)]
pub struct Chance(SmallRng);

impl Chance {
    pub fn new(seed: u64, part: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part))
    }

    pub fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.0.random::<f64>() < probability
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.random::<f64>()
    }

    /// From the normal distribution with deviation 1.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.0.random::<f64>().max(f64::MIN_POSITIVE).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.0.random::<f64>()).cos()
    }

    /// From the exponential distribution with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.0.random::<f64>().max(f64::MIN_POSITIVE).ln()
    }
}
