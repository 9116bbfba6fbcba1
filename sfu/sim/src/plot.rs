//! A run as a picture: rates, the queue's delay, and losses over time, as SVG.

use std::fmt::Write;
use std::ops::Range;
use std::time::Duration;

use weir_rate::BitRate;

use crate::figures::{Figures, Recording};
use crate::scenario::Scenario;

const WIDTH: f64 = 1_100.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const STEP: Duration = Duration::from_millis(100);
/// Rates of media are of this long, so that frames do not show.
const RATE_SPAN: Duration = Duration::from_millis(300);
/// One for each flow.
const COLOURS: [&str; 5] = ["#1f6fb2", "#c8553d", "#3d8b4f", "#8a5fa8", "#b0872a"];
const STYLE: &str = "<style>text{font:12px system-ui,sans-serif;fill:#444}.title{font-size:17px;font-weight:600;\
fill:#222}.name{font-weight:600}.grid{stroke:#e6e6e6}.axis{stroke:#999}polyline{fill:none;stroke-linejoin:round}\
.line{stroke:#222;stroke-width:2}.media{stroke-width:1;opacity:.45}.target{stroke-width:1;stroke-dasharray:2 2}\
.sustained{stroke-width:2}</style>";

/// A part of the picture with an axis of its own.
struct Panel {
    top: f64,
    height: f64,
    lasts: Duration,
    most: f64,
}

/// Draws what happened.
pub fn svg(scenario: &Scenario, seed: u64, recording: &Recording) -> String {
    let mut out = String::new();
    let height = 640.0;
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}'>\
         {STYLE}<rect width='100%' height='100%' fill='white'/>\
         <text class='title' x='{LEFT}' y='28'>{}</text><text x='{LEFT}' y='47'>{} · seed {seed} · {}</text>",
        escape(scenario.name),
        escape(scenario.about),
        escape(&summary(&recording.figures(scenario))),
    );
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
    legend(
        out,
        &[
            ("line", "the line"),
            ("sustained", "sustained"),
            ("target", "target"),
            ("media", "media that passed"),
        ],
    );
}

fn legend(out: &mut String, entries: &[(&str, &str)]) {
    for (index, (class, words)) in entries.iter().rev().enumerate() {
        let x = WIDTH - RIGHT - 150.0 * (index + 1) as f64;
        let colour = if *class == "line" { "#222" } else { COLOURS[0] };
        let _ = write!(
            out,
            "<polyline class='{class}' stroke='{colour}' points='{x},62 {},62'/><text x='{}' y='66'>{words}</text>",
            x + 22.0,
            x + 28.0
        );
    }
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

impl Panel {
    fn place(&self, at: Duration, value: f64) -> (f64, f64) {
        let x = LEFT + (WIDTH - LEFT - RIGHT) * at.as_secs_f64() / self.lasts.as_secs_f64();
        (x, self.top + self.height * (1.0 - (value / self.most).clamp(0.0, 1.0)))
    }

    fn frame(&self, out: &mut String, name: &str) {
        let (bottom, right) = (self.top + self.height, WIDTH - RIGHT);
        let values = round_step(self.most, if self.height > 90.0 { 5.0 } else { 2.0 });
        for value in (0..).map(|step| values * f64::from(step)).take_while(|value| *value <= self.most) {
            let (_, y) = self.place(Duration::ZERO, value);
            let _ = write!(
                out,
                "<line class='grid' x1='{LEFT}' x2='{right}' y1='{y:.1}' y2='{y:.1}'/>\
                 <text x='{}' y='{:.1}' text-anchor='end'>{value}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        let seconds = round_step(self.lasts.as_secs_f64(), 12.0).max(1.0);
        for second in (0..).map(|step| seconds * f64::from(step)) {
            if second > self.lasts.as_secs_f64() {
                break;
            }
            let (x, _) = self.place(Duration::from_secs_f64(second), 0.0);
            let _ = write!(
                out,
                "<line class='grid' x1='{x:.1}' x2='{x:.1}' y1='{}' y2='{bottom}'/>\
                 <text x='{x:.1}' y='{}' text-anchor='middle'>{second}</text>",
                self.top,
                bottom + 16.0
            );
        }
        let _ = write!(
            out,
            "<line class='axis' x1='{LEFT}' x2='{right}' y1='{bottom}' y2='{bottom}'/>\
             <text class='name' x='{LEFT}' y='{}'>{name}</text>",
            self.top - 5.0
        );
    }

    fn curve(
        &self,
        out: &mut String,
        class: &str,
        colour: &str,
        points: impl Iterator<Item = (Duration, f64)>,
    ) {
        let _ = write!(out, "<polyline class='{class}' stroke='{colour}' points='");
        for (at, value) in points {
            let (x, y) = self.place(at, value);
            let _ = write!(out, "{x:.1},{y:.1} ");
        }
        out.push_str("'/>");
    }
}

/// 1, 2 or 5 times a power of ten, so that about `parts` of it make `most`.
fn round_step(most: f64, parts: f64) -> f64 {
    let wished = (most / parts).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(wished.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|times| times * power)
        .find(|step| *step >= wished)
        .unwrap_or(10.0 * power)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!([3.1, 0.9, 120.0, 5.0].map(|most| round_step(most, 5.0)), [1.0, 0.2, 50.0, 1.0]);
    }

    #[test]
    fn words_cannot_break_the_picture() {
        assert_eq!(escape("1 -> 2 & <b>"), "1 -&gt; 2 &amp; &lt;b&gt;");
    }
}
