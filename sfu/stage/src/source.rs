//! What a client publishes: frames on time, retransmissions and key frames when asked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use weir_rtp::extension::{AudioLevel, ExtensionWriter};
use weir_rtp::header::FixedHeader;
use weir_rtp::rtcp::SenderInfo;
use weir_transport::srtp::{Plain, SrtpEgress};
use weir_units::ids::PublicationId;
use weir_units::media::{Codec, Encoding, ExtensionIds, IngressMedia, Mid, PayloadFormat, Rid};

use crate::body::{Body, FrameId};
use crate::codec::{Numbers, dependency_descriptor, ingress_payload_type, payload};

/// The ids every client of the stage negotiates.
pub const EXTENSIONS: ExtensionIds = ExtensionIds {
    mid: Some(4),
    rid: Some(10),
    repaired_rid: Some(11),
    transport_cc: Some(3),
    abs_send_time: None,
    audio_level: Some(1),
    dependency_descriptor: Some(13),
};

/// Packets a source keeps for retransmission.
const HISTORY: usize = 2_000;
/// Packets of a stream that carry MID and RID: a client stops once it knows that they arrived.
const NAMED_PACKETS: u64 = 30;

/// The most of a frame that goes into one packet.
const MAX_PAYLOAD: usize = 1_140;

/// The bytes of the next frame: of which encoding, of which temporal layer, whether it is a key frame.
pub type FrameSizes = Box<dyn FnMut(usize, u8, bool) -> usize>;

/// What a source looks like.
#[derive(Clone, Debug)]
pub struct Shape {
    pub codec: Codec,
    /// Bytes in a packet and packets in a frame, by encoding (simulcast) or spatial layer.
    pub layers: Vec<(usize, u8)>,
    pub is_simulcast: bool,
    pub temporal_layers: u8,
    pub interval: Duration,
    pub nack: bool,
    /// Bytes by which the packets of one frame differ, or those of successive frames of one packet.
    pub ragged: usize,
    /// Bytes by which each frame is longer than the one before, for eight frames; then it starts over.
    pub growth: usize,
}

impl Shape {
    /// 180p, 360p and 720p with three temporal layers.
    pub fn vp8_simulcast() -> Self {
        Self {
            codec: Codec::Vp8,
            layers: vec![(600, 1), (1_000, 2), (1_100, 5)],
            is_simulcast: true,
            temporal_layers: 3,
            interval: Duration::from_micros(33_333),
            nack: true,
            ragged: 1,
            growth: 0,
        }
    }

    pub fn vp8() -> Self {
        Self { layers: vec![(1_000, 3)], ..Self::vp8_simulcast() }
    }

    /// Three spatial and three temporal layers in one stream.
    pub fn vp9_svc() -> Self {
        Self { codec: Codec::Vp9, is_simulcast: false, ..Self::vp8_simulcast() }
    }

    /// Two spatial and two temporal layers in one stream.
    pub fn av1_svc() -> Self {
        let layers = vec![(600, 1), (1_000, 4)];
        Self { codec: Codec::Av1, is_simulcast: false, layers, temporal_layers: 2, ..Self::vp8_simulcast() }
    }

    pub fn h264() -> Self {
        Self { codec: Codec::H264, layers: vec![(1_000, 4)], temporal_layers: 1, ..Self::vp8_simulcast() }
    }

    pub fn opus() -> Self {
        Self {
            codec: Codec::Opus,
            layers: vec![(80, 1)],
            is_simulcast: true,
            temporal_layers: 1,
            interval: Duration::from_millis(20),
            nack: true,
            ragged: 0,
            growth: 0,
        }
    }

    pub fn red() -> Self {
        Self { codec: Codec::Red, ..Self::opus() }
    }

    pub fn is_video(&self) -> bool {
        !matches!(self.codec, Codec::Opus | Codec::Red)
    }

    fn streams(&self) -> usize {
        if self.is_simulcast { self.layers.len() } else { 1 }
    }
}

/// One RTP stream.
pub struct Stream {
    pub ssrc: u32,
    pub rtx_ssrc: u32,
    rid: Option<Rid>,
    /// Extended number of the next packet.
    pub sequence: u64,
    pub rtx_sequence: u64,
    pub timestamp_base: u32,
    picture: u16,
    tl0: u8,
    frame: u16,
    first_template: u8,
    /// Pictures since the last key picture.
    since_key: u32,
    pub wants_key: bool,
    pub is_active: bool,
    /// The last number of each (spatial, temporal).
    last: [[Option<u32>; 3]; 4],
    counts: [u32; 4],
    pub sent: u64,
    octets: u64,
    history: VecDeque<Kept>,
    /// Key frames asked for and sent.
    pub requests: Vec<Instant>,
    pub key_frames: Vec<Instant>,
    /// Numbers asked for again, as they came.
    pub nacked: Vec<(Instant, u16)>,
}

#[derive(Clone)]
struct Kept {
    sequence: u64,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
    descriptor: Vec<u8>,
}

pub struct Source {
    pub id: PublicationId,
    pub shape: Shape,
    pub mid: Mid,
    pub streams: Vec<Stream>,
    pub next: Instant,
    began: Instant,
    pictures: u64,
    /// An encoder in place of the shape's fixed sizes, for encodings of their own streams.
    pub frame_sizes: Option<FrameSizes>,
    /// Nothing is captured.
    pub is_paused: bool,
    /// Every key frame comes with a template structure of its own, where there is one.
    pub changes_structure: bool,
    /// How loud the audio is, in -dBov.
    pub level: u8,
}

impl Source {
    pub fn new(
        id: PublicationId,
        shape: Shape,
        mid: Mid,
        began: Instant,
        next: Instant,
        mut random: impl FnMut() -> u32,
    ) -> Self {
        let streams = (0..shape.streams())
            .map(|at| Stream {
                ssrc: random(),
                rtx_ssrc: random(),
                rid: (shape.streams() > 1).then(|| Rid::new(["q", "h", "f"][at]).unwrap()),
                sequence: u64::from(random() as u16 >> 1),
                rtx_sequence: u64::from(random() as u16 >> 1),
                timestamp_base: random(),
                picture: random() as u16 & 0x7fff,
                tl0: random() as u8,
                frame: 0,
                first_template: 0,
                since_key: 0,
                wants_key: true,
                is_active: true,
                last: Default::default(),
                counts: [0; 4],
                sent: 0,
                octets: 0,
                history: VecDeque::new(),
                requests: Vec::new(),
                key_frames: Vec::new(),
                nacked: Vec::new(),
            })
            .collect();
        Self {
            id,
            shape,
            mid,
            streams,
            next,
            began,
            pictures: 0,
            frame_sizes: None,
            is_paused: false,
            changes_structure: false,
            level: 20,
        }
    }

    /// What the focus is told of it.
    pub fn media(&self) -> IngressMedia {
        let (payload_type, rtx_payload_type) = ingress_payload_type(self.shape.codec);
        let mut formats = vec![PayloadFormat { codec: self.shape.codec, payload_type, rtx_payload_type }];
        if self.shape.codec == Codec::Red {
            formats.push(PayloadFormat { codec: Codec::Opus, payload_type: 111, rtx_payload_type: None });
        }
        IngressMedia {
            mid: self.mid,
            kind: self.shape.codec.kind(),
            formats,
            extensions: EXTENSIONS,
            encodings: self
                .streams
                .iter()
                .map(|stream| Encoding { rid: stream.rid, ssrc: None, rtx_ssrc: None })
                .collect(),
            nack: self.shape.nack,
            is_screen: false,
        }
    }

    fn clock(&self, now: Instant) -> u64 {
        (now - self.began).as_micros() as u64
    }

    fn ticks(&self, micros: u64) -> u32 {
        (micros * u64::from(self.shape.codec.clock_rate()) / 1_000_000) as u32
    }

    /// Captures a picture and gives its packets, sealed.
    pub fn capture(&mut self, now: Instant, srtp: &SrtpEgress, transport: &mut u16) -> Vec<Vec<u8>> {
        self.next = now + self.shape.interval;
        let captured = self.clock(now);
        if self.is_paused {
            return Vec::new();
        }
        self.pictures += 1;
        let mut packets = Vec::new();
        for at in 0..self.streams.len() {
            if !self.streams[at].is_active {
                continue;
            }
            for (timestamp, marker, payload, descriptor) in self.picture(at, captured) {
                let number = self.streams[at].sequence;
                self.streams[at].sequence += 1;
                let kept = Kept { sequence: number, timestamp, marker, payload, descriptor };
                packets.push(self.seal(at, &kept, None, srtp, transport));
                let stream = &mut self.streams[at];
                (stream.sent, stream.octets) = (stream.sent + 1, stream.octets + kept.payload.len() as u64);
                stream.history.push_back(kept);
                if stream.history.len() > HISTORY {
                    stream.history.pop_front();
                }
            }
            if std::mem::take(&mut self.streams[at].wants_key) && self.shape.is_video() {
                self.streams[at].key_frames.push(now);
            }
        }
        packets
    }

    /// The packets of one stream's picture: timestamp, marker, payload, dependency descriptor.
    fn picture(&mut self, at: usize, captured: u64) -> Vec<(u32, bool, Vec<u8>, Vec<u8>)> {
        let timestamp = self.streams[at].timestamp_base.wrapping_add(self.ticks(captured));
        let (shape, stream) = (&self.shape, &mut self.streams[at]);
        let is_key = stream.wants_key && shape.is_video();
        stream.since_key = if is_key { 0 } else { stream.since_key + 1 };
        let moves = is_key && self.changes_structure;
        stream.first_template = (stream.first_template + 6 * u8::from(moves)) % 60;
        let temporal = match shape.temporal_layers {
            3 => [0, 2, 1, 2][stream.since_key as usize % 4],
            2 => (stream.since_key % 2) as u8,
            _ => 0,
        };
        stream.picture = (stream.picture + 1) & 0x7fff;
        stream.tl0 = stream.tl0.wrapping_add(u8::from(temporal == 0));
        let layers: Vec<u8> = match shape.is_simulcast {
            true => vec![0],
            false => (0..shape.layers.len() as u8).collect(),
        };
        let top = layers.len() - 1;
        let layer_count = layers.len() as u8;
        let mut packets = Vec::new();
        for spatial in layers {
            let s = usize::from(spatial);
            let (size, count) = match &mut self.frame_sizes {
                Some(frame_sizes) => cut(frame_sizes(at, temporal, is_key)),
                None => {
                    let (size, count) = shape.layers[if shape.is_simulcast { at } else { s }];
                    (size, if is_key { count * 2 } else { count })
                }
            };
            let number = stream.counts[s];
            stream.counts[s] += 1;
            stream.frame = stream.frame.wrapping_add(1);
            let mut needs = [None; 3];
            if shape.is_video() && !is_key {
                // The newest frame of a lower temporal layer, or of the base for the base.
                let below = if temporal == 0 {
                    &stream.last[s][..1]
                } else {
                    &stream.last[s][..usize::from(temporal)]
                };
                needs[0] = below.iter().flatten().max().map(|number| (spatial, *number));
            }
            if spatial > 0 {
                needs[2] = Some((spatial - 1, stream.counts[s - 1] - 1));
            }
            if is_key {
                stream.last[s] = [None; 3];
            }
            stream.last[s][usize::from(temporal)] = Some(number);
            for index in 0..count {
                let body = Body {
                    frame: FrameId { source: self.id.0 as u32, encoding: at as u8, spatial, number },
                    temporal,
                    is_key,
                    index,
                    count,
                    captured,
                    needs,
                    stream: stream.ssrc,
                };
                let numbers = Numbers {
                    picture: stream.picture,
                    tl0: stream.tl0,
                    frame: stream.frame,
                    first_template: stream.first_template,
                    spatial_layers: layer_count,
                    is_layer_sync: temporal > 0 && needs[0].map(|need| need.1) == stream.last[s][0],
                };
                // libwebrtc makes the last packets of a frame a byte longer.
                let is_longer = if count == 1 { number.is_multiple_of(2) } else { index >= count / 2 };
                let len =
                    size + shape.growth * (number as usize % 8) + if is_longer { shape.ragged } else { 0 };
                let descriptor = match shape.codec {
                    Codec::Av1 => dependency_descriptor(&body, numbers),
                    _ => Vec::new(),
                };
                let is_last = s == top && index + 1 == count;
                packets.push((
                    timestamp,
                    is_last && shape.is_video(),
                    payload(shape.codec, &body, numbers, len),
                    descriptor,
                ));
            }
        }
        packets
    }

    fn seal(
        &self,
        at: usize,
        packet: &Kept,
        rtx: Option<u64>,
        srtp: &SrtpEgress,
        transport: &mut u16,
    ) -> Vec<u8> {
        let stream = &self.streams[at];
        let (payload_type, rtx_payload_type) = ingress_payload_type(self.shape.codec);
        let (ssrc, payload_type, index) = match rtx {
            Some(index) => (stream.rtx_ssrc, rtx_payload_type.expect("video has one"), index),
            None => (stream.ssrc, payload_type, packet.sequence),
        };
        let mut extensions = vec![(3, transport.to_be_bytes().to_vec())];
        *transport = transport.wrapping_add(1);
        let is_named = rtx.map_or(stream.sent < NAMED_PACKETS, |_| true);
        if is_named {
            extensions.push((4, self.mid.as_bytes().to_vec()));
            if let Some(rid) = stream.rid {
                extensions.push((if rtx.is_some() { 11 } else { 10 }, rid.as_bytes().to_vec()));
            }
        }
        if !self.shape.is_video() {
            extensions.push((1, vec![AudioLevel { is_voice: true, below_overload: self.level }.to_byte()]));
        }
        if !packet.descriptor.is_empty() {
            extensions.push((13, packet.descriptor.clone()));
        }
        let osn = (packet.sequence as u16).to_be_bytes();
        let prefix = if rtx.is_some() { &osn[..] } else { &[] };
        let rtp = Rtp {
            ssrc,
            payload_type,
            index,
            timestamp: packet.timestamp,
            marker: packet.marker,
            extensions,
            padding: 0,
        };
        rtp.seal(srtp, prefix, &packet.payload)
    }

    /// The stream an SSRC names, retransmission streams included.
    pub fn stream_of(&mut self, ssrc: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.ssrc == ssrc || stream.rtx_ssrc == ssrc)
    }

    /// Sends again what the focus misses, as far as it is kept.
    pub fn resend(
        &mut self,
        at: usize,
        sequence: u16,
        srtp: &SrtpEgress,
        transport: &mut u16,
    ) -> Option<Vec<u8>> {
        let kept =
            self.streams[at].history.iter().rev().find(|kept| kept.sequence as u16 == sequence)?.clone();
        if !self.shape.is_video() {
            return Some(self.seal(at, &kept, None, srtp, transport));
        }
        let index = self.streams[at].rtx_sequence;
        self.streams[at].rtx_sequence += 1;
        Some(self.seal(at, &kept, Some(index), srtp, transport))
    }

    /// A packet of nothing but padding, as a sender makes to probe.
    pub fn padding(&mut self, at: usize, now: Instant, srtp: &SrtpEgress, transport: &mut u16) -> Vec<u8> {
        let timestamp = self.streams[at].timestamp_base.wrapping_add(self.ticks(self.clock(now)));
        let stream = &mut self.streams[at];
        let index = stream.sequence;
        stream.sequence += 1;
        let extensions = vec![(3, transport.to_be_bytes().to_vec())];
        *transport = transport.wrapping_add(1);
        let payload_type = ingress_payload_type(self.shape.codec).0;
        Rtp { ssrc: stream.ssrc, payload_type, index, timestamp, marker: false, extensions, padding: 200 }
            .seal(srtp, &[], &[])
    }

    /// The stream starts over under another SSRC.
    pub fn restart(&mut self, at: usize, ssrc: u32) {
        let stream = &mut self.streams[at];
        (stream.ssrc, stream.rtx_ssrc) = (ssrc, ssrc ^ 0xffff);
        (stream.sequence, stream.rtx_sequence, stream.sent) = (u64::from(ssrc as u16 >> 1), 5, 0);
        (stream.picture, stream.timestamp_base) = (ssrc as u16 & 0x7fff, ssrc.rotate_left(7));
        stream.wants_key = true;
        stream.history.clear();
    }

    /// The sender report of a stream as of now.
    pub fn report(&self, at: usize, now: Instant) -> SenderInfo {
        let micros = self.clock(now);
        let fraction = ((micros % 1_000_000) << 32) / 1_000_000;
        let stream = &self.streams[at];
        SenderInfo {
            ntp: ((3_900_000_000 + micros / 1_000_000) << 32) + fraction,
            rtp_timestamp: stream.timestamp_base.wrapping_add(self.ticks(micros)),
            packet_count: stream.sent as u32,
            octet_count: stream.octets as u32,
        }
    }
}

/// The packets of a frame: bytes in each, and how many.
fn cut(bytes: usize) -> (usize, u8) {
    let count = bytes.div_ceil(MAX_PAYLOAD).clamp(1, u8::MAX.into());
    (bytes.div_ceil(count), count as u8)
}

/// An RTP packet before it is sealed.
#[derive(Clone, Debug)]
pub struct Rtp {
    pub ssrc: u32,
    pub payload_type: u8,
    /// Extended sequence number.
    pub index: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub padding: u8,
}

impl Rtp {
    pub fn seal(&self, srtp: &SrtpEgress, prefix: &[u8], payload: &[u8]) -> Vec<u8> {
        let fixed = FixedHeader {
            marker: self.marker,
            payload_type: self.payload_type,
            sequence_number: self.index as u16,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            has_extension: !self.extensions.is_empty(),
            has_padding: self.padding > 0,
        };
        let mut header = fixed.to_bytes().to_vec();
        let mut block = [0; 400];
        let mut writer = ExtensionWriter::new(&mut block);
        for (id, data) in &self.extensions {
            assert!(writer.push(*id, data));
        }
        let len = writer.finish();
        header.extend(&block[..len]);
        let plain = Plain {
            ssrc: self.ssrc,
            index: self.index,
            header: &header,
            prefix,
            payload,
            padding: self.padding,
        };
        let mut packet =
            vec![0; header.len() + prefix.len() + payload.len() + usize::from(self.padding) + 16];
        let len = srtp.seal_rtp(&plain, &mut packet);
        packet.truncate(len);
        packet
    }
}
