//! Bits a second, as a type.

use std::fmt;
use std::time::Duration;

/// A rate in bits a second; at most [`BitRate::MAX`], so that no arithmetic with times and bytes overflows.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitRate(u64);

impl BitRate {
    pub const ZERO: Self = Self(0);
    /// 100 Gbit/s: more than any peer's line.
    pub const MAX: Self = Self(100_000_000_000);

    pub const fn from_bps(bps: u64) -> Self {
        if bps > Self::MAX.0 { Self::MAX } else { Self(bps) }
    }

    pub const fn from_kbps(kbps: u64) -> Self {
        Self::from_bps(kbps.saturating_mul(1_000))
    }

    pub const fn bps(self) -> u64 {
        self.0
    }

    /// What carries `bytes` in `time`; nothing is carried in no time.
    pub fn of(bytes: u64, time: Duration) -> Self {
        Self::over(bytes, i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
    }

    /// The same of microseconds; nothing is carried in less than no time.
    pub fn over(bytes: u64, micros: i64) -> Self {
        if micros <= 0 {
            return Self::ZERO;
        }
        // Floats divide several times as fast as whole numbers of 64 bits.
        Self::from_float(bytes as f64 * 8_000_000.0 / micros as f64)
    }

    /// Times `factor`; what is not a number, or is negative, makes nothing.
    pub fn scaled(self, factor: f64) -> Self {
        Self::from_float(self.0.cast_signed() as f64 * factor)
    }

    /// A cast saturates, and makes zero of what is not a number. One to a signed number takes half as long.
    fn from_float(bps: f64) -> Self {
        Self((bps as i64).clamp(0, Self::MAX.0.cast_signed()).cast_unsigned())
    }

    pub fn bytes_in(self, time: Duration) -> u64 {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        divide(self.0, micros, 8_000_000)
    }

    /// How long `bytes` take; without any rate, as long as at one bit a second.
    pub fn time_for(self, bytes: u64) -> Duration {
        Duration::from_micros(divide(bytes, 8_000_000, self.0.max(1)))
    }

    pub fn plus(self, other: Self) -> Self {
        Self::from_bps(self.0.saturating_add(other.0))
    }

    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// This over `other`; infinite or not a number is never the answer.
    pub fn ratio(self, other: Self) -> f64 {
        self.0.cast_signed() as f64 / other.0.max(1).cast_signed() as f64
    }
}

/// `number * times / by`, saturating. 128 bits cost several times as much, and this is done for each packet.
fn divide(number: u64, times: u64, by: u64) -> u64 {
    match number.checked_mul(times) {
        Some(product) => product / by,
        None => u64::try_from(u128::from(number) * u128::from(times) / u128::from(by)).unwrap_or(u64::MAX),
    }
}

impl fmt::Debug for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kbit/s", self.0.div_ceil(1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_times_agree() {
        let rate = BitRate::from_kbps(800);
        assert_eq!(rate.bytes_in(Duration::from_millis(10)), 1_000);
        assert_eq!(rate.time_for(1_000), Duration::from_millis(10));
        assert_eq!(BitRate::of(1_000, Duration::from_millis(10)), rate);
    }

    #[test]
    fn absurd_numbers_make_no_absurd_rates() {
        let rate = BitRate::from_kbps(1);
        assert_eq!(rate.scaled(f64::NAN), BitRate::ZERO);
        assert_eq!(rate.scaled(-1.0), BitRate::ZERO);
        assert_eq!(rate.scaled(f64::INFINITY), BitRate::MAX);
        assert_eq!(BitRate::of(u64::MAX, Duration::ZERO), BitRate::ZERO);
        assert_eq!(BitRate::of(u64::MAX, Duration::from_micros(1)), BitRate::MAX);
        assert_eq!(BitRate::of(u64::MAX, Duration::MAX), BitRate::from_kbps(16_000));
        assert_eq!(BitRate::over(1, -1), BitRate::ZERO);
        assert_eq!(BitRate::MAX.plus(BitRate::MAX), BitRate::MAX);
        assert_eq!(BitRate::MAX.bytes_in(Duration::MAX), u64::MAX);
        assert!(BitRate::ZERO.time_for(u64::MAX) > Duration::from_secs(1 << 40));
    }
}
