//! Panels of curves over time, as SVG.

use std::fmt::Write;
use std::time::Duration;

pub const WIDTH: f64 = 1_100.0;
pub const LEFT: f64 = 70.0;
pub const RIGHT: f64 = 20.0;
/// One for each that is drawn.
pub const COLOURS: [&str; 5] = ["#1f6fb2", "#c8553d", "#3d8b4f", "#8a5fa8", "#b0872a"];
const STYLE: &str = "<style>text{font:12px system-ui,sans-serif;fill:#444}.title{font-size:17px;font-weight:600;\
fill:#222}.name{font-weight:600}.grid{stroke:#e6e6e6}.axis{stroke:#999}polyline{fill:none;stroke-linejoin:round}\
.line{stroke:#222;stroke-width:2}.media{stroke-width:1;opacity:.45}.target{stroke-width:1;stroke-dasharray:2 2}\
.sustained{stroke-width:2}</style>";

/// A part of the picture with an axis of its own.
pub struct Panel {
    pub top: f64,
    pub height: f64,
    pub lasts: Duration,
    pub most: f64,
}

/// The beginning of a picture: its title, and what is said below it.
pub fn begin(height: f64, title: &str, words: &str) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}'>\
         {STYLE}<rect width='100%' height='100%' fill='white'/>\
         <text class='title' x='{LEFT}' y='28'>{}</text><text x='{LEFT}' y='47'>{}</text>",
        escape(title),
        escape(words),
    )
}

/// What the classes of curves are, to the right above the first panel.
pub fn legend(out: &mut String, entries: &[(&str, &str)]) {
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

impl Panel {
    pub fn place(&self, at: Duration, value: f64) -> (f64, f64) {
        let x = LEFT + (WIDTH - LEFT - RIGHT) * at.as_secs_f64() / self.lasts.as_secs_f64();
        (x, self.top + self.height * (1.0 - (value / self.most).clamp(0.0, 1.0)))
    }

    pub fn frame(&self, out: &mut String, name: &str) {
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

    pub fn curve(
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

pub fn escape(text: &str) -> String {
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
