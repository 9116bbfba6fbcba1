//! What it publishes: the encodings of a track, and when their packets are due.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use livekit_protocol as proto;
use rand::Rng;
use rtc::peer_connection::RTCPeerConnection;
use rtc::rtp::header::Header;
use rtc::rtp::packetizer::Payloader;
use rtc::rtp_transceiver::RTCRtpTransceiverId;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodingParameters, RTCRtpEncodingParameters, RTCRtpRtxParameters,
};

use crate::clip::{AUDIO_PACKETS_PER_SECOND, Clip, PICTURES_PER_SECOND};
use crate::codec::Codec;

/// With header extensions, SRTP and IP around it less than any path's MTU.
const LONGEST_PAYLOAD: usize = 1150;
/// Having fallen behind more than this it goes on from now, rather than catching up in a burst.
const MOST_BEHIND: Duration = Duration::from_millis(500);
/// In silence Opus sends a packet of 20 ms every 400 ms.
const QUIET_SPARSITY: u32 = 20;
pub const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
pub const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const VOICE: u8 = 0x80;

pub struct Publication {
    pub cid: String,
    pub sid: String,
    pub codec: Codec,
    encodings: Vec<Encoding>,
    is_muted: bool,
    /// Instants between two packets of sound.
    sparsity: u32,
    /// Once it has an m-line.
    pub transceiver: Option<RTCRtpTransceiverId>,
    /// Once that is negotiated.
    sending: Option<Sending>,
    pub due: Instant,
}

/// How its packets are marked.
pub struct Sending {
    mid: Bytes,
    mid_id: Option<u8>,
    rid_id: Option<u8>,
    level_id: Option<u8>,
}

struct Encoding {
    clip: Clip,
    rid: Option<&'static str>,
    ssrc: u32,
    rtx_ssrc: u32,
    payloader: Box<dyn Payloader>,
    sequence_number: u16,
    timestamp: u32,
    position: usize,
    is_wanted: bool,
}

impl Publication {
    pub fn new(
        codec: Codec,
        simulcast: bool,
        is_quiet: bool,
        now: Instant,
        random: &mut impl Rng,
    ) -> Result<Self> {
        let mut clips = if codec == Codec::Opus { vec![Clip::tone()?] } else { Clip::pictures(codec)? };
        if !simulcast {
            clips.drain(..clips.len() - 1);
        }
        let rids: &[_] = if clips.len() > 1 { &[Some("q"), Some("h"), Some("f")] } else { &[None] };
        let encodings = rids.iter().zip(clips).map(|(rid, clip)| Encoding {
            clip,
            rid: *rid,
            ssrc: random.random(),
            rtx_ssrc: random.random(),
            payloader: codec.payloader(),
            sequence_number: random.random(),
            timestamp: random.random(),
            position: 0,
            is_wanted: true,
        });
        Ok(Self {
            encodings: encodings.collect(),
            cid: format!("peer-{:016x}", random.random::<u64>()),
            sid: String::new(),
            codec,
            is_muted: false,
            sparsity: if is_quiet && codec == Codec::Opus { QUIET_SPARSITY } else { 1 },
            transceiver: None,
            sending: None,
            due: now,
        })
    }

    pub fn layers(&self) -> Vec<proto::VideoLayer> {
        let single = self.encodings.len() == 1;
        let layers = self.encodings.iter().enumerate().map(|(at, encoding)| proto::VideoLayer {
            quality: if single { proto::VideoQuality::High as i32 } else { at as i32 },
            width: encoding.clip.width,
            height: encoding.clip.height,
            bitrate: 100_000,
            ..proto::VideoLayer::default()
        });
        layers.filter(|layer| layer.width > 0).collect()
    }

    pub fn encoding_parameters(&self) -> Vec<RTCRtpEncodingParameters> {
        let codec = &self.codec.parameters()[0].rtp_codec;
        let parameters = self.encodings.iter().map(|encoding| RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                rid: encoding.rid.unwrap_or_default().to_owned(),
                ssrc: Some(encoding.ssrc),
                rtx: self.codec.is_video().then_some(RTCRtpRtxParameters { ssrc: encoding.rtx_ssrc }),
                fec: None,
            },
            active: true,
            codec: codec.clone(),
            ..RTCRtpEncodingParameters::default()
        });
        parameters.collect()
    }

    /// After negotiation: what to mark packets with.
    pub fn learn(&mut self, sending: Sending, now: Instant) {
        if self.sending.is_none() {
            self.due = now;
        }
        self.sending = Some(sending);
    }

    /// A key frame of the encoding is wanted.
    pub fn begin_anew(&mut self, ssrc: u32) {
        for encoding in self.encodings.iter_mut().filter(|encoding| encoding.ssrc == ssrc) {
            encoding.position = 0;
        }
    }

    pub fn mute(&mut self, is_muted: bool) {
        self.is_muted = is_muted;
        for encoding in &mut self.encodings {
            encoding.position = 0; // the first picture after the pause can be decoded by itself
        }
    }

    /// Sends what subscribers want and no more (dynacast).
    pub fn want(&mut self, qualities: &[proto::SubscribedQuality]) {
        let single = self.encodings.len() == 1;
        for (at, encoding) in self.encodings.iter_mut().enumerate() {
            let wanted = qualities.iter().any(|one| one.enabled && (single || one.quality == at as i32));
            if wanted && !encoding.is_wanted {
                encoding.position = 0;
            }
            encoding.is_wanted = wanted;
        }
    }

    /// The next instant's packets, if it has come.
    pub fn packets(&mut self, now: Instant) -> Vec<rtc::rtp::Packet> {
        let Some(sending) = self.sending.as_ref().filter(|_| now >= self.due) else { return Vec::new() };
        let per_second = if self.codec.is_video() { PICTURES_PER_SECOND } else { AUDIO_PACKETS_PER_SECOND };
        let interval = Duration::from_secs(1) * self.sparsity / per_second;
        self.due = if now > self.due + MOST_BEHIND { now } else { self.due } + interval;
        let step = self.sparsity * self.codec.clock_rate() / per_second;
        let mut packets = Vec::new();
        for encoding in &mut self.encodings {
            encoding.timestamp = encoding.timestamp.wrapping_add(step);
            if self.is_muted || !encoding.is_wanted {
                continue;
            }
            encoding.packetise(self.codec, sending, &mut packets);
        }
        packets
    }
}

impl Encoding {
    fn packetise(&mut self, codec: Codec, sending: &Sending, packets: &mut Vec<rtc::rtp::Packet>) {
        let frame = &self.clip.frames[self.position];
        let level = self.clip.levels.get(self.position).copied();
        self.position = (self.position + 1) % self.clip.frames.len();
        let payloads = self.payloader.payload(LONGEST_PAYLOAD, frame).unwrap_or_default();
        let last = payloads.len().saturating_sub(1);
        for (at, payload) in payloads.into_iter().enumerate() {
            let mut header = Header {
                version: 2,
                payload_type: codec.payload_type(),
                ssrc: self.ssrc,
                sequence_number: self.sequence_number,
                timestamp: self.timestamp,
                marker: codec.is_video() && at == last,
                ..Header::default()
            };
            let rid = self.rid.map(|rid| Bytes::from_static(rid.as_bytes()));
            let level = level.map(|level| Bytes::copy_from_slice(&[VOICE | level]));
            let extensions = [
                (sending.mid_id, Some(sending.mid.clone())),
                (sending.rid_id, rid),
                (sending.level_id, level),
            ];
            for (id, value) in extensions {
                if let (Some(id), Some(value)) = (id, value) {
                    // Ids are as negotiated and values are short.
                    let _ = header.set_extension(id, value);
                }
            }
            self.sequence_number = self.sequence_number.wrapping_add(1);
            packets.push(rtc::rtp::Packet { header, payload });
        }
    }
}

impl Sending {
    /// What was negotiated for the transceiver, once it was.
    pub fn negotiated(pc: &mut RTCPeerConnection, transceiver: RTCRtpTransceiverId) -> Option<Self> {
        let mid = pc.rtp_transceiver(transceiver)?.mid().clone()?;
        let mut sender = pc.rtp_sender(transceiver.into())?;
        let parameters = sender.get_parameters();
        let extensions = &parameters.rtp_parameters.header_extensions;
        let id_of = |uri| extensions.iter().find(|extension| extension.uri == uri)?.id.try_into().ok();
        Some(Self { mid: mid.into(), mid_id: id_of(MID), rid_id: id_of(RID), level_id: id_of(AUDIO_LEVEL) })
    }
}
