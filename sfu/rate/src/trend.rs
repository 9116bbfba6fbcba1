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

const NANOS_PER_MILLI: f64 = 1e6;
/// Some years, in nanoseconds: a window's sum of such fits into 64 bits.
const MAX_DELAY: f64 = 1e17;

const FIRST_THRESHOLD: f64 = 12.5;
const MIN_THRESHOLD: f64 = 6.0;
const MAX_THRESHOLD: f64 = 600.0;
/// The threshold follows noise up slowly and down faster (a factor a millisecond): a flow beside a TCP flow must not
/// starve, and must become sensitive again afterwards.
const UP: f64 = 0.0087;
const DOWN: f64 = 0.039;
/// A jump this far past the threshold is an accident, not noise to adapt to.
const ACCIDENT: f64 = 15.0;
/// A slope over the threshold for less than this may be one late group. In microseconds.
const SUSTAINED: f64 = 10_000.0;

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
pub struct Trend {
    /// Of the newest groups, arrival in microseconds since the first group, and smoothed delay in nanoseconds.
    arrivals: [i64; WINDOW],
    delays: [i64; WINDOW],
    sums: Sums,
    len: usize,
    /// The next to be replaced.
    next: usize,
    groups: u32,
    began: Option<i64>,
    accumulated: f64,
    smoothed: f64,
    threshold: f64,
    adapted: Option<i64>,
    last_trend: f64,
    over_for: Option<f64>,
    usage: Usage,
    noise: f64,
}

/// What a line through points is told from. Whole numbers: what leaves the window takes away exactly what it brought.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    x: i64,
    y: i64,
    xy: i128,
    xx: i128,
}

impl Sums {
    fn replace(&mut self, (x_before, y_before): (i64, i64), (x, y): (i64, i64)) {
        let wide = |a: i64, b: i64| i128::from(a) * i128::from(b);
        self.x += x - x_before;
        self.y += y - y_before;
        self.xy += wide(x, y) - wide(x_before, y_before);
        self.xx += wide(x, x) - wide(x_before, x_before);
    }

    /// The least squares' slope of y over x of `count` points; `None` where all have the same x.
    fn slope(&self, count: usize) -> Option<f64> {
        let count = count as i128;
        let under = count * self.xx - i128::from(self.x) * i128::from(self.x);
        let over = count * self.xy - i128::from(self.x) * i128::from(self.y);
        (under > 0).then(|| over as f64 / under as f64)
    }
}

impl Trend {
    pub fn new() -> Self {
        Self {
            arrivals: [0; WINDOW],
            delays: [0; WINDOW],
            sums: Sums::default(),
            len: 0,
            next: 0,
            groups: 0,
            began: None,
            accumulated: 0.0,
            smoothed: 0.0,
            threshold: FIRST_THRESHOLD,
            adapted: None,
            last_trend: 0.0,
            over_for: None,
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

    pub fn add(&mut self, delta: GroupDelta) {
        let began = *self.began.get_or_insert(delta.at);
        self.groups = (self.groups + 1).min(MAX_GROUPS);
        let stretch = (delta.arrived - delta.sent) as f64 / 1_000.0;
        self.accumulated += stretch;
        self.noise += NOISE * (stretch.abs().min(MAX_NOISE) - self.noise);
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        self.push(delta.at - began);
        if self.len == WINDOW
            && let Some(slope) = self.slope()
        {
            self.judge(slope, delta);
        }
    }

    fn push(&mut self, at: i64) {
        let newest = (at, (self.smoothed * NANOS_PER_MILLI).clamp(-MAX_DELAY, MAX_DELAY) as i64);
        // The window begins with zeros, which bring nothing.
        self.sums.replace((self.arrivals[self.next], self.delays[self.next]), newest);
        (self.arrivals[self.next], self.delays[self.next]) = newest;
        self.next = if self.next + 1 == WINDOW { 0 } else { self.next + 1 };
        self.len = (self.len + 1).min(WINDOW);
    }

    /// How much of a second the delay grows in one; `None` while all groups arrived at one time.
    fn slope(&self) -> Option<f64> {
        self.sums.slope(WINDOW).map(|nanos_per_micro| nanos_per_micro / 1_000.0)
    }

    fn judge(&mut self, slope: f64, delta: GroupDelta) {
        let trend = f64::from(self.groups) * slope * GAIN;
        if trend > self.threshold {
            // The slope crossed somewhere between the two groups.
            let sent = delta.sent as f64;
            let over_for = self.over_for.map_or(sent / 2.0, |before| before + sent);
            self.over_for = Some(over_for);
            if over_for > SUSTAINED && trend >= self.last_trend {
                self.over_for = Some(0.0);
                self.usage = Usage::Over;
            }
        } else {
            self.over_for = None;
            self.usage = if trend < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.last_trend = trend;
        self.adapt(trend.abs(), delta.at);
    }

    fn adapt(&mut self, trend: f64, at: i64) {
        let before = self.adapted.replace(at).unwrap_or(at);
        if trend > self.threshold + ACCIDENT {
            return;
        }
        let factor = if trend < self.threshold { DOWN } else { UP };
        let millis = ((at - before) as f64 / 1_000.0).clamp(0.0, 100.0);
        let threshold = self.threshold + factor * (trend - self.threshold) * millis;
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
            trend.push(group * 5_000);
        }
        assert_eq!(trend.slope(), Some(0.05), "a quarter of a millisecond each five");
        let mut sums = Sums::default();
        let points = trend.arrivals.into_iter().zip(trend.delays);
        points.for_each(|point| sums.replace((0, 0), point));
        assert_eq!(
            (sums.x, sums.y, sums.xy, sums.xx),
            (trend.sums.x, trend.sums.y, trend.sums.xy, trend.sums.xx)
        );
    }

    #[test]
    fn absurd_times_leave_numbers() {
        let mut trend = Trend::new();
        for group in 0..100 {
            let arrived = if group % 3 == 0 { 0 } else { 9_000_000_000 };
            trend.add(GroupDelta { sent: 0, arrived, at: 5 });
            trend.add(GroupDelta { sent: 9_000_000_000, arrived: 0, at: -arrived });
        }
        assert!(trend.threshold.is_finite() && trend.smoothed.is_finite() && trend.last_trend.is_finite());
    }
}
