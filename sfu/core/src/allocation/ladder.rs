//! The steps of quality of one publication, each with what it costs.

use weir_units::media::{Layer, MAX_ENCODINGS};

use super::rates::{Costs, MAX_TEMPORAL};

/// Steps of a ladder: all temporal layers of the lowest picture, and the two best of each larger one.
pub(super) const MAX_RUNGS: usize = MAX_TEMPORAL + 2 * (MAX_ENCODINGS - 1);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rung {
    pub spatial: u8,
    pub temporal: u8,
    /// Bits a second, of the whole picture.
    pub bps: u64,
}

/// From the least to the best; each costs more than the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ladder {
    rungs: [Rung; MAX_RUNGS],
    len: usize,
}

impl Ladder {
    /// Of `pictures`, the spatial layers that are sent (ascending), each with what it costs with all that it needs.
    /// `detail` is a shared screen, where sharpness comes before motion.
    pub fn new(pictures: impl Iterator<Item = (u8, Costs)>, detail: bool) -> Self {
        let mut ladder = Self::default();
        let mut is_least = true;
        for (spatial, costs) in pictures.take(MAX_ENCODINGS) {
            let whole = costs[MAX_TEMPORAL - 1];
            let top = costs.iter().position(|bps| *bps == whole).unwrap_or(0);
            // Large pictures at a quarter of their frames look broken, but a shared screen does not.
            let first = if is_least || detail { 0 } else { top.saturating_sub(1) };
            is_least = false;
            for (temporal, bps) in costs.into_iter().enumerate().take(top + 1).skip(first) {
                ladder.push(Rung { spatial, temporal: temporal as u8, bps });
            }
            if detail {
                ladder.thin();
            }
        }
        ladder
    }

    /// What costs no less than the new one is no step towards it.
    fn push(&mut self, rung: Rung) {
        while self.len > 0 && self.rungs[self.len - 1].bps >= rung.bps {
            self.len -= 1;
        }
        if self.len < MAX_RUNGS {
            self.rungs[self.len] = rung;
            self.len += 1;
        }
    }

    /// Of each picture but the largest so far, the slowest only.
    fn thin(&mut self) {
        let Some(largest) = self.rungs().last().map(|rung| rung.spatial) else { return };
        let mut kept = 0;
        for at in 0..self.len {
            let rung = self.rungs[at];
            let is_slowest = kept == 0 || self.rungs[kept - 1].spatial != rung.spatial;
            if rung.spatial == largest || is_slowest {
                self.rungs[kept] = rung;
                kept += 1;
            }
        }
        self.len = kept;
    }

    pub fn rungs(&self) -> &[Rung] {
        &self.rungs[..self.len]
    }

    /// The best rung that is within `wish`; the least if none is.
    pub fn top(&self, wish: Layer) -> usize {
        let within = |rung: &Rung| rung.spatial <= wish.spatial && rung.temporal <= wish.temporal;
        self.rungs().iter().rposition(within).unwrap_or(0)
    }

    /// The rung that costs what is sent when this was granted: the best within it.
    pub fn at(&self, granted: Layer) -> Option<usize> {
        let within = |rung: &Rung| {
            rung.spatial < granted.spatial
                || rung.spatial == granted.spatial && rung.temporal <= granted.temporal
        };
        self.rungs().iter().rposition(within)
    }

    /// What to grant for a rung: the best temporal layer stands for all there are, known or not.
    pub fn layer(&self, rung: usize) -> Layer {
        let Rung { spatial, temporal, .. } = self.rungs[rung];
        let is_whole =
            self.rungs().iter().all(|other| other.spatial != spatial || other.temporal <= temporal);
        Layer { spatial, temporal: if is_whole { u8::MAX } else { temporal } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rungs(ladder: &Ladder) -> Vec<(u8, u8, u64)> {
        ladder.rungs().iter().map(|rung| (rung.spatial, rung.temporal, rung.bps)).collect()
    }

    /// Three pictures in three temporal layers, in kbit/s.
    const PICTURES: [(u8, Costs); 3] =
        [(0, [60, 90, 150, 150]), (1, [200, 300, 500, 500]), (2, [800, 1_200, 2_000, 2_000])];

    #[test]
    fn motion_has_the_slow_steps_of_the_smallest_picture_only() {
        let ladder = Ladder::new(PICTURES.into_iter(), false);
        let wanted =
            [(0, 0, 60), (0, 1, 90), (0, 2, 150), (1, 1, 300), (1, 2, 500), (2, 1, 1_200), (2, 2, 2_000)];
        assert_eq!(rungs(&ladder), wanted);
        assert_eq!(ladder.layer(6), Layer { spatial: 2, temporal: u8::MAX });
        assert_eq!(ladder.layer(5), Layer { spatial: 2, temporal: 1 });
        assert_eq!(ladder.top(Layer::MAX), 6);
        assert_eq!(ladder.top(Layer { spatial: 1, temporal: u8::MAX }), 4);
        assert_eq!(ladder.at(ladder.layer(4)), Some(4));
        assert_eq!(ladder.at(ladder.layer(3)), Some(3));
    }

    #[test]
    fn a_screen_grows_sharp_before_it_grows_smooth() {
        let ladder = Ladder::new(PICTURES.into_iter(), true);
        assert_eq!(rungs(&ladder), [(0, 0, 60), (1, 0, 200), (2, 0, 800), (2, 1, 1_200), (2, 2, 2_000)]);
    }

    #[test]
    fn what_costs_more_and_is_less_is_no_step() {
        let ladder = Ladder::new([(0, [500; 4]), (1, [300; 4])].into_iter(), false);
        assert_eq!(rungs(&ladder), [(1, 0, 300)]);
        assert_eq!(ladder.top(Layer { spatial: 0, temporal: 0 }), 0, "the least there is");
        assert_eq!(ladder.at(Layer { spatial: 0, temporal: 0 }), None);
    }

    #[test]
    fn nothing_sent_is_no_ladder() {
        assert!(Ladder::new(std::iter::empty(), false).rungs().is_empty());
    }
}
