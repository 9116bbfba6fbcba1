//! One source that a participant offers, with its encodings.

use std::time::{Duration, Instant};

use weir_units::ids::{ConferenceId, PublicationId};
use weir_units::media::{Codec, Encoding, IngressMedia, MediaKind, PayloadFormat};

use crate::allocation::LayerRates;
use crate::ingress::activity::Activity;
use crate::ingress::nack::{LossCounts, LossRegister};
use crate::ingress::stats::{ReceiverStats, SenderClock};
use crate::ingress::structures::Structures;
use crate::key_frames::KeyFrameRequests;
use crate::ring::PacketRing;

pub(crate) struct Publication {
    pub id: PublicationId,
    pub peer: u32,
    pub conference: u32,
    /// The same by its name, for events.
    pub conference_id: ConferenceId,
    pub media: IngressMedia,
    pub muted: bool,
    pub encodings: Vec<EncodingState>,
    /// Dense, for the loop that forwards.
    pub subscribers: Vec<u32>,
    /// The first packet was told to the control plane.
    pub started: bool,
    /// What was last told to the control plane as wanted; bit n is spatial layer n.
    pub layers_wanted: u8,
    /// What its layers cost.
    pub rates: LayerRates,
    /// Which encodings flowed when that was last looked at; bit n is encoding n. What subscribers aim for follows it.
    pub flowing: u8,
    /// How far its encodings had come then.
    pub position: u64,
    /// When to look at it again, though nothing else happens.
    pub next_look: Option<Instant>,
}

/// One RTP stream of a publication.
pub(crate) struct EncodingState {
    pub ssrc: Option<u32>,
    pub ring: PacketRing,
    pub losses: LossRegister,
    /// What of the register's totals the shard has counted.
    pub counted: LossCounts,
    pub stats: ReceiverStats,
    pub key_frames: KeyFrameRequests,
    /// Whether it flows.
    pub activity: Activity,
    /// What its dependency descriptors refer to.
    pub structures: Structures,
    /// The publisher's last sender report, to align encodings and to tell subscribers.
    pub report: Option<SenderReportAt>,
    /// Added to the extended sequence numbers of the present SSRC, so that a new SSRC of the same encoding goes on
    /// above the old one's numbers instead of among them.
    pub base: u64,
}

/// A mapping of a publisher's clock to an encoding's RTP timestamps, and when we heard it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderReportAt {
    pub clock: SenderClock,
    pub arrived: Instant,
}

impl Publication {
    pub fn new(
        now: Instant,
        id: PublicationId,
        peer: u32,
        (conference, conference_id): (u32, ConferenceId),
        media: IngressMedia,
    ) -> Self {
        let mut encodings: Vec<_> = media.encodings.iter().map(|_| EncodingState::new(media.kind)).collect();
        // Nobody wants them yet.
        encodings.iter_mut().for_each(|encoding| encoding.activity.excuse());
        Self {
            id,
            peer,
            conference,
            conference_id,
            media,
            muted: false,
            encodings,
            subscribers: Vec::new(),
            started: false,
            layers_wanted: 0,
            rates: LayerRates::new(now),
            flowing: 0,
            position: 0,
            next_look: None,
        }
    }

    /// The format of a payload type, and whether it is the format's retransmission payload type.
    pub fn format(&self, payload_type: u8) -> Option<(PayloadFormat, bool)> {
        self.media.formats.iter().find_map(|format| {
            if format.payload_type == payload_type {
                Some((*format, false))
            } else if format.rtx_payload_type == Some(payload_type) {
                Some((*format, true))
            } else {
                None
            }
        })
    }

    pub fn announces(&self, ssrc: u32) -> bool {
        let is_it = |encoding: &Encoding| encoding.ssrc == Some(ssrc) || encoding.rtx_ssrc == Some(ssrc);
        self.media.encodings.iter().any(is_it)
    }

    /// Whether packets of that SSRC may show which codec this is. Where SSRCs were announced, another may be the rest of
    /// what the m-line carried before.
    pub fn may_be(&self, ssrc: u32) -> bool {
        let is_undecided = self.is_video() && !self.started && self.media.formats.len() > 1;
        let is_announced = self.media.encodings.iter().any(|encoding| encoding.ssrc.is_some());
        !is_undecided || !is_announced || self.announces(ssrc)
    }

    /// The first packet shows which of the agreed video codecs this is. Nothing else is taken from then on.
    pub fn decide(&mut self, codec: Codec) {
        if self.is_video() {
            self.media.formats.retain(|format| format.codec == codec);
        }
    }

    /// Payload types may have moved; a codec that is decided stays.
    pub fn renegotiate(&mut self, mut formats: Vec<PayloadFormat>) {
        let decided = self.media.formats.first().filter(|_| self.started && self.is_video());
        if let Some(codec) = decided.map(|format| format.codec)
            && formats.iter().any(|format| format.codec == codec)
        {
            formats.retain(|format| format.codec == codec);
        }
        self.media.formats = formats;
    }

    pub fn is_video(&self) -> bool {
        self.media.kind == MediaKind::Video
    }

    /// One stream that carries several spatial layers, instead of one stream a layer.
    pub fn is_layered(&self) -> bool {
        self.encodings.len() == 1
            && self.media.formats.iter().any(|format| matches!(format.codec, Codec::Vp9 | Codec::Av1))
    }

    /// Notes which encodings flow. Says whether that changed.
    pub fn look_at_layers(&mut self, now: Instant) -> bool {
        let active = self.encodings.iter().map(|encoding| encoding.activity.is_active(now));
        let flowing = active.enumerate().fold(0, |bits, (at, is_active)| bits | u8::from(is_active) << at);
        std::mem::replace(&mut self.flowing, flowing) != flowing
    }

    /// Notes how far its encodings have come. Says whether any packet came since the last time.
    pub fn has_moved(&mut self) -> bool {
        let position = self.encodings.iter().filter_map(|encoding| encoding.ring.latest()).sum();
        std::mem::replace(&mut self.position, position) != position
    }

    /// Gives the memory back of encodings of which nothing came for long: of a muted camera, of a layer that nobody wants.
    pub fn forget_old(&mut self, now: Instant) {
        for encoding in &mut self.encodings {
            if encoding.ring.last_written().is_some_and(|at| now >= at + KEPT) {
                encoding.ring.clear();
            }
        }
    }

    /// Which encoding an unknown SSRC is, by its RID; the only one there is needs none.
    pub fn encoding_of(&self, rid: Option<weir_units::media::Rid>, ssrc: u32) -> Option<u8> {
        let announced = |encoding: &weir_units::media::Encoding| {
            encoding.ssrc == Some(ssrc) || encoding.rtx_ssrc == Some(ssrc)
        };
        let at = match rid {
            Some(rid) => self.media.encodings.iter().position(|encoding| encoding.rid == Some(rid)),
            None => self.media.encodings.iter().position(announced),
        };
        at.or((self.encodings.len() == 1).then_some(0)).map(|at| at as u8)
    }
}

/// What came longer ago nobody can use any more: rings keep a stream that flows no longer either.
const KEPT: Duration = Duration::from_secs(10);

/// Room between the numbers of an encoding's successive SSRCs: more than any reordering.
const GENERATION_GAP: u64 = 1 << 20;

impl EncodingState {
    fn new(kind: MediaKind) -> Self {
        Self {
            ssrc: None,
            ring: PacketRing::new(kind),
            losses: LossRegister::new(kind),
            counted: LossCounts::default(),
            stats: ReceiverStats::new(kind),
            key_frames: KeyFrameRequests::default(),
            activity: Activity::default(),
            structures: Structures::default(),
            report: None,
            base: 0,
        }
    }

    /// The encoding goes on under another SSRC.
    pub fn rebind(&mut self, kind: MediaKind, ssrc: u32) {
        if let Some(latest) = self.ring.latest() {
            self.base = (latest + GENERATION_GAP) & !0xffff; // the low 16 bits stay those on the wire
        }
        self.ssrc = Some(ssrc);
        self.losses = LossRegister::new(kind);
        self.counted = LossCounts::default();
        self.stats = ReceiverStats::new(kind);
        self.report = None;
        self.structures.clear();
    }

    /// The number of a packet that a retransmission names by its 16 bits: the nearest to the latest. `None` when it is
    /// ahead of the latest or from before the present SSRC: a straggler of the stream before it names numbers that mean
    /// nothing here, and one taken for the newest would make everything else too old.
    pub fn extend(&self, sequence_number: u16) -> Option<u64> {
        let latest = self.ring.latest()?;
        let distance = sequence_number.wrapping_sub(latest as u16) as i16;
        let sequence = latest.checked_add_signed(i64::from(distance))?;
        (self.base..=latest).contains(&sequence).then_some(sequence)
    }
}
