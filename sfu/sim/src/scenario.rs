//! What is played, as data.

use std::ops::Range;
use std::time::Duration;

use weir_rate::BitRate;

use weir_stage::link::{Line, Loss, Naps, Stalls};

/// A scenario: a line to and fro, what becomes of it, and who sends over it.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub lasts: Duration,
    pub line: Line,
    /// From when on the line is another.
    pub changes: Vec<(Duration, Line)>,
    /// The line that feedback takes, and flows in the other direction; wide enough if `None`.
    pub back: Option<Line>,
    pub back_changes: Vec<(Duration, Line)>,
    pub flows: Vec<Flow>,
    pub tcp: Vec<TcpFlow>,
    pub media: Media,
    pub key_frames_every: Duration,
    /// The share of feedback that is lost.
    pub feedback_loss: f64,
    /// When no feedback passes.
    pub feedback_gap: Option<(Duration, Duration)>,
    /// When the receivers' programs stand still: what arrives is seen when they go on.
    pub receiver_pauses: Vec<Range<Duration>>,
    /// How long the flows are given after each change until their state counts as steady.
    pub settles: Duration,
}

/// What the senders have to send beside audio.
#[derive(Clone, Copy, Debug)]
pub enum Media {
    /// A picture that follows the target up to this rate.
    Follows(BitRate),
    /// One of these encodings, in kbit/s, whichever fits; what a focus has.
    Layers(&'static [u64]),
    /// A picture of little rate, while more is wanted: padding has to find out.
    Trickle { sent: BitRate, wanted: BitRate },
}

/// One of our flows.
#[derive(Clone, Debug)]
pub struct Flow {
    pub begins: Duration,
    /// Nothing is sent meanwhile.
    pub pauses: Vec<Range<Duration>>,
    /// Added to the line's delay, each way.
    pub farther: Duration,
    /// Goes over the line back.
    pub backwards: bool,
}

/// Somebody else's.
#[derive(Clone, Debug)]
pub struct TcpFlow {
    pub begins: Duration,
    /// How many bytes it has; without end if `None`.
    pub bytes: Option<u64>,
}

impl Scenario {
    /// How many of each kind share the line forwards at `at`; those that come later or pause do not.
    pub fn sharing(&self, at: Duration) -> (Vec<usize>, usize) {
        let sends = |flow: &Flow| {
            flow.begins <= at && !flow.backwards && !flow.pauses.iter().any(|pause| pause.contains(&at))
        };
        let flows = self.flows.iter().enumerate().filter(|(_, flow)| sends(flow)).map(|(index, _)| index);
        let endless = self.tcp.iter().filter(|tcp| tcp.begins <= at && tcp.bytes.is_none());
        (flows.collect(), endless.count())
    }
}

impl Flow {
    pub fn from(begins: u64) -> Self {
        Self { begins: seconds(begins), pauses: Vec::new(), farther: Duration::ZERO, backwards: false }
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn line(kbps: u64) -> Line {
    Line::new(BitRate::from_kbps(kbps))
}

fn one_flow(name: &'static str, about: &'static str, first: Line) -> Scenario {
    Scenario {
        name,
        about,
        lasts: seconds(60),
        line: first,
        changes: Vec::new(),
        back: None,
        back_changes: Vec::new(),
        flows: vec![Flow::from(0)],
        tcp: Vec::new(),
        media: Media::Follows(BitRate::from_kbps(6_000)),
        key_frames_every: seconds(20),
        feedback_loss: 0.0,
        feedback_gap: None,
        receiver_pauses: Vec::new(),
        settles: seconds(3),
    }
}

fn stepped(kbps: &[(u64, u64)], base: Line) -> Vec<(Duration, Line)> {
    let at = |&(from, kbps): &(u64, u64)| (seconds(from), Line { rate: BitRate::from_kbps(kbps), ..base });
    kbps.iter().map(at).collect()
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Scenario> {
    [rfc8867(), changes(), layers(), paths(), neighbours()].concat()
}

/// [RFC 8867 §5](https://www.rfc-editor.org/rfc/rfc8867#section-5), as far as it concerns who forwards.
fn rfc8867() -> Vec<Scenario> {
    let jitter = Line { jitter: millis(10), ..line(1_000) };
    let variable = [(40, 2_500), (60, 600), (80, 1_000)];
    let farther = |(index, ms): (usize, &u64)| Flow { farther: millis(*ms), ..Flow::from(10 * index as u64) };
    vec![
        Scenario {
            lasts: seconds(100),
            changes: stepped(&variable, line(1_000)),
            ..one_flow("variable", "RFC 8867 5.1: 1 -> 2.5 -> 0.6 -> 1 Mbit/s", line(1_000))
        },
        Scenario {
            lasts: seconds(100),
            changes: stepped(&variable, jitter),
            ..one_flow("variable-jitter", "the same with jitter up to 30 ms", jitter)
        },
        Scenario {
            lasts: seconds(125),
            changes: stepped(&[(25, 2_000), (50, 3_500), (75, 1_000), (100, 2_000)], line(4_000)),
            flows: vec![Flow::from(0), Flow::from(0)],
            settles: seconds(5),
            ..one_flow(
                "variable-two",
                "RFC 8867 5.2: two flows on 4 -> 2 -> 3.5 -> 1 -> 2 Mbit/s",
                line(4_000),
            )
        },
        Scenario {
            lasts: seconds(100),
            changes: stepped(&[(20, 1_000), (40, 500), (60, 2_000)], line(2_000)),
            back: Some(line(2_000)),
            back_changes: stepped(&[(35, 800), (70, 2_000)], line(2_000)),
            flows: vec![Flow::from(0), Flow { backwards: true, ..Flow::from(0) }],
            ..one_flow("feedback-full", "RFC 8867 5.3: feedback shares a line that changes too", line(2_000))
        },
        Scenario {
            lasts: seconds(120),
            flows: vec![Flow::from(0), Flow::from(20), Flow::from(40)],
            settles: seconds(10),
            ..one_flow("three-flows", "RFC 8867 5.4: three equal flows on 3.5 Mbit/s", line(3_500))
        },
        Scenario {
            lasts: seconds(300),
            flows: [10, 25, 50, 100, 150].iter().enumerate().map(farther).collect(),
            settles: seconds(20),
            ..one_flow(
                "distances",
                "RFC 8867 5.5: five flows from 10 to 150 ms away on 4 Mbit/s",
                Line { delay: Duration::ZERO, ..line(4_000) },
            )
        },
        Scenario {
            lasts: seconds(120),
            flows: vec![Flow::from(5)],
            tcp: vec![TcpFlow { begins: Duration::ZERO, bytes: None }],
            settles: seconds(10),
            ..one_flow("tcp-long", "RFC 8867 5.6: beside an endless TCP-like flow on 2 Mbit/s", line(2_000))
        },
        Scenario {
            lasts: seconds(120),
            flows: vec![Flow::from(0), Flow::from(0)],
            tcp: (1..=10).map(|n| TcpFlow { begins: seconds(10 * n), bytes: Some(100_000 * n) }).collect(),
            settles: seconds(10),
            ..one_flow("tcp-short", "RFC 8867 5.7: two flows beside ten short TCP-like ones", line(2_000))
        },
        Scenario {
            lasts: seconds(100),
            flows: vec![
                Flow { pauses: vec![seconds(40)..seconds(60)], ..Flow::from(0) },
                Flow::from(0),
                Flow::from(0),
            ],
            settles: seconds(10),
            ..one_flow("pause", "RFC 8867 5.8: one of three flows pauses for 20 s on 3.5 Mbit/s", line(3_500))
        },
    ]
}

/// A line that becomes another.
fn changes() -> Vec<Scenario> {
    vec![
        Scenario {
            lasts: seconds(90),
            changes: stepped(&[(30, 300), (60, 4_000)], line(4_000)),
            media: Media::Follows(BitRate::from_kbps(3_500)),
            ..one_flow("collapse", "4 Mbit/s -> 300 kbit/s -> back", line(4_000))
        },
        Scenario {
            lasts: seconds(20),
            media: Media::Follows(BitRate::from_kbps(2_500)),
            ..one_flow("start", "a call begins on 5 Mbit/s", line(5_000))
        },
        Scenario { lasts: seconds(30), ..one_flow("start-poor", "a call begins on 400 kbit/s", line(400)) },
        Scenario {
            lasts: seconds(60),
            feedback_gap: Some((seconds(30), seconds(33))),
            changes: vec![(seconds(33), line(2_000))],
            ..one_flow("feedback-gap", "no feedback for 3 s on 2 Mbit/s", line(2_000))
        },
        Scenario {
            lasts: seconds(60),
            changes: stepped(&[(30, 0), (33, 2_000)], line(2_000)),
            ..one_flow("hand-over", "nothing passes for 3 s on 2 Mbit/s", line(2_000))
        },
    ]
}

/// What a focus sends: one encoding of some, less than the line carries most of the time.
fn layers() -> Vec<Scenario> {
    const LAYERS: Media = Media::Layers(&[150, 500, 2_000]);
    let published = [(20, 800), (45, 3_000), (70, 300), (95, 2_500)];
    let busy =
        Line { naps: Some(Naps { every: millis(60), least: millis(3), most: millis(12) }), ..line(5_000) };
    let trickle =
        |wanted| Media::Trickle { sent: BitRate::from_kbps(150), wanted: BitRate::from_kbps(wanted) };
    vec![
        Scenario {
            lasts: seconds(120),
            changes: stepped(&published, line(5_000)),
            media: LAYERS,
            ..one_flow("layers", "three layers on 5 -> 0.8 -> 3 -> 0.3 -> 2.5 Mbit/s", line(5_000))
        },
        Scenario {
            lasts: seconds(120),
            changes: stepped(&published, busy),
            media: LAYERS,
            ..one_flow("layers-busy", "the same between machines that are late by 3 to 12 ms", busy)
        },
        Scenario {
            lasts: seconds(120),
            changes: stepped(&published, Line { loss: Loss::random(0.03), ..line(5_000) }),
            media: LAYERS,
            ..one_flow(
                "layers-loss",
                "the same with 3 % lost",
                Line { loss: Loss::random(0.03), ..line(5_000) },
            )
        },
        Scenario {
            lasts: seconds(120),
            changes: stepped(&published, line(5_000)),
            media: trickle(6_000),
            ..one_flow("trickle", "the same line, little to send and much wanted", line(5_000))
        },
        Scenario {
            lasts: seconds(120),
            changes: stepped(&published, busy),
            media: trickle(6_000),
            ..one_flow("trickle-busy", "the same between late machines", busy)
        },
        Scenario {
            media: LAYERS,
            receiver_pauses: (1..10).map(|n| millis(5_000 * n)..millis(5_000 * n + 150 * n)).collect(),
            ..one_flow("app-pauses", "the receiver stands still for 0.15 to 1.35 s at times", line(3_000))
        },
    ]
}

/// Lines that do more than carry.
fn paths() -> Vec<Scenario> {
    let variable = [(40, 2_500), (60, 600), (80, 1_000)];
    let long = Line { queue: seconds(1), ..line(1_000) };
    let far = Line { delay: millis(200), ..line(1_000) };
    let radio = Some(Stalls { every: millis(400), longest: millis(60) });
    let bursts = Loss { good: 0.0, bad: 0.5, to_bad: 0.008, to_good: 0.19 };
    vec![
        Scenario {
            lasts: seconds(100),
            changes: stepped(&variable, line(1_000)),
            feedback_loss: 0.2,
            ..one_flow("feedback-loss", "RFC 8867 5.1, and a fifth of the feedback is lost", line(1_000))
        },
        one_flow("radio", "2 Mbit/s, stalls of up to 60 ms", Line { stalls: radio, ..line(2_000) }),
        one_flow("loss", "2 Mbit/s, 3 % lost at random", Line { loss: Loss::random(0.03), ..line(2_000) }),
        one_flow("loss-bursts", "2 Mbit/s, bursts of loss, 2 % in all", Line { loss: bursts, ..line(2_000) }),
        one_flow(
            "reordering",
            "2 Mbit/s, 2 % overtaken by 15 ms",
            Line { reorder: 0.02, reorder_by: millis(15), ..line(2_000) },
        ),
        one_flow("short-queue", "1 Mbit/s, a queue of 50 ms", Line { queue: millis(50), ..line(1_000) }),
        Scenario {
            lasts: seconds(100),
            changes: stepped(&variable, long),
            ..one_flow("long-queue", "RFC 8867 5.1 with a queue of 1 s", long)
        },
        Scenario {
            lasts: seconds(100),
            changes: stepped(&variable, far),
            ..one_flow("far", "RFC 8867 5.1, 200 ms one way", far)
        },
        one_flow("codel", "1 Mbit/s, CoDel", Line { codel: true, ..line(1_000) }),
    ]
}

/// Flows beside each other.
fn neighbours() -> Vec<Scenario> {
    vec![Scenario {
        lasts: seconds(120),
        flows: vec![Flow::from(0), Flow::from(20)],
        settles: seconds(10),
        ..one_flow("two-flows", "two equal flows on 2 Mbit/s, one 20 s later", line(2_000))
    }]
}
