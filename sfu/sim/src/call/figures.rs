//! What came of a call, as figures.

use std::ops::Range;
use std::time::Duration;

use weir_stage::bottleneck::Fate;

use super::recording::{Kind, Recording, Shown, View};
use super::scenario::{Call, Step};

/// A picture that stands still for longer froze.
pub const FREEZE: Duration = Duration::from_millis(400);
/// Layers are compared second by second.
const SECOND: Duration = Duration::from_secs(1);

/// A picture stood still. Times are since the viewers subscribed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    pub span: Range<Duration>,
}

impl Freeze {
    pub fn length(&self) -> Duration {
        self.span.end - self.span.start
    }
}

/// What is judged of one step of a call. Of main pictures, unless it says otherwise.
#[derive(Clone, Debug)]
pub struct Figures {
    /// From the step's beginning (for the first: from the first packet) until each shows what there is room for; the
    /// longest. `None` if one did not within the step.
    pub reached: Option<Duration>,
    /// From the first packet to the first picture, of every view; the longest. `None` if one showed nothing at all.
    pub first_picture: Option<Duration>,
    /// Those that lasted long enough to be called so within the step.
    pub freezes: Vec<Freeze>,
    /// And of thumbnails.
    pub small_freezes: Vec<Freeze>,
    /// At the step's end, the least and the greatest: encoding and temporal layer.
    pub last: Option<(Level, Level)>,
    /// Each minute of the step's second half, of the view that changes most.
    pub changes: f64,
    /// Since the step's beginning, when the line dropped or lost audio.
    pub audio_dropped: Vec<Duration>,
    /// And when audio was captured that was not heard, repairs counted.
    pub unheard: Vec<Duration>,
    /// Packets of pictures that the line's full queue dropped.
    pub video_dropped: usize,
    /// How long packets that passed had waited.
    pub queued_p95: Duration,
    /// How long after they were captured pictures were shown.
    pub age_p95: Duration,
}

/// Encoding and highest temporal layer that are shown.
pub type Level = (u8, u8);

impl Recording {
    /// A figure for each step.
    pub fn figures(&self, call: &Call) -> Vec<Figures> {
        let ends = call.steps.iter().skip(1).map(|step| step.from).chain([call.lasts]);
        let mut before = 0;
        let step = |(step, end): (&Step, Duration)| {
            let is_down = std::mem::replace(&mut before, step.kbps) > step.kbps;
            self.step(*step, is_down, end)
        };
        call.steps.iter().zip(ends).map(step).collect()
    }

    fn step(&self, step: Step, is_down: bool, end: Duration) -> Figures {
        let span = step.from..end;
        let main = || self.views.iter().filter(|view| view.is_main);
        let levels: Option<Vec<_>> =
            main().map(|view| level(view, &(end.saturating_sub(SECOND)..end))).collect();
        let freezes = |is_main: bool| {
            let views = self.views.iter().filter(move |view| view.is_main == is_main);
            let froze = views.flat_map(|view| freezes(view, self.lasts(end)));
            froze.filter(|freeze| span.contains(&(freeze.span.start + FREEZE))).collect()
        };
        let on_the_line = |kind: Kind| {
            let passages = self.line.iter().filter(move |passage| passage.kind == kind);
            passages.map(|passage| passage.carried).filter(|carried| span.contains(&carried.at))
        };
        let queued = on_the_line(Kind::Video).chain(on_the_line(Kind::Audio)).filter_map(|carried| {
            match carried.fate {
                Fate::Passed(queued) => Some(queued),
                Fate::Dropped | Fate::Lost => None,
            }
        });
        Figures {
            reached: longest(main().map(|view| reached(view, step, is_down, end))),
            first_picture: longest(
                self.views.iter().map(|view| Some(view.shown.first()?.at - view.first_packet?)),
            ),
            freezes: freezes(true),
            small_freezes: freezes(false),
            last: levels.and_then(|levels| Some((*levels.iter().min()?, *levels.iter().max()?))),
            changes: self.views.iter().map(|view| changes(view, &span)).fold(0.0, f64::max),
            audio_dropped: on_the_line(Kind::Audio)
                .filter(|carried| !matches!(carried.fate, Fate::Passed(_)))
                .map(|carried| carried.at - step.from)
                .collect(),
            unheard: self
                .unheard
                .iter()
                .filter(|at| span.contains(*at))
                .map(|at| at.saturating_sub(step.from))
                .collect(),
            video_dropped: on_the_line(Kind::Video).filter(|carried| carried.fate == Fate::Dropped).count(),
            queued_p95: p95(queued),
            age_p95: p95(main().flat_map(|view| between(view, &span)).map(|shown| shown.age)),
        }
    }

    /// The end of what was played, if `end` is not it.
    fn lasts(&self, end: Duration) -> Duration {
        self.views.iter().filter_map(|view| view.shown.last()).map(|shown| shown.at).fold(end, Duration::max)
    }
}

fn p95(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times.get(times.len() * 95 / 100).copied().unwrap_or_default()
}

fn longest(times: impl Iterator<Item = Option<Duration>>) -> Option<Duration> {
    times.collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// A step up is done when what is shown is as large as there is room for, a step down when it is as small.
fn reached(view: &View, step: Step, is_down: bool, end: Duration) -> Option<Duration> {
    let from = if step.from.is_zero() { view.first_packet? } else { step.from };
    let shown = between(view, &(from..end));
    let is_there = |shown: &&Shown| match is_down {
        true => shown.encoding <= step.expects,
        false => shown.encoding >= step.expects,
    };
    Some(shown.iter().find(is_there)?.at - from)
}

/// What was shown within a time.
fn between<'a>(view: &'a View, span: &Range<Duration>) -> &'a [Shown] {
    let from = view.shown.partition_point(|shown| shown.at < span.start);
    let to = view.shown.partition_point(|shown| shown.at < span.end);
    &view.shown[from..to.max(from)]
}

/// From the first picture on; the last lasts until `end` if nothing follows.
pub fn freezes(view: &View, end: Duration) -> Vec<Freeze> {
    let times: Vec<_> = view.shown.iter().map(|shown| shown.at).chain([end]).collect();
    let gaps = times.windows(2).map(|pair| pair[0]..pair[1]);
    gaps.filter(|span| span.end.saturating_sub(span.start) > FREEZE).map(|span| Freeze { span }).collect()
}

/// The last encoding within a second, and its highest temporal layer there.
pub fn level(view: &View, second: &Range<Duration>) -> Option<Level> {
    let shown = between(view, second);
    let encoding = shown.last()?.encoding;
    let temporal =
        shown.iter().filter(|shown| shown.encoding == encoding).map(|shown| shown.temporal).max()?;
    Some((encoding, temporal))
}

/// Changes of layer in the second half of a step, each minute.
fn changes(view: &View, step: &Range<Duration>) -> f64 {
    let half = (step.start + step.end) / 2..step.end;
    let seconds = (half.end - half.start).as_secs() as u32;
    let levels: Vec<_> = (0..seconds)
        .filter_map(|second| level(view, &(half.start + SECOND * second..half.start + SECOND * (second + 1))))
        .collect();
    let changes = levels.windows(2).filter(|pair| pair[0] != pair[1]).count();
    changes as f64 * 60.0 / f64::from(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Shown each 100 ms but for a second from 3,000 ms on; then smaller.
    fn view() -> View {
        let times = (0..100).map(|at| ms(100 * at)).filter(|at| !(ms(3_050)..ms(4_000)).contains(at));
        let shown = times
            .map(|at| Shown { at, encoding: u8::from(at < ms(3_500)), temporal: 2, age: ms(60) })
            .collect();
        View { is_main: true, first_packet: Some(ms(0)), shown }
    }

    #[test]
    fn a_gap_is_a_freeze_and_a_smaller_picture_a_change() {
        let view = view();
        assert_eq!(freezes(&view, ms(10_000)), [Freeze { span: ms(3_000)..ms(4_000) }]);
        assert_eq!(freezes(&view, ms(10_500)).len(), 2, "the last picture stands until the end");
        assert_eq!(level(&view, &(ms(2_000)..ms(3_000))), Some((1, 2)));
        assert_eq!(changes(&view, &(ms(0)..ms(4_200))), 30.0, "one in two seconds");
        assert_eq!(changes(&view, &(ms(2_000)..ms(10_000))), 0.0);
        let step = Step { from: ms(2_000), kbps: 1, expects: 0 };
        assert_eq!(reached(&view, step, true, ms(10_000)), Some(ms(2_000)));
        assert_eq!(reached(&view, step, true, ms(3_500)), None);
        assert_eq!(reached(&view, step, false, ms(3_500)), Some(ms(0)));
    }
}
