//! A call as a picture: rates, waiting, layers and freezes over time, as SVG.

use std::fmt::Write;
use std::ops::Range;
use std::time::Duration;

use weir_rate::BitRate;
use weir_stage::bottleneck::Fate;

use super::figures::{Level, freezes, level};
use super::recording::{Kind, Recording};
use super::scenario::Call;
use crate::chart::{self, COLOURS, LEFT, Panel, RIGHT, WIDTH};

const STEP: Duration = Duration::from_millis(100);
/// Rates of media are of this long, so that frames do not show.
const RATE_SPAN: Duration = Duration::from_millis(300);
/// Layers are of this long: as many frames as it takes to have one of each temporal layer.
const LEVEL_SPAN: Duration = Duration::from_millis(300);

/// Draws what happened.
pub fn svg(call: &Call, seed: u64, recording: &Recording) -> String {
    let mut out = chart::begin(720.0, call.name, &format!("{} · seed {seed}", call.about));
    rates(&mut out, call, recording);
    waiting(&mut out, call, recording);
    layers(&mut out, call, recording);
    out.push_str("</svg>\n");
    out
}

fn times(call: &Call) -> impl Iterator<Item = Duration> {
    (1..=(call.lasts.as_millis() / STEP.as_millis()) as u32).map(|step| STEP * step)
}

fn rates(out: &mut String, call: &Call, recording: &Recording) {
    let most = call.steps.iter().map(|step| step.kbps).max().unwrap_or(0) as f64 / 1_000.0 * 1.25;
    let panel = Panel { top: 70.0, height: 260.0, lasts: call.lasts, most };
    panel.frame(out, "Mbit/s");
    let media = times(call).map(|at| {
        let span = at.saturating_sub(RATE_SPAN)..at;
        (at, BitRate::of(passed(recording, &span), span.end - span.start).bps() as f64 / 1e6)
    });
    panel.curve(out, "sustained", COLOURS[0], media);
    let mut line = Vec::new();
    for (at, step) in call.steps.iter().enumerate() {
        let end = call.steps.get(at + 1).map_or(call.lasts, |next| next.from);
        line.extend([(step.from, step.kbps as f64 / 1_000.0), (end, step.kbps as f64 / 1_000.0)]);
    }
    panel.curve(out, "line", "#222", line.into_iter());
    chart::legend(out, &[("line", "the line"), ("sustained", "what passed")]);
}

fn passed(recording: &Recording, span: &Range<Duration>) -> u64 {
    let from = recording.line.partition_point(|passage| passage.carried.at < span.start);
    let to = recording.line.partition_point(|passage| passage.carried.at < span.end);
    let carried = recording.line[from..to].iter().map(|passage| passage.carried);
    carried.filter(|one| matches!(one.fate, Fate::Passed(_))).map(|one| one.bytes as u64).sum()
}

/// How long packets waited, and below which were dropped or lost: audio in red.
fn waiting(out: &mut String, call: &Call, recording: &Recording) {
    let mut points = Vec::new();
    for passage in &recording.line {
        if let Fate::Passed(queued) = passage.carried.fate {
            points.push((passage.carried.at, queued.as_secs_f64() * 1_000.0));
        }
    }
    let most = points.iter().map(|point| point.1).fold(60.0, f64::max) * 1.1;
    let panel = Panel { top: 375.0, height: 95.0, lasts: call.lasts, most };
    panel.frame(out, "waiting, ms; dropped or lost (audio in red)");
    panel.curve(out, "media", "#7a6a00", points.into_iter());
    for passage in recording.line.iter().filter(|one| !matches!(one.carried.fate, Fate::Passed(_))) {
        let (x, y) = panel.place(passage.carried.at, 0.0);
        let (height, colour) = if passage.kind == Kind::Audio { (16.0, "#c22") } else { (8.0, "#888") };
        let _ = write!(
            out,
            "<line x1='{x:.1}' x2='{x:.1}' y1='{y:.1}' y2='{:.1}' stroke='{colour}'/>",
            y - height
        );
    }
}

/// What each view shows, three steps for each encoding's temporal layers, and where it froze.
fn layers(out: &mut String, call: &Call, recording: &Recording) {
    let panel = Panel { top: 520.0, height: 140.0, lasts: call.lasts, most: 9.0 };
    panel.frame(out, "layers: three temporal ones of each encoding; freezes in red");
    let height = |(encoding, temporal): Level| f64::from(encoding * 3 + temporal + 1);
    // Main pictures lie above thumbnails.
    let small = recording.views.iter().enumerate().filter(|(_, view)| !view.is_main);
    let main = recording.views.iter().enumerate().filter(|(_, view)| view.is_main);
    for (at, view) in small.chain(main) {
        let curve = times(call).map(|time| {
            let span = time.saturating_sub(LEVEL_SPAN)..time;
            (time, level(view, &span).map_or(0.0, height))
        });
        panel.curve(
            out,
            if view.is_main { "sustained" } else { "media" },
            COLOURS[at % COLOURS.len()],
            curve,
        );
        for freeze in freezes(view, call.lasts) {
            let (from, y) = panel.place(freeze.span.start, 0.0);
            let (to, _) = panel.place(freeze.span.end, 0.0);
            let opacity = if view.is_main { 0.3 } else { 0.08 };
            let _ = write!(
                out,
                "<rect x='{from:.1}' width='{:.1}' y='{}' height='{:.1}' fill='#c22' opacity='{opacity}'/>",
                to - from,
                panel.top,
                y - panel.top
            );
        }
    }
    let y = panel.top + panel.height + 34.0;
    let _ = write!(out, "<text x='{}' y='{y}' text-anchor='end'>seconds</text>", WIDTH - RIGHT);
    let _ = write!(out, "<text x='{LEFT}' y='{y}'>{} views</text>", recording.views.len());
}
