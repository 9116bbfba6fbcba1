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
    /// Of the newest groups, arrival in milliseconds since the first group, and smoothed delay in milliseconds.
    arrivals: [f64; WINDOW],
    delays: [f64; WINDOW],
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

impl Trend {
    pub fn new() -> Self {
        Self {
            arrivals: [0.0; WINDOW],
            delays: [0.0; WINDOW],
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
        self.push((delta.at - began) as f64 / 1_000.0);
        if self.len == WINDOW
            && let Some(slope) = self.slope()
        {
            self.judge(slope, delta);
        }
    }

    fn push(&mut self, at: f64) {
        (self.arrivals[self.next], self.delays[self.next]) = (at, self.smoothed);
        self.next = (self.next + 1) % WINDOW;
        self.len = (self.len + 1).min(WINDOW);
    }

    /// Least squares through a full window; `None` while all groups arrived at one time. In lanes, since this is done for
    /// each group.
    fn slope(&self) -> Option<f64> {
        const LANES: usize = 4;
        const { assert!(WINDOW.is_multiple_of(LANES)) };
        let sum = |lanes: [f64; LANES]| lanes.iter().sum::<f64>();
        let (arrivals, delays) = (self.arrivals.as_chunks::<LANES>().0, self.delays.as_chunks::<LANES>().0);
        let (mut xs, mut ys) = ([0.0; LANES], [0.0; LANES]);
        for (arrivals, delays) in arrivals.iter().zip(delays) {
            for lane in 0..LANES {
                xs[lane] += arrivals[lane];
                ys[lane] += delays[lane];
            }
        }
        let (x_mean, y_mean) = (sum(xs) / WINDOW as f64, sum(ys) / WINDOW as f64);
        let (mut over, mut under) = ([0.0; LANES], [0.0; LANES]);
        for (arrivals, delays) in arrivals.iter().zip(delays) {
            for lane in 0..LANES {
                let x = arrivals[lane] - x_mean;
                over[lane] += x * (delays[lane] - y_mean);
                under[lane] += x * x;
            }
        }
        let under = sum(under);
        (under > 0.0).then(|| sum(over) / under)
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
