//! What is kept of a call: what each viewer saw and heard, and what the line carried. Times are since the viewers
//! subscribed.

use std::time::{Duration, Instant};

use weir_stage::bottleneck::Carried;
use weir_stage::playback::Playback;
use weir_stage::{Shape, Stage};
use weir_units::ids::SubscriptionId;

use super::scenario::{Call, Video};

/// Beyond the way itself; what comes later cannot be heard in time any more.
const AUDIO_WAITS: Duration = Duration::from_millis(400);

/// A frame that was shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub at: Duration,
    pub encoding: u8,
    pub temporal: u8,
    /// Since it was captured.
    pub age: Duration,
}

/// What a viewer saw of a video.
#[derive(Debug)]
pub struct View {
    pub is_main: bool,
    pub first_packet: Option<Duration>,
    pub shown: Vec<Shown>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Audio,
    /// And padding, which only streams of video have.
    Video,
    Feedback,
}

#[derive(Clone, Copy, Debug)]
pub struct Passage {
    pub kind: Kind,
    pub carried: Carried,
}

/// All that a call is judged by.
#[derive(Debug, Default)]
pub struct Recording {
    /// What must not be, ever: gaps and jumps in numbers, pictures that fit no decoder, more than was wished.
    pub faults: Vec<String>,
    pub views: Vec<View>,
    /// When audio was captured that nobody heard: it never came, or too late.
    pub unheard: Vec<Duration>,
    pub line: Vec<Passage>,
}

impl Recording {
    /// Of subscriptions that began at `start`: to videos, and to audio.
    pub fn of(
        call: &Call,
        mut stage: Stage,
        start: Instant,
        views: &[(Video, SubscriptionId)],
        hearings: &[SubscriptionId],
    ) -> Self {
        let mut recording = Self::default();
        let open = stage.numbers_left_open();
        recording
            .faults
            .extend((open > 0).then(|| format!("{open} numbers were left out, and nothing was lost")));
        for (video, view) in views {
            recording.faults.extend(faults(stage.playback(*view), video.wish.max_layer.spatial));
            recording.views.push(seen(&mut stage, start, video, *view));
        }
        let mut audio = Vec::new();
        for hearing in hearings {
            recording.faults.extend(faults(stage.playback(*hearing), 0));
            recording.unheard.extend(unheard(&mut stage, start, call.line.delay * 2, *hearing));
            audio.push(stage.receiver(*hearing).ssrc);
        }
        let offset = start - stage.began;
        let carried = stage.bottlenecks.iter().flat_map(|line| &line.record);
        recording.line.extend(carried.map(|carried| {
            let kind = match carried.ssrc {
                None => Kind::Feedback,
                Some(ssrc) if audio.contains(&ssrc) => Kind::Audio,
                Some(_) => Kind::Video,
            };
            Passage { kind, carried: Carried { at: carried.at.saturating_sub(offset), ..*carried } }
        }));
        recording
    }
}

/// Numbers and picture ids are continuous, and no larger picture came than was wished; or what else was found.
fn faults(playback: Playback, most: u8) -> Vec<String> {
    let beyond = playback.frames.iter().filter(|frame| frame.id.encoding > most);
    let beyond = beyond.map(|frame| format!("more than was wished: {:?}", frame.id));
    beyond.chain(playback.faults.iter().cloned()).collect()
}

fn seen(stage: &mut Stage, start: Instant, video: &Video, view: SubscriptionId) -> View {
    let began = stage.began;
    let screen = &stage.receiver(view).screen;
    let shown = screen.shown.iter().map(|shown| Shown {
        at: shown.at.saturating_duration_since(start),
        encoding: shown.frame.encoding,
        temporal: shown.temporal,
        age: shown.at - began - Duration::from_micros(shown.captured),
    });
    let first_packet = screen.began.map(|at| at.saturating_duration_since(start));
    View { is_main: video.is_main(), first_packet, shown: shown.collect() }
}

fn unheard(stage: &mut Stage, start: Instant, way: Duration, hearing: SubscriptionId) -> Vec<Duration> {
    let (began, offset) = (stage.began, start - stage.began);
    let mut unheard = Vec::new();
    let mut next: Option<u32> = None;
    for received in stage.receiver(hearing).packets.values() {
        let captured = Duration::from_micros(received.body.captured);
        let number = received.body.frame.number;
        for missing in next.unwrap_or(number)..number {
            unheard.push((captured - Shape::opus().interval * (number - missing)).saturating_sub(offset));
        }
        next = Some(number + 1);
        if received.at - began > captured + way + AUDIO_WAITS {
            unheard.push(captured.saturating_sub(offset));
        }
    }
    unheard
}
