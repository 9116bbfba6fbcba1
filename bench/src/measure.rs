//! Runs of two sides in turn, and what they come to.

use crate::clock;
use crate::heap;

/// Measured rounds; one more goes before them to warm up.
const ROUNDS: usize = 11;

/// What one run cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub cpu_ns: u64,
    pub units: u64,
    pub allocations: u64,
    overhead_ns: u64,
}

impl Cost {
    pub fn new() -> Self {
        Self { overhead_ns: clock::overhead_ns(), ..Self::default() }
    }

    /// Does `work` on the clock.
    pub fn charge<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let allocations = heap::calls();
        let start = clock::thread_cpu_ns();
        let result = work();
        self.cpu_ns += (clock::thread_cpu_ns() - start).saturating_sub(self.overhead_ns);
        self.allocations += heap::calls() - allocations;
        result
    }

    fn per_unit(self) -> f64 {
        self.cpu_ns as f64 / self.units.max(1) as f64
    }
}

/// Nanoseconds a unit over the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub median: f64,
    pub least: f64,
}

impl Figure {
    fn of(runs: &[Cost]) -> Self {
        let mut sorted: Vec<f64> = runs.iter().map(|run| run.per_unit()).collect();
        sorted.sort_by(f64::total_cmp);
        Self { median: sorted[sorted.len() / 2], least: sorted[0] }
    }
}

/// Ours beside the floor.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    pub ours: Figure,
    pub floor: Figure,
    /// The median of the rounds' ratios: what disturbs a round disturbs both of its runs.
    pub ratio: f64,
    /// The median of the differences in the half of the rounds that took least: a neighbour on the same core makes everything
    /// half as dear again, differences too, and comes and goes.
    pub difference: f64,
    /// Of all our measured runs together.
    pub allocations: u64,
    pub units: u64,
}

/// Runs both in turn, round after round, so that a slow spell of the machine meets both.
pub fn compare(ours: impl FnMut() -> Cost, floor: impl FnMut() -> Cost) -> Comparison {
    compare_often(ROUNDS, ours, floor)
}

/// The same in so many rounds: a difference that is small beside its parts takes more of them.
pub fn compare_often(
    rounds: usize,
    mut ours: impl FnMut() -> Cost,
    mut floor: impl FnMut() -> Cost,
) -> Comparison {
    let (mut our_runs, mut floor_runs) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let pair = if round % 2 == 0 {
            let first = ours();
            (first, floor())
        } else {
            let first = floor();
            (ours(), first)
        };
        if round > 0 {
            our_runs.push(pair.0);
            floor_runs.push(pair.1);
        }
    }
    let rounds = our_runs.iter().zip(&floor_runs);
    let mut rounds: Vec<_> = rounds.map(|(ours, floor)| (ours.per_unit(), floor.per_unit())).collect();
    rounds.sort_by(|one, other| (one.0 + one.1).total_cmp(&(other.0 + other.1)));
    let ratio = median(rounds.iter().map(|(ours, floor)| ours / floor));
    let quiet = &rounds[..rounds.len().div_ceil(2)];
    let difference = median(quiet.iter().map(|(ours, floor)| ours - floor));
    Comparison {
        ours: Figure::of(&our_runs),
        floor: Figure::of(&floor_runs),
        ratio,
        difference,
        allocations: our_runs.iter().map(|run| run.allocations).sum(),
        units: our_runs.iter().map(|run| run.units).sum(),
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_run_as_often_and_the_first_round_does_not_count() {
        let side = |ns: u64| {
            let mut runs = 0;
            move || {
                runs += 1;
                let cpu_ns = if runs == 1 { 1_000_000 } else { ns };
                Cost { cpu_ns, units: 10, allocations: 1, ..Cost::default() }
            }
        };
        let found = compare(side(260), side(200));
        assert_eq!((found.ours.median, found.ours.least, found.floor.median), (26.0, 26.0, 20.0));
        assert_eq!((found.ratio, found.difference), (1.3, 6.0));
        assert_eq!((found.allocations, found.units), (ROUNDS as u64, 10 * ROUNDS as u64));
    }
}
