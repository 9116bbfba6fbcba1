//! A call at work.

use std::time::{Duration, Instant};

use weir_rate::BitRate;
use weir_stage::bottleneck::Bottleneck;
use weir_stage::chance::Chance;
use weir_stage::link::Line;
use weir_stage::{Shape, Stage, ms};
use weir_units::event::Event;
use weir_units::ids::PublicationId;

use super::camera;
use super::recording::Recording;
use super::scenario::{Call, KeyFrames, Step};

/// How often the script looks: signalling that reaches publishers is late by up to this.
pub const SLICE: Duration = Duration::from_millis(50);
/// How long publishers send before anybody looks, at least; and up to so many slices longer, since a file's key frames
/// come whenever they do.
const LEAD: Duration = Duration::from_secs(2);
const MORE_LEAD: f64 = 160.0;
/// Clients that did not connect within this never do.
const CONNECTS_WITHIN: Duration = Duration::from_secs(2);
/// Parts of the seed.
const OF_THE_SCRIPT: u64 = 10;
const OF_THE_LINE: u64 = 11;
const OF_CAMERAS: u64 = 20;

struct Play<'a> {
    call: &'a Call,
    stage: Stage,
    videos: Vec<PublicationId>,
    audio: PublicationId,
    /// When publishers began, and how much later the viewers subscribe.
    began: Instant,
    lead: Duration,
    /// Events of the stage that were looked at.
    events: usize,
}

/// Plays `call` with `seed`.
pub fn play(call: &Call, seed: u64) -> Recording {
    let mut stage = Stage::new(seed);
    stage.reports_arrivals = true;
    stage.line.delay = call.line.delay;
    let publishers = enter(&mut stage, call.videos.len());
    let viewers = enter(&mut stage, call.viewers);
    let mut play = Play::begin(call, stage, seed, &publishers);
    play.run_until(play.lead);
    let (mut views, mut hearings) = (Vec::new(), Vec::new());
    let behind = viewers.iter().copied();
    let line = Bottleneck::new(line(call, call.steps[0]), behind, Chance::new(seed, OF_THE_LINE));
    play.stage.bottlenecks.push(line);
    for (at, viewer) in viewers.iter().enumerate() {
        play.run_until(play.lead + call.apart * at as u32);
        let client = &mut play.stage.clients[*viewer];
        (client.asks_for_key_frames, client.round_trip) = (true, call.line.delay * 2);
        hearings.push(play.stage.subscribe(*viewer, play.audio));
        for (video, publication) in call.videos.iter().zip(&play.videos) {
            views.push((*video, play.stage.subscribe_with(*viewer, *publication, video.wish)));
        }
    }
    play.take_steps();
    let start = play.began + play.lead;
    Recording::of(call, play.stage, start, &views, &hearings)
}

fn line(call: &Call, step: Step) -> Line {
    Line { rate: BitRate::from_kbps(step.kbps), ..call.line }
}

/// Clients that are connected.
fn enter(stage: &mut Stage, count: usize) -> Vec<usize> {
    let clients: Vec<_> = (0..count).map(|_| stage.enter()).collect();
    let end = stage.now + CONNECTS_WITHIN;
    let is_connected = |stage: &Stage, client: usize| {
        let peer = stage.clients[client].id;
        stage.clients[client].srtp.is_some() && stage.has_event(&Event::PeerConnected { peer })
    };
    while !clients.iter().all(|client| is_connected(stage, *client)) {
        assert!(stage.now < end, "a client did not connect");
        stage.run(ms(10));
    }
    clients
}

impl<'a> Play<'a> {
    /// Each video comes from a client of its own; the first has audio beside.
    fn begin(call: &'a Call, mut stage: Stage, seed: u64, publishers: &[usize]) -> Self {
        let mut chance = Chance::new(seed, OF_THE_SCRIPT);
        let audio = stage.publish(publishers[0], Shape::opus());
        let mut videos = Vec::new();
        for (video, publisher) in call.videos.iter().zip(publishers) {
            let client = &mut stage.clients[*publisher];
            client.answers_key_frame_requests = matches!(call.key_frames, KeyFrames::Asked);
            let publication = stage.publish(*publisher, camera::shape(video.frame_interval));
            let part = OF_CAMERAS + videos.len() as u64;
            let source = stage.source(publication);
            source.frame_sizes = Some(camera::frame_sizes(video.layers, video.frame_interval, seed, part));
            // Cameras do not tick together.
            source.next += video.frame_interval.mul_f64(chance.between(0.0, 1.0));
            videos.push(publication);
        }
        let (began, lead) = (stage.now, LEAD + SLICE * chance.between(0.0, MORE_LEAD) as u32);
        Self { call, stage, videos, audio, began, lead, events: 0 }
    }

    fn take_steps(&mut self) {
        for (at, step) in self.call.steps.iter().enumerate() {
            let now = self.stage.now - self.stage.began;
            self.stage.bottlenecks[0].change(now, line(self.call, *step));
            let end = self.call.steps.get(at + 1).map_or(self.call.lasts, |next| next.from);
            self.run_until(self.lead + end);
        }
    }

    /// Until so long after the publishers began.
    fn run_until(&mut self, end: Duration) {
        loop {
            let at = self.stage.now - self.began;
            if at >= end {
                return;
            }
            tracing::trace!(at = (at.as_secs_f64() - self.lead.as_secs_f64()), "from");
            self.make_key_frames(at);
            self.stage.run(SLICE);
            self.hear_what_is_wanted();
        }
    }

    fn make_key_frames(&mut self, at: Duration) {
        let KeyFrames::Every(intervals) = self.call.key_frames else { return };
        for video in &self.videos {
            for (stream, every) in self.stage.source(*video).streams.iter_mut().zip(intervals) {
                stream.wants_key |= at.as_millis().is_multiple_of(every.as_millis());
            }
        }
    }

    /// Publishers send the layers that somebody wants.
    fn hear_what_is_wanted(&mut self) {
        let events = self.stage.events[self.events..].iter();
        let wanted: Vec<_> = events
            .filter_map(|(_, event)| match event {
                Event::LayersWanted { publication, layers } => Some((*publication, *layers)),
                _ => None,
            })
            .collect();
        self.events = self.stage.events.len();
        for (publication, layers) in wanted.into_iter().filter(|(of, _)| self.videos.contains(of)) {
            for (at, stream) in self.stage.source(publication).streams.iter_mut().enumerate() {
                let is_active = layers & 1 << at != 0;
                stream.wants_key |= is_active && !stream.is_active;
                stream.is_active = is_active;
            }
        }
    }
}
