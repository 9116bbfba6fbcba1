//! `cargo xtask sim`: plays the scenarios over many seeds and prints tables.

mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use weir_sim::figures::Recording;
use weir_sim::scenario::{self, Scenario};
use weir_sim::world;
use weir_sim::{call, plot};

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
    /// Print what the estimators of flows thought each 100 ms, and what the shards of calls log, for the first seed
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
    let chosen = |name: &str| {
        cli.filters.is_empty() || cli.filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let scenarios: Vec<_> = scenario::all().into_iter().filter(|one| chosen(one.name)).collect();
    let calls: Vec<_> = call::scenario::all().into_iter().filter(|one| chosen(one.name)).collect();
    ensure!(scenarios.len() + calls.len() > 0 && cli.seeds > 0, "nothing to play");
    if cli.trace {
        for scenario in &scenarios {
            trace(scenario, &world::play(scenario, cli.seed));
        }
        tracing_subscriber::fmt()
            .with_env_filter("weir_core=trace,weir_sim=trace")
            .with_ansi(false)
            .without_time()
            .init();
        for call in &calls {
            println!("# {}: {}", call.name, call.about);
            call::play::play(call, cli.seed);
        }
        return Ok(());
    }
    println!("{} seeds from {}; each figure is median / worst", cli.seeds, cli.seed);
    let seeds = cli.seed..cli.seed + cli.seeds;
    table::flows(&scenarios, &seeds);
    let faults = table::calls(&calls, &seeds);
    println!();
    let flows = scenarios.iter().map(|one| (one.name, one.about));
    for (name, about) in flows.chain(calls.iter().map(|one| (one.name, one.about))) {
        println!("{name:<17} {about}");
    }
    ensure!(faults.is_empty(), "{} faults, the first: {}", faults.len(), faults[0]);
    Ok(())
}

fn draw(name: &str, seed: u64, out: &Path) -> Result<()> {
    let (scenarios, calls) = (scenario::all(), call::scenario::all());
    let picture = if let Some(scenario) = scenarios.iter().find(|one| one.name == name) {
        plot::svg(scenario, seed, &world::play(scenario, seed))
    } else if let Some(call) = calls.iter().find(|one| one.name == name) {
        call::plot::svg(call, seed, &call::play::play(call, seed))
    } else {
        let names = scenarios.iter().map(|one| one.name).chain(calls.iter().map(|one| one.name));
        bail!("no scenario {name}; there are {}", names.collect::<Vec<_>>().join(", "));
    };
    std::fs::write(out, picture).with_context(|| format!("writing {}", out.display()))?;
    println!("{}", out.display());
    Ok(())
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
