//! Tables of figures: a row for each scenario of flows, one for each step of a call.

use std::ops::Range;
use std::time::Duration;

use weir_sim::call::figures::{Figures as CallFigures, Freeze};
use weir_sim::call::scenario::Call;
use weir_sim::figures::Figures;
use weir_sim::scenario::Scenario;
use weir_sim::{call, world};

/// What a line drops so soon after it changed nobody can prevent.
const AT_ONCE: Duration = Duration::from_millis(500);

pub fn flows(scenarios: &[Scenario], seeds: &Range<u64>) {
    if scenarios.is_empty() {
        return;
    }
    println!(
        "{:<17} {:>13} {:>13} {:>13} {:>13} {:>13} {:>15} {:>13} {:>11} {:>8} {:>8}",
        "flows",
        "used %",
        "queue p95 ms",
        "rise s",
        "known s",
        "fall s",
        "loss %",
        "audio loss %",
        "fairness",
        "padding",
        "changes"
    );
    for scenario in scenarios {
        let figures: Vec<_> =
            seeds.clone().map(|seed| world::play(scenario, seed).figures(scenario)).collect();
        row(scenario, &figures);
    }
}

fn row(scenario: &Scenario, figures: &[Figures]) {
    let low = |figure: &dyn Fn(&Figures) -> Option<f64>, digits| spread(figures, figure, digits, true);
    let high = |figure: &dyn Fn(&Figures) -> Option<f64>, digits| spread(figures, figure, digits, false);
    let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "{:<17} {:>13} {:>13} {:>13} {:>13} {:>13} {:>15} {:>13} {:>11} {:>8} {:>8}",
        scenario.name,
        low(&|one| Some(one.utilisation * 100.0), 1),
        high(&|one| Some(millis(one.queueing_p95)), 0),
        high(&|one| one.rise.map(|time| time.as_secs_f64()), 2),
        high(&|one| one.known.map(|time| time.as_secs_f64()), 2),
        high(&|one| one.fall.map(|time| time.as_secs_f64()), 2),
        high(&|one| Some(one.loss * 100.0), 2),
        high(&|one| Some(one.audio_loss * 100.0), 2),
        low(&|one| one.fairness, 2),
        high(&|one| Some(one.padding * 100.0), 0),
        high(&|one| (one.layer_changes > 0.0).then_some(one.layer_changes), 0),
    );
}

/// Median and worst.
fn spread<T>(figures: &[T], figure: &dyn Fn(&T) -> Option<f64>, digits: usize, low_is_worst: bool) -> String {
    let mut values: Vec<_> = figures.iter().filter_map(figure).collect();
    values.sort_by(f64::total_cmp);
    if low_is_worst {
        values.reverse();
    }
    let Some(worst) = values.last() else { return "-".into() };
    format!("{:.digits$} / {:.digits$}", values[values.len() / 2], worst)
}

/// Answers what should not have been.
pub fn calls(calls: &[Call], seeds: &Range<u64>) -> Vec<String> {
    let mut faults = Vec::new();
    if calls.is_empty() {
        return faults;
    }
    println!(
        "\n{:<17} {:>5} {:>12} {:>12} {:>11} {:>8} {:>12} {:>12} {:>8} {:>8} {:>8} {:>10} {:>10} {:>10} {:>10} {:>12}",
        "calls",
        "kbps",
        "reached s",
        "picture s",
        "layer",
        "freezes",
        "frozen s",
        "longest s",
        "small",
        "changes",
        "audio",
        "after .5 s",
        "unheard",
        "dropped",
        "queue p95",
        "age p95",
    );
    for call in calls {
        let mut runs = Vec::new();
        for seed in seeds.clone() {
            let recording = call::play::play(call, seed);
            let about = |fault: &String| format!("{}, seed {seed}: {fault}", call.name);
            faults.extend(recording.faults.iter().map(about));
            runs.push(recording.figures(call));
        }
        for (at, step) in call.steps.iter().enumerate() {
            let name = if at == 0 { call.name } else { "" };
            let figures: Vec<_> = runs.iter().map(|run| run[at].clone()).collect();
            println!("{name:<17} {:>5} {}", step.kbps, call_row(&figures));
        }
    }
    faults
}

fn call_row(figures: &[CallFigures]) -> String {
    let high = |figure: &dyn Fn(&CallFigures) -> f64, digits| {
        spread(figures, &|one| Some(figure(one)), digits, false)
    };
    // What never came about is worse than any time.
    let time = |time: Option<Duration>| time.map_or(f64::INFINITY, |time| time.as_secs_f64());
    let frozen = |freezes: &[Freeze]| freezes.iter().map(Freeze::length).sum::<Duration>().as_secs_f64();
    let longest =
        |freezes: &[Freeze]| freezes.iter().map(Freeze::length).max().unwrap_or_default().as_secs_f64();
    let mut layers: Vec<_> = figures.iter().map(|one| one.last.map(|(least, _)| least)).collect();
    layers.sort_unstable();
    let layer = |layer: Option<(u8, u8)>| {
        layer.map_or("none".into(), |(encoding, temporal)| format!("{encoding}.{temporal}"))
    };
    format!(
        "{:>12} {:>12} {:>11} {:>8} {:>12} {:>12} {:>8} {:>8} {:>8} {:>10} {:>10} {:>10} {:>10} {:>12}",
        high(&|one| time(one.reached), 2),
        high(&|one| time(one.first_picture), 2),
        format!("{} / {}", layer(layers[layers.len() / 2]), layer(layers[0])),
        high(&|one| one.freezes.len() as f64, 0),
        high(&|one| frozen(&one.freezes), 1),
        high(&|one| longest(&one.freezes), 1),
        high(&|one| one.small_freezes.len() as f64, 0),
        high(&|one| one.changes, 0),
        high(&|one| one.audio_dropped.len() as f64, 0),
        high(&|one| one.audio_dropped.iter().filter(|at| **at > AT_ONCE).count() as f64, 0),
        high(&|one| one.unheard.len() as f64, 0),
        high(&|one| one.video_dropped as f64, 0),
        high(&|one| one.queued_p95.as_secs_f64() * 1_000.0, 0),
        high(&|one| one.age_p95.as_secs_f64() * 1_000.0, 0),
    )
}
