//! The near end: an estimator and a pacer, audio, and a picture whose rate follows the estimate.

use std::collections::VecDeque;
use std::time::Duration;

use weir_rate::{BitRate, Class, Estimator, Limits, Pacer, Time};
use weir_rtp::rtcp::{Compound, RtcpPacket};

use crate::encoder::Encoder;
use crate::scenario::Media;
use weir_stage::chance::Chance;

/// IP, UDP, RTP with extensions, and the authentication tag.
const OVERHEAD: usize = 20 + 8 + 20 + 16;
const MAX_PAYLOAD: usize = 1_140;
pub const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
const AUDIO_BYTES: usize = 80 + OVERHEAD;
/// Of what audio leaves so much is given to the picture; the rest is for retransmissions and scatter.
const PICTURE: f64 = 0.98;
/// Frames are left out while more than this waits.
const MAX_WAITING: Duration = Duration::from_millis(120);
/// A layer is left for a higher one if that takes at most this share of what is sustained.
const UP: f64 = 0.97;
/// A focus cannot shorten a frame: only this much waiting makes it leave out some.
const MAX_LAYER_WAITING: Duration = Duration::from_millis(250);

/// What audio and a picture of this rate take of a line.
pub fn on_the_line(picture: BitRate) -> BitRate {
    picture.scaled((MAX_PAYLOAD + OVERHEAD) as f64 / MAX_PAYLOAD as f64).plus(audio())
}

/// What is asked of the estimator.
pub fn wanted(media: Media) -> BitRate {
    match media {
        Media::Follows(most) => on_the_line(most.scaled(1.0 / PICTURE)),
        Media::Layers(layers) => {
            on_the_line(BitRate::from_kbps(layers.last().copied().unwrap_or(0))).scaled(1.1)
        }
        Media::Trickle { wanted, .. } => wanted,
    }
}

/// The most that media can use of `rate`.
pub fn usable(media: Media, rate: BitRate) -> BitRate {
    match media {
        Media::Follows(most) => rate.min(on_the_line(most)),
        Media::Layers(layers) => {
            let each = || layers.iter().map(|&kbps| on_the_line(BitRate::from_kbps(kbps)));
            let best = each().rev().find(|layer| *layer <= rate.scaled(0.95));
            best.or(each().next()).unwrap_or(BitRate::ZERO)
        }
        Media::Trickle { sent, .. } => on_the_line(sent),
    }
}

fn audio() -> BitRate {
    BitRate::of(AUDIO_BYTES as u64, AUDIO_INTERVAL)
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Audio,
    Video,
    Padding,
}

/// A packet on its way.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub flow: usize,
    pub sequence: u16,
    pub kind: Kind,
    pub bytes: usize,
    pub sent: Duration,
}

/// One flow's sending side.
#[derive(Debug)]
pub struct Sender {
    flow: usize,
    pub estimator: Estimator,
    pacer: Pacer,
    encoder: Encoder,
    media: Media,
    /// Of [`Media::Layers`] the one that is sent.
    layer: Option<usize>,
    pub layer_changes: u32,
    paused: bool,
    waiting: VecDeque<usize>,
    waiting_bytes: usize,
    /// Sent by the last call, to be taken.
    pub out: Vec<Packet>,
}

impl Sender {
    pub fn new(flow: usize, now: Time, seed: u64, media: Media, key_frames_every: Duration) -> Self {
        let mut estimator = Estimator::new(now, Limits::default());
        estimator.set_wanted(wanted(media));
        let most = if let Media::Follows(most) = media { most } else { BitRate::MAX };
        Self {
            flow,
            pacer: Pacer::new(now, estimator.target()),
            estimator,
            encoder: Encoder::new(Chance::new(seed, 100 + flow as u64), most, key_frames_every),
            media,
            layer: None,
            layer_changes: 0,
            paused: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            out: Vec::new(),
        }
    }

    pub fn on_audio(&mut self, now: Time, at: Duration) {
        if self.paused {
            return;
        }
        self.send(now, at, Kind::Audio, AUDIO_BYTES);
        self.pump(now, at);
    }

    /// Nothing is sent while paused, and nothing wanted.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.estimator.set_wanted(if paused { BitRate::ZERO } else { wanted(self.media) });
        (self.waiting_bytes, self.layer) = (0, None);
        self.waiting.clear();
    }

    pub fn on_frame(&mut self, now: Time, at: Duration) {
        let target = self.estimator.target();
        let Some(picture) = self.picture(target) else { return self.pump(now, at) };
        let patience = if let Media::Follows(_) = self.media { MAX_WAITING } else { MAX_LAYER_WAITING };
        if target.time_for(self.waiting_bytes as u64) > patience {
            self.encoder.skip();
            return self.pump(now, at);
        }
        let mut bytes = self.encoder.frame(picture);
        while bytes > 0 {
            let payload = bytes.min(MAX_PAYLOAD);
            bytes -= payload;
            self.waiting.push_back(payload + OVERHEAD);
            self.waiting_bytes += payload + OVERHEAD;
        }
        self.pump(now, at);
    }

    /// The rate of the picture now; `None` while there is none.
    fn picture(&mut self, target: BitRate) -> Option<BitRate> {
        if self.paused {
            return None;
        }
        match self.media {
            Media::Follows(_) => {
                let share = PICTURE * MAX_PAYLOAD as f64 / (MAX_PAYLOAD + OVERHEAD) as f64;
                Some(target.minus(audio()).scaled(share).max(BitRate::from_kbps(20)))
            }
            Media::Trickle { sent, .. } => Some(sent),
            Media::Layers(layers) => {
                let layer = self.choose(layers);
                if layer != self.layer {
                    self.layer = layer;
                    self.layer_changes += 1;
                    // A layer begins with a key frame, and nobody needs the rest of the other.
                    self.waiting.clear();
                    self.waiting_bytes = 0;
                    self.encoder.begin(BitRate::from_kbps(layers[layer?]));
                }
                layer.map(|layer| BitRate::from_kbps(layers[layer]))
            }
        }
    }

    fn choose(&self, layers: &[u64]) -> Option<usize> {
        let sustainable = self.estimator.sustainable();
        let fits = |index: &usize| {
            let needs = on_the_line(BitRate::from_kbps(layers[*index]));
            needs <= sustainable.scaled(if Some(*index) <= self.layer { 1.0 } else { UP })
        };
        (0..layers.len()).rev().find(fits)
    }

    pub fn on_feedback(&mut self, now: Time, at: Duration, datagram: &[u8]) {
        for packet in Compound::new(datagram).flatten() {
            if let RtcpPacket::TransportFeedback(feedback) = packet {
                self.estimator.on_feedback(now, &feedback);
            }
        }
        self.pump(now, at);
    }

    /// Sends what may go; [`Sender::next`] says when there is more.
    pub fn pump(&mut self, now: Time, at: Duration) {
        self.estimator.handle_timeout(now);
        self.pacer.set_target(self.estimator.target());
        while let Some(cluster) = self.estimator.poll_probe(now) {
            self.pacer.probe(now, cluster);
        }
        while let Some(&bytes) = self.waiting.front() {
            if self.pacer.when(now, Class::Video) > now {
                break;
            }
            self.waiting.pop_front();
            self.waiting_bytes -= bytes;
            self.send(now, at, Kind::Video, bytes);
        }
        while self.waiting.is_empty()
            && let Some(bytes) = self.pacer.padding(now)
        {
            self.send(now, at, Kind::Padding, bytes);
        }
    }

    pub fn next(&self, now: Time) -> Option<Time> {
        let video = if self.waiting.is_empty() { Time::NEVER } else { self.pacer.when(now, Class::Video) };
        let next = video.min(self.pacer.next_of_cluster()).min(self.estimator.next_timeout());
        (next < Time::NEVER).then_some(next)
    }

    fn send(&mut self, now: Time, at: Duration, kind: Kind, bytes: usize) {
        let cluster = self.pacer.on_sent(now, bytes);
        let sequence = self.estimator.on_sent(now, bytes, cluster);
        self.out.push(Packet { flow: self.flow, sequence, kind, bytes, sent: at });
    }
}
