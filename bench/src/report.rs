//! What was found, as a table to read or as JSON.

use serde_json::{Value, json};

use crate::forward::{RateRow, Row};
use crate::join::Joins;
use crate::measure::Comparison;
use crate::peers::{Memories, Memory};

/// Goals, as ratios or absolute figures. They are shown beside what was found and decide nothing.
const FORWARD_RATIO: f64 = 1.3;
const RATE_NS: f64 = 150.0;
const JOIN_MEDIA_US: f64 = 500.0;
const JOIN_SIGNALLING_US: f64 = 1_000.0;
const PEER_BYTES: f64 = 65_536.0;
const SUBSCRIPTION_BYTES: f64 = 1_024.0;

#[derive(Default)]
pub struct Report {
    pub forward: Vec<Row>,
    pub rates: Vec<RateRow>,
    pub joins: Option<Joins>,
    pub memories: Option<Memories>,
}

impl Report {
    pub fn print(&self) {
        if !self.forward.is_empty() {
            self.print_forward();
        }
        if !self.rates.is_empty() {
            self.print_rates();
        }
        if let Some(joins) = &self.joins {
            println!("\nA join, two tracks and two data channels: CPU µs of the focus, median (least);");
            println!("floor: the public-key operations of one side of the handshake\n");
            println!("| what | ours | floor | ratio | goal |\n|---|---:|---:|---:|---:|");
            print_join("media", &joins.media, JOIN_MEDIA_US);
            print_join("media and signalling", &joins.signalling, JOIN_SIGNALLING_US);
        }
        if let Some(memories) = &self.memories {
            println!("\nMemory of idle connected peers, 1,000 of them: bytes each\n");
            println!("| what | heap | resident | goal |\n|---|---:|---:|---:|");
            print_memory("peer with data channels, 2 tracks each way", memories.peer, PEER_BYTES);
            print_memory("one more subscription", memories.subscription, SUBSCRIPTION_BYTES);
        }
    }

    fn print_forward(&self) {
        println!("CPU ns a forwarded packet, median (least), AES-GCM; ratio: median of the rounds' ratios\n");
        println!(
            "| what | where | N | m-lines | ours | floor | ratio | packets a run | allocations a packet |"
        );
        println!("|---|---|---:|---:|---:|---:|---:|---:|---:|");
        for row in &self.forward {
            let Comparison { ours, floor, ratio, allocations, units, .. } = &row.comparison;
            println!(
                "| {} | {} | {} | {} | {:.0} ({:.0}) | {:.0} ({:.0}) | {ratio:.2} | {:.1} | {} |",
                row.plan.name,
                place(row),
                row.plan.subscribers,
                row.plan.lines,
                ours.median,
                ours.least,
                floor.median,
                floor.least,
                row.segments,
                *allocations as f64 / *units as f64,
            );
        }
        println!(
            "\nGoals: a ratio of at most {FORWARD_RATIO} at N=100, no allocation; the same cost within 20 % from"
        );
        println!("N=10 to N=1,000 and from 2 to 200 m-lines:\n");
        for (what, spread) in self.spreads() {
            println!("- {what}: dearest {:+.0} % above cheapest", (spread - 1.0) * 100.0);
        }
    }

    fn print_rates(&self) {
        println!(
            "\nWhat rate control adds to a forwarded packet, in memory, every subscriber reporting each 100 ms:"
        );
        println!(
            "CPU ns, median (least); what is added: the difference in quiet rounds, median (and between the least);\n\
             \"reports\": to open and read them, heeded or not\n"
        );
        println!("| what | N | alone | reports | rate control | goal | allocations a packet |");
        println!("|---|---:|---:|---:|---:|---:|---:|");
        let more = |comparison: &Comparison| {
            let (ours, other) = (comparison.ours, comparison.floor);
            format!("{:+.0} ({:+.0})", comparison.difference, ours.least - other.least)
        };
        for RateRow { plan, control, reports } in &self.rates {
            println!(
                "| {} | {} | {:.0} ({:.0}) | {} | {} | {RATE_NS} | {} |",
                plan.name,
                plan.subscribers,
                reports.floor.median,
                reports.floor.least,
                more(reports),
                more(control),
                control.allocations as f64 / control.units as f64,
            );
        }
    }

    /// How far apart the cheapest and the dearest are of cases that should cost the same.
    fn spreads(&self) -> Vec<(String, f64)> {
        let mut spreads = Vec::new();
        for name in ["frames of 7", "single packets"] {
            for place_name in ["queued", "full", "memory"] {
                let rows =
                    || self.forward.iter().filter(|row| row.plan.name == name && place(row) == place_name);
                let by_peers =
                    rows().filter(|row| row.plan.lines == 2 && (10..=1_000).contains(&row.plan.subscribers));
                let by_lines = rows().filter(|row| row.plan.subscribers == 100);
                let what = format!("{name}, {place_name}");
                spreads.extend(spread(by_peers).map(|spread| (format!("{what}, by N"), spread)));
                spreads.extend(spread(by_lines).map(|spread| (format!("{what}, by m-lines"), spread)));
            }
        }
        spreads
    }

    pub fn to_json(&self) -> Value {
        let comparison = |found: &Comparison| {
            json!({
                "ours_ns": found.ours.median, "ours_least_ns": found.ours.least,
                "floor_ns": found.floor.median, "floor_least_ns": found.floor.least,
                "ratio": found.ratio, "difference_ns": found.difference,
                "allocations": found.allocations, "units": found.units,
            })
        };
        let memory =
            |memory: &Memory| json!({ "heap_bytes": memory.heap, "resident_bytes": memory.resident });
        let forward = self.forward.iter().map(|row| {
            json!({
                "what": row.plan.name, "where": place(row), "subscribers": row.plan.subscribers,
                "m_lines": row.plan.lines, "packets_a_run": row.segments,
                "cost": comparison(&row.comparison),
            })
        });
        let rates = self.rates.iter().map(|row| {
            json!({
                "what": row.plan.name, "subscribers": row.plan.subscribers,
                "control": comparison(&row.control), "reports": comparison(&row.reports),
            })
        });
        json!({
            "rate_control": rates.collect::<Vec<_>>(),
            "forward": forward.collect::<Vec<_>>(),
            "join": self.joins.as_ref().map(|joins| {
                json!({ "media": comparison(&joins.media), "signalling": comparison(&joins.signalling) })
            }),
            "memory": self.memories.as_ref().map(|memories| {
                json!({ "peer": memory(&memories.peer), "subscription": memory(&memories.subscription) })
            }),
        })
    }
}

fn place(row: &Row) -> &'static str {
    row.plan.sinks.map_or("memory", |kind| kind.name())
}

fn spread<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<f64> {
    let costs: Vec<f64> = rows.map(|row| row.comparison.ours.median).collect();
    let least = costs.iter().copied().min_by(f64::total_cmp)?;
    let most = costs.iter().copied().max_by(f64::total_cmp)?;
    (costs.len() > 1).then_some(most / least)
}

fn print_join(what: &str, found: &Comparison, goal: f64) {
    let us = |ns: f64| ns / 1_000.0;
    println!(
        "| {what} | {:.0} ({:.0}) | {:.0} ({:.0}) | {:.2} | {goal} |",
        us(found.ours.median),
        us(found.ours.least),
        us(found.floor.median),
        us(found.floor.least),
        found.ratio,
    );
}

fn print_memory(what: &str, memory: Memory, goal: f64) {
    println!("| {what} | {:.0} | {:.0} | {goal} |", memory.heap, memory.resident);
}
