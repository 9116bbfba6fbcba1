//! `cargo xtask sim`: plays the scenarios over many seeds and prints a table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use weir_sim::figures::{Figures, Recording};
use weir_sim::plot;
use weir_sim::scenario::{self, Scenario};
use weir_sim::world;

/// Plays rate control's scenarios in virtual time
#[derive(Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim", max_term_width = 100)]
struct Cli {
    /// Only scenarios whose names contain one of these
    filters: Vec<String>,
    /// How many seeds
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print what the estimators thought each 100 ms, for the first seed
    #[arg(long)]
    trace: bool,
    /// Draw one scenario, for the first seed
    #[arg(long, value_name = "SCENARIO", conflicts_with_all = ["filters", "trace"])]
    plot: Option<String>,
    /// Where the picture goes
    #[arg(long, value_name = "FILE.svg", default_value = "sim.svg")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(name) = &cli.plot {
        return draw(name, cli.seed, &cli.out);
    }
    let chosen = |scenario: &Scenario| {
        cli.filters.is_empty() || cli.filters.iter().any(|filter| scenario.name.contains(filter))
    };
    let scenarios: Vec<_> = scenario::all().into_iter().filter(chosen).collect();
    ensure!(!scenarios.is_empty() && cli.seeds > 0, "nothing to play");
    if cli.trace {
        for scenario in &scenarios {
            trace(scenario, &world::play(scenario, cli.seed));
        }
        return Ok(());
    }
    println!("{} seeds from {}; each figure is median / worst", cli.seeds, cli.seed);
    println!(
        "{:<16} {:>13} {:>13} {:>13} {:>13} {:>13} {:>15} {:>13} {:>11} {:>8} {:>8}",
        "scenario",
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
    for scenario in &scenarios {
        let play = |seed| world::play(scenario, seed).figures(scenario);
        let figures: Vec<_> = (cli.seed..cli.seed + cli.seeds).map(play).collect();
        row(scenario, &figures);
    }
    println!();
    for scenario in &scenarios {
        println!("{:<16} {}", scenario.name, scenario.about);
    }
    Ok(())
}

fn draw(name: &str, seed: u64, out: &Path) -> Result<()> {
    let mut scenarios = scenario::all();
    let names = scenarios.iter().map(|one| one.name).collect::<Vec<_>>().join(", ");
    scenarios.retain(|one| one.name == name);
    let scenario = scenarios.first().with_context(|| format!("no scenario {name}; there are {names}"))?;
    let picture = plot::svg(scenario, seed, &world::play(scenario, seed));
    std::fs::write(out, picture).with_context(|| format!("writing {}", out.display()))?;
    println!("{}", out.display());
    Ok(())
}

fn row(scenario: &Scenario, figures: &[Figures]) {
    let low = |figure: &dyn Fn(&Figures) -> Option<f64>, digits| spread(figures, figure, digits, true);
    let high = |figure: &dyn Fn(&Figures) -> Option<f64>, digits| spread(figures, figure, digits, false);
    let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "{:<16} {:>13} {:>13} {:>13} {:>13} {:>13} {:>15} {:>13} {:>11} {:>8} {:>8}",
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
fn spread(
    figures: &[Figures],
    figure: &dyn Fn(&Figures) -> Option<f64>,
    digits: usize,
    low_is_worst: bool,
) -> String {
    let mut values: Vec<_> = figures.iter().filter_map(figure).collect();
    values.sort_by(f64::total_cmp);
    if low_is_worst {
        values.reverse();
    }
    let Some(worst) = values.last() else { return "-".into() };
    format!("{:.digits$} / {:.digits$}", values[values.len() / 2], worst)
}

fn trace(scenario: &Scenario, recording: &Recording) {
    println!("# {}: {}", scenario.name, scenario.about);
    println!(
        "at_s\tflow\tline\tmedia\ttarget\tsustains\tbecause\tqueue_ms\trtt_ms\tacknowledged\tcapacity\tloss"
    );
    for sample in &recording.samples {
        let thought = &sample.thought;
        let kbps = |rate: weir_rate::BitRate| rate.bps() / 1_000;
        let span = sample.at.saturating_sub(Duration::from_millis(200))..sample.at;
        println!(
            "{:.1}\t{}\t{}\t{}\t{}\t{}\t{:?}\t{}\t{}\t{}\t{}\t{:.3}",
            sample.at.as_secs_f64(),
            sample.flow,
            kbps(sample.line),
            kbps(recording.media(Some(sample.flow), &span)),
            kbps(thought.target),
            kbps(thought.sustainable),
            thought.because,
            thought.queue.as_millis(),
            thought.round_trip.as_millis(),
            thought.acknowledged.map_or(0, kbps),
            thought.capacity.map_or(0, kbps),
            thought.loss,
        );
    }
}
