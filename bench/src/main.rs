//! What forwarding, joining and keeping peers costs, beside the least it can cost on the same machine.
//!
//! Each figure is CPU time of one thread, measured in turn with a floor that does the same job by the shortest way:
//! only the ratio says something, since machines differ by factors. Nothing here decides a test.

mod call;
mod clock;
mod floor;
mod forward;
mod heap;
mod join;
mod limits;
mod measure;
mod peers;
mod publisher;
mod report;
mod reporters;
mod sinks;
mod system;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use forward::Plan;
use report::Report;
use sinks::SinkKind;

/// What forwarding, joining and keeping peers costs, beside the least it can cost on the same machine
#[derive(Parser)]
#[command(name = "cargo xtask bench", max_term_width = 100)]
struct Cli {
    /// Which parts; all if none is named
    parts: Vec<Part>,
    /// Only forwarding cases whose name, place, N and m-lines, as the table has them, contain this
    #[arg(long, default_value = "")]
    only: String,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Also build and run the program in this directory that measures a floor by itself (minutes at first)
    #[arg(long, value_name = "DIRECTORY")]
    limits: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A forwarded packet, over sockets
    Sockets,
    /// A forwarded packet, in memory
    Memory,
    /// What rate control adds to a forwarded packet, in memory
    Rate,
    /// A join
    Join,
    /// Memory kept by idle peers
    Peers,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let wants = |part| cli.parts.is_empty() || cli.parts.contains(&part);
    let _ = weir_udp::raise_file_limit(); // every subscriber is a socket: too few are told when they are opened
    let mut report = Report::default();
    // First, while the process is small.
    if wants(Part::Peers) {
        report.memories = Some(peers::measure());
    }
    if wants(Part::Join) {
        report.joins = Some(join::measure());
    }
    let mut plans = Vec::new();
    if wants(Part::Sockets) {
        plans.extend(over_sockets());
    }
    if wants(Part::Memory) {
        plans.extend(in_memory());
    }
    plans.retain(|plan| plan.to_string().contains(&cli.only));
    for plan in plans {
        eprintln!("{plan}");
        report.forward.push(forward::measure(plan));
    }
    if wants(Part::Rate) {
        let mut plans = vec![Plan::frames(100), Plan::singles(100), Plan::audio(40)];
        plans.retain(|plan| plan.to_string().contains(&cli.only));
        for plan in plans {
            eprintln!("{plan}, with and without rate control");
            report.rates.push(forward::measure_rate_control(plan));
        }
    }
    if cli.json {
        println!("{:#}", report.to_json());
    } else {
        report.print();
    }
    match &cli.limits {
        Some(directory) => limits::run(directory),
        None => Ok(()),
    }
}

fn over_sockets() -> Vec<Plan> {
    let mut plans = Vec::new();
    for subscribers in [1, 10, 100, 1_000, 2_000] {
        plans.push(Plan::frames(subscribers));
        plans.push(Plan::singles(subscribers));
    }
    for lines in [30, 200] {
        plans.push(Plan { lines, ..Plan::frames(100) });
        plans.push(Plan { lines, ..Plan::singles(100) });
    }
    for plan in [Plan::frames(100), Plan::singles(100)] {
        plans.push(Plan { sinks: Some(SinkKind::Full), ..plan });
    }
    plans.push(Plan::audio(40));
    plans
}

fn in_memory() -> Vec<Plan> {
    let mut plans = Vec::new();
    for subscribers in [1, 10, 100, 1_000, 2_000] {
        plans.push(Plan { sinks: None, ..Plan::frames(subscribers) });
    }
    for lines in [30, 200] {
        plans.push(Plan { lines, sinks: None, ..Plan::frames(100) });
    }
    plans.push(Plan { sinks: None, ..Plan::h264_frames(100) });
    plans.push(Plan { sinks: None, ..Plan::singles(100) });
    plans.push(Plan { sinks: None, ..Plan::audio(40) });
    plans
}
