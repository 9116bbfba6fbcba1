//! What was skipped of an encoding: packets that are not offered, while others before them may yet be.

/// Two stretches: what was skipped since the newest key frame that is expected, and before it. Within a stretch all counts
/// as skipped, from the lowest to the highest number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Skipped {
    before: Option<Stretch>,
    since: Option<Stretch>,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    low: u64,
    high: u64,
}

impl Stretch {
    fn with(stretch: Option<Self>, other: Self) -> Self {
        stretch
            .map_or(other, |Self { low, high }| Self { low: low.min(other.low), high: high.max(other.high) })
    }

    fn is_between(&self, forwarded: u64, next: u64) -> bool {
        forwarded < self.high && next > self.low
    }
}

impl Skipped {
    pub fn add(&mut self, sequence: u64) {
        self.since = Some(Stretch::with(self.since, Stretch { low: sequence, high: sequence }));
    }

    /// A key frame will be offered. If the encoding goes on with it, what was skipped before it is no matter.
    pub fn expect_key_frame(&mut self) {
        if let Some(since) = self.since.take() {
            self.before = Some(Stretch::with(self.before, since));
        }
    }

    /// The encoding goes on with a key frame.
    pub fn begin(&mut self, sequence: u64) {
        for stretch in [&mut self.before, &mut self.since] {
            *stretch = stretch.filter(|stretch| stretch.high > sequence);
        }
    }

    /// Whether `next` cannot follow upon `forwarded`.
    #[inline]
    pub fn is_between(&self, forwarded: u64, next: u64) -> bool {
        [self.before, self.since].iter().flatten().any(|stretch| stretch.is_between(forwarded, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_something_skipped_does_not_follow() {
        let mut skipped = Skipped::default();
        skipped.add(105);
        skipped.add(107);
        assert!(!skipped.is_between(100, 104));
        assert!(skipped.is_between(100, 108));
        assert!(!skipped.is_between(107, 108));
    }

    #[test]
    fn a_key_frame_makes_good_what_was_skipped_before_it_and_nothing_after() {
        let mut skipped = Skipped::default();
        skipped.add(10);
        skipped.expect_key_frame();
        skipped.add(110);
        assert!(skipped.is_between(9, 100), "as long as nothing began with it");
        skipped.begin(100);
        assert!(!skipped.is_between(100, 104));
        assert!(skipped.is_between(104, 111));
        skipped.begin(120);
        assert!(!skipped.is_between(104, 121));
    }
}
