//! Moments as this crate counts them.

use std::ops::{Add, AddAssign, Sub};
use std::time::{Duration, Instant};

/// A moment: nanoseconds since its clock began, whatever that is of. All moments that are compared are of one clock.
///
/// [`Instant`] takes twice the memory, and two of them are compared and told apart in two steps; several times for each
/// packet that leaves. Good for 292 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(i64);

const NANOS: i64 = 1_000_000_000;

fn nanos(duration: Duration) -> i64 {
    duration.as_secs().cast_signed() * NANOS + i64::from(duration.subsec_nanos())
}

impl Time {
    /// When a clock begins.
    pub const ZERO: Self = Self(0);
    /// After every other: when nothing is due.
    pub const NEVER: Self = Self(i64::MAX);

    /// What `now` is on a clock that began at `epoch`; not before that.
    pub fn since(epoch: Instant, now: Instant) -> Self {
        Self(nanos(now.saturating_duration_since(epoch)))
    }

    /// What it is on the clock of the shell, if this one began at `epoch`.
    pub fn after(self, epoch: Instant) -> Instant {
        epoch + self.saturating_duration_since(Self::ZERO)
    }

    /// Microseconds; negative if `earlier` is later.
    pub(crate) fn micros_since(self, earlier: Self) -> i64 {
        (self.0 - earlier.0) / 1_000
    }

    /// The same as adding a duration, which takes a division to make.
    pub(crate) fn plus_nanos(self, nanos: u64) -> Self {
        Self(self.0 + nanos.cast_signed())
    }

    pub(crate) fn plus_micros(self, micros: i64) -> Self {
        Self(self.0 + micros * 1_000)
    }

    /// Zero if `earlier` is later.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos((self.0 - earlier.0).max(0).unsigned_abs())
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + nanos(duration))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0 - nanos(duration))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's clock begins somewhere")]
    fn goes_with_the_clock_of_the_shell() {
        let (epoch, later) = (Instant::now(), Duration::from_nanos(3_000_000_123));
        let time = Time::since(epoch, epoch + later);
        assert_eq!((time.micros_since(Time::ZERO), time - Time::ZERO), (3_000_000, later));
        assert_eq!((time.after(epoch), time - later), (epoch + later, Time::ZERO));
        assert_eq!(Time::since(epoch + later, epoch), Time::ZERO, "not before it began");
        assert_eq!(Time::ZERO - time, Duration::ZERO);
        assert!(time < Time::NEVER);
    }
}
