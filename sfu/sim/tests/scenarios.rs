//! What rate control must show, over a fixed set of seeds. Everything is virtual: a figure that changes is a change of
//! the code.

use std::ops::RangeInclusive;
use std::time::Duration;

use weir_sim::figures::Figures;
use weir_sim::{scenario, world};

const SEEDS: RangeInclusive<u64> = 1..=5;

fn play(name: &str) -> Vec<(u64, Figures)> {
    play_with(name, SEEDS)
}

fn play_with(name: &str, seeds: RangeInclusive<u64>) -> Vec<(u64, Figures)> {
    let scenario = scenario::all().into_iter().find(|one| one.name == name).expect("a scenario of that name");
    seeds.map(|seed| (seed, world::play(&scenario, seed).figures(&scenario))).collect()
}

fn median<T: PartialOrd + Copy>(figures: &[(u64, Figures)], figure: impl Fn(&Figures) -> T) -> T {
    let mut values: Vec<_> = figures.iter().map(|(_, one)| figure(one)).collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("figures are numbers"));
    values[values.len() / 2]
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// [RFC 8867 §5.1](https://www.rfc-editor.org/rfc/rfc8867#section-5.1).
#[test]
fn follows_a_line_that_changes() {
    let figures = play("variable");
    assert!(median(&figures, |one| one.utilisation) >= 0.9, "{figures:?}");
    assert!(median(&figures, |one| one.rise) <= Some(millis(3_000)), "{figures:?}");
    for (seed, figures) in figures {
        assert!(figures.utilisation >= 0.88, "seed {seed}: {figures:?}");
        assert!(figures.queueing_p95 <= millis(50), "seed {seed}: {figures:?}");
        // Some of a hundred take as long, at any rounding of times.
        assert!(figures.rise <= Some(millis(5_500)), "seed {seed}: {figures:?}");
        assert!(figures.fall <= Some(millis(1_000)), "seed {seed}: {figures:?}");
        assert!(figures.loss < 0.01, "seed {seed}: {figures:?}");
    }
}

/// [RFC 8867 §5.3](https://www.rfc-editor.org/rfc/rfc8867#section-5.3).
#[test]
fn follows_a_line_while_feedback_waits_on_another() {
    let figures = play("feedback-full");
    assert!(median(&figures, |one| one.rise) <= Some(millis(3_000)), "{figures:?}");
    for (seed, figures) in figures {
        assert!(figures.utilisation >= 0.85, "seed {seed}: {figures:?}");
        assert!(figures.queueing_p95 <= millis(50), "seed {seed}: {figures:?}");
        assert!(figures.fall <= Some(millis(1_000)) && figures.loss < 0.01, "seed {seed}: {figures:?}");
    }
}

#[test]
fn a_collapse_takes_no_audio_and_is_made_good() {
    for (seed, figures) in play("collapse") {
        assert!(figures.audio_loss == 0.0, "seed {seed}: {figures:?}");
        assert!(figures.fall <= Some(millis(1_000)), "seed {seed}: {figures:?}");
        assert!(figures.rise <= Some(millis(5_000)), "seed {seed}: {figures:?}");
        assert!(figures.queueing_p95 <= millis(50), "seed {seed}: {figures:?}");
    }
}

#[test]
fn a_call_begins_at_what_the_line_carries() {
    let figures = play("start");
    assert!(median(&figures, |one| one.known) <= Some(millis(1_000)), "{figures:?}");
    for (seed, figures) in figures {
        assert!(figures.rise <= Some(millis(2_000)), "seed {seed}: {figures:?}");
        assert!(figures.loss == 0.0, "seed {seed}: {figures:?}");
    }
    for (seed, figures) in play("start-poor") {
        assert!(figures.loss == 0.0 && figures.audio_loss == 0.0, "seed {seed}: {figures:?}");
    }
}

/// What is sent is less than what the line carries most of the time; the rest is found out by padding. A drop must not
/// be taken for the little that is sent, and late machines not for a full line.
#[test]
fn layers_follow_the_line_without_swinging() {
    for name in ["layers", "layers-busy"] {
        for (seed, figures) in play(name) {
            assert!(figures.utilisation >= 0.95, "{name}, seed {seed}: {figures:?}");
            assert!(figures.known <= Some(millis(3_000)), "{name}, seed {seed}: {figures:?}");
            assert!(figures.loss < 0.01 && figures.layer_changes <= 6.0, "{name}, seed {seed}: {figures:?}");
        }
    }
}

#[test]
fn padding_finds_out_what_nothing_is_sent_at() {
    for name in ["trickle", "trickle-busy"] {
        let figures = play(name);
        assert!(median(&figures, |one| one.known) <= Some(millis(2_500)), "{name}: {figures:?}");
        for (seed, figures) in figures {
            assert!(figures.known <= Some(millis(5_000)), "{name}, seed {seed}: {figures:?}");
            assert!(figures.loss < 0.01, "{name}, seed {seed}: {figures:?}");
        }
    }
}

#[test]
fn a_pause_of_the_receivers_program_costs_little() {
    let figures = play("app-pauses");
    assert!(figures.iter().all(|(_, one)| one.utilisation >= 0.85 && one.loss == 0.0), "{figures:?}");
}

#[test]
fn lost_feedback_is_no_lost_rate() {
    let figures = play("feedback-loss");
    assert!(median(&figures, |one| one.utilisation) >= 0.88, "{figures:?}");
    assert!(figures.iter().all(|(_, one)| one.fall <= Some(millis(1_500)) && one.loss < 0.01), "{figures:?}");
}

#[test]
fn a_gap_is_bridged() {
    for name in ["feedback-gap", "hand-over"] {
        let figures = play(name);
        assert!(figures.iter().all(|(_, one)| one.rise <= Some(millis(3_500))), "{name}: {figures:?}");
    }
}

#[test]
fn loss_that_the_rate_does_not_cause_costs_little_rate() {
    assert!(median(&play("loss"), |one| one.utilisation) >= 0.88);
    assert!(median(&play("loss-bursts"), |one| one.utilisation) >= 0.82);
    assert!(median(&play("reordering"), |one| one.utilisation) >= 0.88);
}

#[test]
fn a_queue_too_short_for_delay_is_seen_by_its_losses() {
    let figures = play("short-queue");
    assert!(figures.iter().all(|(_, one)| one.loss < 0.03 && one.audio_loss < 0.015), "{figures:?}");
    assert!(median(&figures, |one| one.utilisation) >= 0.88, "{figures:?}");
}

/// [RFC 8867 §5.2, §5.4, §5.5, §5.8](https://www.rfc-editor.org/rfc/rfc8867#section-5.4).
#[test]
fn equal_flows_get_equal_shares() {
    for name in ["two-flows", "three-flows", "variable-two", "distances", "pause"] {
        let figures = play_with(name, 1..=41); // fairness scatters
        assert!(median(&figures, |one| one.fairness) >= Some(0.88), "{name}: {figures:?}");
        assert!(median(&figures, |one| one.utilisation) >= 0.9, "{name}: {figures:?}");
        assert!(figures.iter().all(|(_, one)| one.loss < 0.01), "{name}: {figures:?}");
    }
}

/// [RFC 8867 §5.6](https://www.rfc-editor.org/rfc/rfc8867#section-5.6): who fills the queue does not starve us.
#[test]
fn half_a_share_is_left_beside_a_greedy_flow() {
    let figures = play("tcp-long");
    assert!(median(&figures, |one| one.utilisation) >= 0.45, "{figures:?}");
}

#[test]
fn the_same_seed_gives_the_same_figures_and_another_others() {
    let scenario = &scenario::all()[0];
    let play = |seed| format!("{:?}", world::play(scenario, seed).figures(scenario));
    assert_eq!(play(7), play(7));
    assert_ne!(play(7), play(8));
}
