//! A run as a picture: rates, the queue's delay, and losses over time, as SVG.

use std::fmt::Write;
use std::ops::Range;
use std::time::Duration;

use weir_rate::BitRate;

use crate::chart::{self, COLOURS, Panel, RIGHT, WIDTH};
use crate::figures::{Figures, Recording};
use crate::scenario::Scenario;

const STEP: Duration = Duration::from_millis(100);
/// Rates of media are of this long, so that frames do not show.
const RATE_SPAN: Duration = Duration::from_millis(300);

/// Draws what happened.
pub fn svg(scenario: &Scenario, seed: u64, recording: &Recording) -> String {
    let words = format!("{} · seed {seed} · {}", scenario.about, summary(&recording.figures(scenario)));
    let mut out = chart::begin(640.0, scenario.name, &words);
    rates(&mut out, scenario, recording);
    queue(&mut out, scenario, recording);
    losses(&mut out, scenario, recording);
    out.push_str("</svg>\n");
    out
}

fn summary(figures: &Figures) -> String {
    let mut words = format!(
        "used {:.0} %, queueing p95 {} ms, loss {:.2} %",
        figures.utilisation * 100.0,
        figures.queueing_p95.as_millis(),
        figures.loss * 100.0
    );
    if let Some(rise) = figures.rise {
        let _ = write!(words, ", rise {:.1} s", rise.as_secs_f64());
    }
    if let Some(fall) = figures.fall {
        let _ = write!(words, ", fall {:.1} s", fall.as_secs_f64());
    }
    if let Some(fairness) = figures.fairness {
        let _ = write!(words, ", fairness {fairness:.2}");
    }
    words
}

fn rates(out: &mut String, scenario: &Scenario, recording: &Recording) {
    let megabits = |rate: BitRate| rate.bps() as f64 / 1e6;
    let lines = scenario.changes.iter().map(|(_, line)| line.rate).chain([scenario.line.rate]);
    let most = lines.map(megabits).fold(0.0, f64::max) * 1.25;
    let panel = Panel { top: 70.0, height: 300.0, lasts: scenario.lasts, most };
    panel.frame(out, "Mbit/s");
    for flow in 0..scenario.flows.len() {
        let colour = COLOURS[flow % COLOURS.len()];
        let samples = || recording.samples.iter().filter(move |sample| sample.flow == flow);
        let media = samples().map(|sample| {
            let span = sample.at.saturating_sub(RATE_SPAN)..sample.at;
            (sample.at, megabits(recording.media(Some(flow), &span)))
        });
        panel.curve(out, "media", colour, media);
        panel.curve(out, "target", colour, samples().map(|one| (one.at, megabits(one.thought.target))));
        let sustained = samples().map(|one| (one.at, megabits(one.thought.sustainable)));
        panel.curve(out, "sustained", colour, sustained);
    }
    let mut line = vec![(Duration::ZERO, megabits(scenario.line.rate))];
    for (at, changed) in &scenario.changes {
        line.extend(line.last().map(|(_, rate)| (*at, *rate)));
        line.push((*at, megabits(changed.rate)));
    }
    line.extend(line.last().map(|(_, rate)| (scenario.lasts, *rate)));
    panel.curve(out, "line", "#222", line.into_iter());
    chart::legend(
        out,
        &[
            ("line", "the line"),
            ("sustained", "sustained"),
            ("target", "target"),
            ("media", "media that passed"),
        ],
    );
}

fn queue(out: &mut String, scenario: &Scenario, recording: &Recording) {
    let delays = || steps(scenario).map(|span| (span.end, recording.queued(&span).as_secs_f64() * 1_000.0));
    let most = delays().map(|(_, delay)| delay).fold(60.0, f64::max) * 1.1;
    let panel = Panel { top: 415.0, height: 95.0, lasts: scenario.lasts, most };
    panel.frame(out, "queue, ms");
    panel.curve(out, "sustained", "#7a6a00", delays());
}

fn losses(out: &mut String, scenario: &Scenario, recording: &Recording) {
    let lost = || steps(scenario).map(|span| (span.end, recording.lost(&span) as f64));
    let most = lost().map(|(_, lost)| lost).fold(5.0, f64::max) * 1.1;
    let panel = Panel { top: 553.0, height: 47.0, lasts: scenario.lasts, most };
    panel.frame(out, "lost, packets");
    for (at, lost) in lost().filter(|(_, lost)| *lost > 0.0) {
        let (x, y) = panel.place(at, lost);
        let base = panel.top + panel.height;
        let _ = write!(
            out,
            "<line x1='{x:.1}' x2='{x:.1}' y1='{base}' y2='{y:.1}' stroke='#b22' stroke-width='1.5'/>"
        );
    }
    let y = panel.top + panel.height + 34.0;
    let _ = write!(out, "<text x='{}' y='{y}' text-anchor='end'>seconds</text>", WIDTH - RIGHT);
}

fn steps(scenario: &Scenario) -> impl Iterator<Item = Range<Duration>> {
    let count = (scenario.lasts.as_millis() / STEP.as_millis()) as u32;
    (0..count).map(|step| STEP * step..STEP * (step + 1))
}
