//! The calls that are played, as data.

use std::time::Duration;

use weir_rate::BitRate;
use weir_stage::link::{Line, Loss, Naps};
use weir_units::media::{Layer, Wish};

use crate::encoder::FRAME_INTERVAL;

/// Who publishes what, who looks, and over which line. One publisher of the first video has audio, too.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: &'static str,
    pub about: &'static str,
    pub lasts: Duration,
    /// From the focus to the viewers. Its rate is the steps'.
    pub line: Line,
    /// The first is at zero.
    pub steps: Vec<Step>,
    pub viewers: usize,
    /// They subscribe one after the other, so long apart.
    pub apart: Duration,
    pub videos: Vec<Video>,
    pub key_frames: KeyFrames,
}

/// The line's rate from some time on.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub from: Duration,
    pub kbps: u64,
    /// The encoding of main pictures that this rate has room for.
    pub expects: u8,
}

#[derive(Clone, Copy, Debug)]
pub struct Video {
    /// In kbit/s.
    pub layers: [u64; 3],
    pub frame_interval: Duration,
    pub wish: Wish,
}

impl Video {
    /// Shown large, rather than as a thumbnail.
    pub fn is_main(&self) -> bool {
        self.wish.max_layer.spatial > 0
    }
}

/// When publishers make key frames.
#[derive(Clone, Copy, Debug)]
pub enum KeyFrames {
    Asked,
    /// Whatever is asked, each so often, by encoding: as of a file that is played.
    Every([Duration; 3]),
}

/// What a call's steps last where more than one is played; a multiple of [`super::play::SLICE`].
const STEP: u64 = 15;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Steps of equal lengths: rate, and which encoding it has room for.
fn steps(each: u64, rates: &[(u64, u8)]) -> Vec<Step> {
    let step =
        |(at, &(kbps, expects)): (usize, &(u64, u8))| Step { from: seconds(each * at as u64), kbps, expects };
    rates.iter().enumerate().map(step).collect()
}

fn camera() -> Video {
    Video { layers: [150, 500, 2_000], frame_interval: FRAME_INTERVAL, wish: Wish::default() }
}

/// A small camera, shown small.
fn thumbnail() -> Video {
    let wish = Wish { max_layer: Layer { spatial: 0, temporal: u8::MAX }, ..Wish::default() };
    Video { layers: [60, 200, 700], frame_interval: FRAME_INTERVAL * 2, wish }
}

/// One viewer of one camera.
fn call(name: &'static str, about: &'static str, each: u64, rates: &[(u64, u8)]) -> Call {
    Call {
        name,
        about,
        lasts: seconds(each * rates.len() as u64),
        line: Line::new(BitRate::from_kbps(rates[0].0)),
        steps: steps(each, rates),
        viewers: 1,
        apart: Duration::ZERO,
        videos: vec![camera()],
        key_frames: KeyFrames::Asked,
    }
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Call> {
    [starts(), changes(), lines(), crowds()].concat()
}

fn starts() -> Vec<Call> {
    vec![
        call("call-start", "a call begins on 5 Mbit/s", 20, &[(5_000, 2)]),
        call("call-start-poor", "a call begins on 400 kbit/s", 30, &[(400, 0)]),
    ]
}

/// What a line had that was played between machines: 5 -> 0.8 -> 3 -> 0.3 -> 2.5 Mbit/s.
const SHAPED: [(u64, u8); 5] = [(5_000, 2), (800, 1), (3_000, 2), (300, 0), (2_500, 2)];

const COLLAPSE: [(u64, u8); 3] = [(4_000, 2), (300, 0), (4_000, 2)];
/// When the line collapses, and as long again until it recovers.
pub const COLLAPSES: Duration = seconds(20);

fn changes() -> Vec<Call> {
    let file = KeyFrames::Every([seconds(8), seconds(6), seconds(4)]);
    vec![
        call("call-collapse", "4 Mbit/s -> 300 kbit/s -> back", COLLAPSES.as_secs(), &COLLAPSE),
        call("call-shaped", "5 -> 0.8 -> 3 -> 0.3 -> 2.5 Mbit/s, 25 s each", 25, &SHAPED),
        Call {
            key_frames: file,
            ..call("call-shaped-file", "the same, key frames only each 8, 6 and 4 s", 25, &SHAPED)
        },
    ]
}

/// The same steps, shorter, over lines that are special.
fn lines() -> Vec<Call> {
    let shaped = |name, about, line: fn(Line) -> Line| {
        let plain = call(name, about, STEP, &SHAPED);
        Call { line: line(plain.line), ..plain }
    };
    vec![
        shaped("call-far", "150 ms one way", |line| Line { delay: millis(150), ..line }),
        shaped("call-short-queue", "a queue of 60 ms", |line| Line { queue: millis(60), ..line }),
        shaped("call-long-queue", "a queue of 1 s", |line| Line { queue: seconds(1), ..line }),
        shaped("call-codel", "CoDel", |line| Line { codel: true, ..line }),
        shaped("call-jitter", "jitter of 10 ms, up to 30, in order", |line| Line {
            jitter: millis(10),
            ..line
        }),
        shaped("call-busy", "between machines that are late by 5 to 40 ms", |line| Line {
            naps: Some(Naps { every: millis(60), least: millis(5), most: millis(40) }),
            ..line
        }),
        shaped("call-loss", "3 % lost at random", |line| Line { loss: Loss::random(0.03), ..line }),
        shaped("call-bursts", "bursts of loss, 2 % in all", |line| Line {
            loss: Loss { good: 0.0, bad: 0.5, to_bad: 0.008, to_good: 0.19 },
            ..line
        }),
        shaped("call-reordering", "2 % overtaken by 15 ms", |line| Line {
            reorder: 0.02,
            reorder_by: millis(15),
            ..line
        }),
    ]
}

fn crowds() -> Vec<Call> {
    let mut beside_thumbnails = vec![camera()];
    beside_thumbnails.extend([thumbnail(); 30]);
    vec![
        Call {
            videos: beside_thumbnails,
            ..call("call-thumbnails", "30 thumbnails and a main picture on 2 Mbit/s", 60, &[(2_000, 1)])
        },
        Call {
            videos: vec![camera(); 4],
            ..call("call-four", "four equal pictures on 2 Mbit/s", 40, &[(2_000, 0)])
        },
        Call {
            viewers: 10,
            ..call("call-ten-joins", "ten join at once behind one line of 2 Mbit/s", 40, &[(2_000, 0)])
        },
        Call {
            viewers: 10,
            apart: seconds(1),
            ..call(
                "call-joins-apart",
                "ten join a second apart behind one line of 2 Mbit/s",
                40,
                &[(2_000, 0)],
            )
        },
    ]
}
