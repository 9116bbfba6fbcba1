//! Does the queue on the way grow? A line through the newest delays, and a threshold that adapts to the noise
//! ([draft-ietf-rmcat-gcc-02 §5.3, §5.4](https://datatracker.ietf.org/doc/html/draft-ietf-rmcat-gcc-02#section-5.3)).

use crate::grouping::GroupDelta;

/// Groups that the line goes through. More see a slow growth in more noise, and see everything later.
const WINDOW: usize = 20;
/// How much of the smoothed delay stays with each group.
const SMOOTHING: f64 = 0.9;
/// Slopes are tiny; this brings them to the scale of the threshold, which is in milliseconds.
const GAIN: f64 = 4.0;
/// A slope counts the more the more groups stand behind it, up to these.
const MAX_GROUPS: u32 = 60;

/// Of a microsecond. A division takes several times as long as a multiplication, and this is done for each group.
const MILLIS: f64 = 1e-3;
/// Smoothed delays are kept in 16ths of a microsecond.
const PER_MILLI: f64 = 16_000.0;
const MICROS: f64 = 1.0 / 16.0;
/// Two minutes in these, and 16 seconds in microseconds: what a slope is told from fits into 64 bits. Groups that are further
/// apart tell nothing of a queue.
const MAX_DELAY: f64 = (1_u64 << 31) as f64;
const MAX_SPAN: i64 = 1 << 24;

const FIRST_THRESHOLD: f64 = 12.5;
const MIN_THRESHOLD: f64 = 6.0;
const MAX_THRESHOLD: f64 = 600.0;
/// The threshold follows noise up slowly and down faster, by such a share of the way for each millisecond since the last
/// judgement: a flow beside a TCP flow must not starve, and must become sensitive again afterwards.
const UP: f64 = 0.0087;
const DOWN: f64 = 0.039;
/// A jump this far past the threshold is an accident, not noise to adapt to.
const ACCIDENT: f64 = 15.0;
/// How fast the measure of noise follows, and what is no noise any more, in milliseconds.
const NOISE: f64 = 0.05;
const MAX_NOISE: f64 = 50.0;

/// What the line on the way does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    #[default]
    Normal,
    /// A queue grows.
    Over,
    /// A queue drains.
    Under,
}

/// The trend of the one-way delay. Bound: [`WINDOW`] groups.
#[derive(Debug)]
#[repr(C)]
pub struct Trend {
    sums: Sums,
    accumulated: f64,
    smoothed: f64,
    threshold: f64,
    adapted: Option<i64>,
    last_trend: f64,
    noise: f64,
    groups: u32,
    len: u8,
    /// The next to be replaced.
    next: u8,
    usage: Usage,
    /// Something was added since the last judgement.
    is_fresh: bool,
    /// Of the newest groups, when they arrived, and the smoothed delay: microseconds, and 16ths of them.
    points: [(i64, i64); WINDOW],
}

/// What a line through points is told from: sums modulo 2^64. What leaves the window takes away exactly what it brought, and
/// a slope's numerator and denominator, which do not depend on where coordinates begin, come out right if they fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    x: i64,
    y: i64,
    xy: i64,
    xx: i64,
}

impl Sums {
    fn replace(&mut self, before: (i64, i64), new: (i64, i64)) {
        let add = |sum: &mut i64, old: i64, new: i64| *sum = sum.wrapping_add(new).wrapping_sub(old);
        add(&mut self.x, before.0, new.0);
        add(&mut self.y, before.1, new.1);
        add(&mut self.xy, before.0.wrapping_mul(before.1), new.0.wrapping_mul(new.1));
        add(&mut self.xx, before.0.wrapping_mul(before.0), new.0.wrapping_mul(new.0));
    }

    /// The least squares' slope of y over x of a full window; `None` where all have the same x.
    fn slope(&self) -> Option<f64> {
        let less_means = |products: i64, sum: i64| {
            products.wrapping_mul(WINDOW as i64).wrapping_sub(self.x.wrapping_mul(sum))
        };
        let under = less_means(self.xx, self.x);
        (under > 0).then(|| less_means(self.xy, self.y) as f64 / under as f64)
    }
}

impl Trend {
    pub fn new() -> Self {
        Self {
            points: [(0, 0); WINDOW],
            sums: Sums::default(),
            len: 0,
            next: 0,
            groups: 0,
            accumulated: 0.0,
            smoothed: 0.0,
            threshold: FIRST_THRESHOLD,
            adapted: None,
            last_trend: 0.0,
            is_fresh: false,
            usage: Usage::Normal,
            noise: 0.0,
        }
    }

    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// How much the distance between groups scatters, in microseconds.
    pub fn noise(&self) -> u64 {
        (self.noise * 1_000.0) as u64
    }

    /// Takes a group. [`Self::judge`] says what it makes of it.
    pub fn add(&mut self, delta: GroupDelta) {
        self.groups = (self.groups + 1).min(MAX_GROUPS);
        let stretch = (delta.arrived - delta.sent) as f64 * MILLIS;
        self.accumulated += stretch;
        self.noise += NOISE * (stretch.abs().min(MAX_NOISE) - self.noise);
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        self.is_fresh = true;
        self.push(delta.at);
    }

    /// All groups that a feedback told of have been taken.
    pub fn judge(&mut self) {
        if usize::from(self.len) < WINDOW || !std::mem::take(&mut self.is_fresh) {
            return;
        }
        if !self.is_dense() {
            self.usage = Usage::Normal;
        } else if let Some(slope) = self.slope() {
            self.judge_slope(slope);
        }
    }

    /// When the newest group arrived.
    fn newest(&self) -> i64 {
        self.points[(usize::from(self.next) + WINDOW - 1) % WINDOW].0
    }

    fn push(&mut self, at: i64) {
        let newest = (at, (self.smoothed * PER_MILLI).clamp(-MAX_DELAY, MAX_DELAY) as i64);
        let place = &mut self.points[usize::from(self.next)];
        // The window begins with zeros, which bring nothing.
        self.sums.replace(*place, newest);
        *place = newest;
        self.next = if usize::from(self.next) + 1 == WINDOW { 0 } else { self.next + 1 };
        self.len = (self.len + 1).min(WINDOW as u8);
    }

    /// Whether groups are so close together that they tell of a queue.
    fn is_dense(&self) -> bool {
        self.newest().saturating_sub(self.points[usize::from(self.next)].0) <= MAX_SPAN
    }

    /// How much of a second the delay grows in one; `None` while groups arrived at one time.
    fn slope(&self) -> Option<f64> {
        self.sums.slope().map(|slope| slope * MICROS)
    }

    fn judge_slope(&mut self, slope: f64) {
        let trend = f64::from(self.groups) * slope * GAIN;
        // A queue that grows more slowly than it did is being seen to.
        self.usage = match trend {
            _ if trend > self.threshold && trend >= self.last_trend => Usage::Over,
            _ if trend > self.threshold => self.usage,
            _ if trend < -self.threshold => Usage::Under,
            _ => Usage::Normal,
        };
        self.last_trend = trend;
        self.adapt(trend.abs(), self.newest());
    }

    fn adapt(&mut self, trend: f64, at: i64) {
        let before = self.adapted.replace(at).unwrap_or(at);
        if trend > self.threshold + ACCIDENT {
            return;
        }
        let factor = if trend < self.threshold { DOWN } else { UP };
        let share = ((at - before) as f64 * MILLIS * factor).clamp(0.0, 1.0);
        let threshold = self.threshold + (trend - self.threshold) * share;
        self.threshold = threshold.clamp(MIN_THRESHOLD, MAX_THRESHOLD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(trend: &mut Trend, groups: usize, from: &mut i64, stretch: i64) {
        for _ in 0..groups {
            *from += 20_000 + stretch;
            trend.add(GroupDelta { sent: 20_000, arrived: 20_000 + stretch, at: *from });
            trend.judge();
        }
    }

    #[test]
    fn a_growing_queue_is_overuse_and_a_draining_one_the_contrary() {
        let (mut trend, mut at) = (Trend::new(), 0);
        feed(&mut trend, 50, &mut at, 0);
        assert_eq!(trend.usage(), Usage::Normal);
        feed(&mut trend, 10, &mut at, 5_000);
        assert_eq!(trend.usage(), Usage::Over);
        feed(&mut trend, 40, &mut at, -3_000);
        assert_eq!(trend.usage(), Usage::Under);
        feed(&mut trend, 60, &mut at, 0);
        assert_eq!(trend.usage(), Usage::Normal);
    }

    #[test]
    fn noise_without_a_trend_is_normal() {
        let (mut trend, mut at) = (Trend::new(), 0);
        for group in 0..500 {
            feed(&mut trend, 1, &mut at, if group % 2 == 0 { 4_000 } else { -4_000 });
            assert_ne!(trend.usage(), Usage::Over, "group {group}");
        }
    }

    /// The sums are as if they had been made anew, and the slope is the line's.
    #[test]
    fn a_straight_line_has_its_slope() {
        let mut trend = Trend::new();
        for group in 0..1_000_i64 {
            trend.smoothed = 0.25 * group as f64 + if group < 900 { (group % 7) as f64 } else { 0.0 };
            trend.push(i64::MAX / 2 + group * 5_000);
        }
        assert_eq!(trend.slope(), Some(0.05), "a quarter of a millisecond each five");
        let mut sums = Sums::default();
        trend.points.into_iter().for_each(|point| sums.replace((0, 0), point));
        assert_eq!(sums, trend.sums);
    }

    #[test]
    fn the_largest_that_a_slope_is_told_from_fits() {
        let mut trend = Trend::new();
        let step = MAX_SPAN / (WINDOW as i64 - 1);
        for group in 0..WINDOW as i64 {
            trend.smoothed = if group < WINDOW as i64 / 2 { -1e9 } else { 1e9 };
            trend.push(group * step);
        }
        let slope = trend.slope().expect("they are just close enough");
        assert!(
            (20.0..30.0).contains(&slope),
            "four minutes within 16 s, from one half to the other: {slope}"
        );
        trend.push(MAX_SPAN + 2 * step);
        assert!(!trend.is_dense());
    }

    #[test]
    fn absurd_times_leave_numbers() {
        let mut trend = Trend::new();
        for group in 0..100 {
            let arrived = if group % 3 == 0 { 0 } else { 9_000_000_000 };
            trend.add(GroupDelta { sent: 0, arrived, at: 5 });
            trend.add(GroupDelta { sent: 9_000_000_000, arrived: 0, at: -arrived });
            trend.judge();
        }
        assert!(trend.threshold.is_finite() && trend.smoothed.is_finite() && trend.last_trend.is_finite());
    }
}
