//! What is played, as data.

use std::time::Duration;

use weir_rate::BitRate;

use crate::link::{Line, Loss, Stalls};

/// A scenario: one line, what becomes of it, and who sends over it.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub lasts: Duration,
    pub line: Line,
    /// From when on the line is another.
    pub changes: Vec<(Duration, Line)>,
    /// When each flow begins.
    pub flows: Vec<Duration>,
    /// The highest rate of each picture.
    pub most: BitRate,
    pub key_frames_every: Duration,
    /// The share of feedback that is lost.
    pub feedback_loss: f64,
    /// When no feedback passes.
    pub feedback_gap: Option<(Duration, Duration)>,
    /// How long the flows are given after each change until their state counts as steady.
    pub settles: Duration,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
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
        flows: vec![Duration::ZERO],
        most: BitRate::from_kbps(6_000),
        key_frames_every: seconds(20),
        feedback_loss: 0.0,
        feedback_gap: None,
        settles: seconds(3),
    }
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Scenario> {
    let stepped = |kbps: &[(u64, u64)], base: Line| {
        let at =
            |&(from, kbps): &(u64, u64)| (seconds(from), Line { rate: BitRate::from_kbps(kbps), ..base });
        kbps.iter().map(at).collect::<Vec<_>>()
    };
    let variable = [(40, 2_500), (60, 600), (80, 1_000)];
    let noisy = Line { jitter: Duration::from_millis(10), ..line(1_000) };
    vec![
        Scenario {
            lasts: seconds(100),
            changes: stepped(&variable, line(1_000)),
            ..one_flow("variable", "RFC 8867 5.1: 1 -> 2.5 -> 0.6 -> 1 Mbit/s", line(1_000))
        },
        Scenario {
            lasts: seconds(100),
            changes: stepped(&variable, noisy),
            ..one_flow("variable-jitter", "the same with jitter up to 30 ms", noisy)
        },
        Scenario {
            lasts: seconds(90),
            changes: stepped(&[(30, 300), (60, 4_000)], line(4_000)),
            most: BitRate::from_kbps(3_500),
            ..one_flow("collapse", "4 Mbit/s -> 300 kbit/s -> back", line(4_000))
        },
        Scenario {
            lasts: seconds(20),
            most: BitRate::from_kbps(2_500),
            ..one_flow("start", "a call begins on 5 Mbit/s", line(5_000))
        },
        Scenario { lasts: seconds(30), ..one_flow("start-poor", "a call begins on 400 kbit/s", line(400)) },
        Scenario {
            lasts: seconds(100),
            changes: stepped(&variable, line(1_000)),
            feedback_loss: 0.2,
            ..one_flow("feedback-loss", "RFC 8867 5.1, and a fifth of the feedback is lost", line(1_000))
        },
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
        one_flow(
            "radio",
            "2 Mbit/s, stalls of up to 60 ms",
            Line {
                stalls: Some(Stalls {
                    every: Duration::from_millis(400),
                    longest: Duration::from_millis(60),
                }),
                ..line(2_000)
            },
        ),
        one_flow("loss", "2 Mbit/s, 3 % lost at random", Line { loss: Loss::random(0.03), ..line(2_000) }),
        one_flow(
            "loss-bursts",
            "2 Mbit/s, bursts of loss, 2 % in all",
            Line { loss: Loss { good: 0.0, bad: 0.5, to_bad: 0.008, to_good: 0.19 }, ..line(2_000) },
        ),
        one_flow(
            "reordering",
            "2 Mbit/s, 2 % overtaken by 15 ms",
            Line { reorder: 0.02, reorder_by: Duration::from_millis(15), ..line(2_000) },
        ),
        one_flow(
            "short-queue",
            "1 Mbit/s, a queue of 40 ms",
            Line { queue: Duration::from_millis(40), ..line(1_000) },
        ),
        one_flow("codel", "1 Mbit/s, CoDel", Line { codel: true, ..line(1_000) }),
        Scenario {
            lasts: seconds(120),
            flows: vec![Duration::ZERO, seconds(20)],
            settles: seconds(20),
            ..one_flow("two-flows", "two equal flows on 2 Mbit/s, one 20 s later", line(2_000))
        },
        Scenario {
            lasts: seconds(120),
            flows: vec![Duration::ZERO, seconds(10), seconds(20)],
            settles: seconds(20),
            ..one_flow("three-flows", "RFC 8867 5.4: three equal flows on 3.5 Mbit/s", line(3_500))
        },
    ]
}
