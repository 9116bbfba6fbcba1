//! One participant's wish for a publication, and what it takes to send it.

use std::time::{Duration, Instant};

use rand::Rng;
use weir_rate::Time;
use weir_rtp::extension::{ExtensionWriter, transport_sequence_block};
use weir_rtp::header::{FIXED_HEADER_LEN, FixedHeader};
use weir_rtp::red;
use weir_transport::Route;
use weir_transport::srtp::{Plain, SrtpEgress};
use weir_units::ids::SubscriptionId;
use weir_units::media::{Codec, EgressMedia, Layer, MediaKind, PayloadFormat, Wish};

use crate::allocation::Grant;
use crate::downlink::{BELOW_RTP, Downlink};
use crate::egress::Egress;
use crate::ingress::stats::SenderClock;
use crate::offer::Offer;
use crate::publication::{EncodingState, Publication};
use crate::resends::Resends;
use crate::rewrite::frame_number::{FrameNumbers, MANDATORY_FIELDS};
use crate::rewrite::markers::Markers;
use crate::rewrite::select::{Decision, Mode, Selector};
use crate::rewrite::sequence::{Dropped, SequenceMap};
use crate::rewrite::timeline::Timeline;
use crate::rewrite::vp8::{Prefix, Vp8Numbers};
use crate::sent::{Fate, Sent};
use crate::standstill::Standstill;

/// The longest header: fixed part, and an extension block with the longest dependency descriptor.
const MAX_HEADER: usize = FIXED_HEADER_LEN + 4 + 4 + 256;

/// Packets of a stream without retransmission stream that can go again: 1.3 s of audio, more than any receiver waits.
const REPEATABLE: usize = 64;
/// A first picture comes within this of its grant, replayed or asked for, unless a publisher answers no requests.
const LATE: Duration = Duration::from_millis(500);
/// A header extension block with nothing but a transport-wide number, in bytes.
const TRANSPORT_CC_LEN: usize = 8;

pub(crate) struct Subscription {
    pub id: SubscriptionId,
    pub peer: u32,
    pub publication: u32,
    pub wish: Wish,
    /// What of the wish it is sent.
    pub granted: Grant,
    /// When it was last granted another layer.
    pub regranted: Option<Instant>,
    /// Since when it is granted some layer or other.
    pub granted_since: Option<Instant>,
    /// The control plane was told that nothing is sent for want of room.
    pub paused: bool,
    ssrc: u32,
    rtx_ssrc: Option<u32>,
    formats: Vec<PayloadFormat>,
    /// The first of them, which nearly all packets have, at hand.
    first_format: Option<PayloadFormat>,
    dependency_descriptor_id: Option<u8>,
    transport_cc_id: Option<u8>,
    /// The transport-wide numbers of what was sent last, if it must go again as it was.
    transport_numbers: Option<TransportNumbers>,
    /// Video has layers to select from; audio goes as it comes.
    selector: Option<Selector>,
    /// Audio begins a new stretch with its next packet.
    restart: bool,
    /// The encoding last sent, for the clock to go on from.
    encoding: u8,
    sequence: SequenceMap,
    timeline: Timeline,
    markers: Markers,
    numbers: Numbers,
    rtx_sequence: u64,
    resends: Resends,
    pub sent: Sent,
    pub standstill: Standstill,
    /// The first packet was told to the control plane.
    pub started: bool,
    /// The last two sender reports, newest first: their compact NTP time, and when they went. A receiver may answer
    /// the one before while the newest is under way.
    reported: [Option<(u32, Instant)>; 2],
}

/// Numbers inside the payload or an extension that must go on across switches.
enum Numbers {
    None,
    Vp8(Vp8Numbers),
    Frames(FrameNumbers),
}

/// Where and how a peer is sent to.
pub(crate) struct Way<'a> {
    pub srtp: &'a SrtpEgress,
    pub route: Route,
    /// Unless nobody reports on what arrives.
    pub line: Option<&'a mut Downlink>,
    /// On the line's clock.
    pub time: Time,
}

/// The numbers of a packet that leaves.
#[derive(Clone, Copy)]
struct Named<'a> {
    /// In its stream.
    number: u64,
    /// For SRTP: in the stream of the header's SSRC.
    index: u64,
    /// The number that a retransmission has before its payload.
    original: &'a [u8],
    /// It must be what was sent before, to the bit.
    again: bool,
}

impl Named<'_> {
    fn first(number: u64) -> Self {
        Self { number, index: number, original: &[], again: false }
    }
}

/// What became of an offered packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Sent,
    /// Sent, and it began a new stretch: later packets of its encoding may be in the ring already.
    Started,
    NotSent,
}

impl Subscription {
    pub fn new(
        id: SubscriptionId,
        peer: u32,
        publication: u32,
        source: &Publication,
        media: EgressMedia,
        wish: Wish,
        rng: &mut impl Rng,
    ) -> Self {
        let mode = if source.is_layered() {
            Mode::Layered
        } else {
            Mode::Simulcast { encodings: source.encodings.len() as u8 }
        };
        let numbers = match source.media.formats.first().map(|format| format.codec) {
            Some(Codec::Vp8) => Numbers::Vp8(Vp8Numbers::default()),
            Some(Codec::Av1 | Codec::Vp9) => Numbers::Frames(FrameNumbers::default()),
            _ => Numbers::None,
        };
        let clock_rate = media.formats.first().map_or(90_000, |format| format.codec.clock_rate());
        // One cycle up leaves room for what was reordered before the first; below half a cycle the rollover counter
        // of a receiver that misses the first packets stays right (RFC 3711 §3.3.1).
        let mut first = || (1 << 16) + u64::from(rng.random::<u16>() >> 1);
        let (sequence, rtx_sequence) = (first(), first());
        Self {
            id,
            peer,
            publication,
            wish,
            granted: Grant::all_of(&wish),
            regranted: None,
            granted_since: None,
            paused: false,
            ssrc: media.ssrc,
            rtx_ssrc: media.rtx_ssrc,
            dependency_descriptor_id: media.extensions.dependency_descriptor,
            transport_cc_id: media.extensions.transport_cc,
            transport_numbers: (media.rtx_ssrc.is_none()
                || media.formats.iter().any(|format| format.rtx_payload_type.is_none()))
            .then(TransportNumbers::default),
            first_format: media.formats.first().copied(),
            formats: media.formats,
            selector: (media.kind == MediaKind::Video).then(|| Selector::new(mode)),
            restart: true,
            encoding: 0,
            sequence: SequenceMap::new(sequence - (1 << 16)),
            timeline: Timeline::new(clock_rate, rng.random()),
            markers: Markers::default(),
            numbers,
            rtx_sequence: rtx_sequence - (1 << 16),
            resends: Resends::new(media.kind),
            sent: Sent::default(),
            standstill: Standstill::default(),
            started: false,
            reported: [None; 2],
        }
    }

    /// What to aim for, within the wish; `None` pauses.
    pub fn set_target(&mut self, target: Option<Layer>) {
        if let Some(selector) = &mut self.selector
            && selector.target() != target
        {
            selector.set_target(target);
        }
    }

    /// The source began anew under another SSRC.
    pub fn on_source_restart(&mut self, encoding: u8) {
        match &mut self.selector {
            // The rest of a picture may still come: it was under way.
            Some(selector) if selector.encoding() == Some(encoding) => selector.end(),
            Some(_) => {}
            None => self.restart = true,
        }
    }

    /// The encoding that must send a key frame before what is wanted can be sent.
    pub fn wants_key_frame(&self) -> Option<u8> {
        self.selector.as_ref().and_then(Selector::wants_key_frame)
    }

    /// The encoding being sent.
    pub fn encoding(&self) -> Option<u8> {
        match &self.selector {
            Some(selector) => selector.encoding(),
            None => (!self.restart).then_some(self.encoding),
        }
    }

    /// Whether packets of that picture of the encoding are of any concern at present: it is being sent, or about to be.
    #[inline]
    pub fn concerns(&self, encoding: u8, timestamp: u32) -> bool {
        self.selector.as_ref().is_none_or(|selector| selector.concerns(encoding, timestamp))
    }

    /// A packet will not be offered.
    pub fn skip(&mut self, encoding: u8, sequence: u64) {
        if let Some(selector) = &mut self.selector {
            selector.skip(encoding, sequence);
        }
    }

    /// A key frame waits and will be offered.
    pub fn expect_key_frame(&mut self, encoding: u8) {
        if let Some(selector) = &mut self.selector {
            selector.expect_key_frame(encoding);
        }
    }

    /// All of the encoding from a key frame on will be offered.
    pub fn offer_anew(&mut self, encoding: u8) {
        if let Some(selector) = &mut self.selector {
            selector.offer_anew(encoding);
        }
    }

    /// The encoding and timestamp of a picture of which part was sent.
    pub fn begun(&self) -> Option<(u8, u32)> {
        self.selector.as_ref().and_then(Selector::begun)
    }

    /// Ends what is sent with its picture, if it is more than is aimed for: there is no room to go on until a key frame comes.
    /// Says whether it does.
    pub fn hurry(&mut self) -> bool {
        self.selector.as_mut().is_some_and(Selector::leave)
    }

    pub fn is_video(&self) -> bool {
        self.selector.is_some()
    }

    /// Whether the packet that has this egress number is of a picture that another encoding's pictures follow, or are
    /// about to.
    pub fn is_past(&mut self, sequence_number: u16) -> bool {
        let number = self.sequence.extend_egress(sequence_number);
        let Some((encoding, ingress)) = self.sequence.ingress_of(number) else { return false };
        self.selector.as_ref().is_some_and(|selector| selector.is_past(encoding, ingress))
    }

    /// Goes on with a key frame only.
    pub fn restart(&mut self) {
        if let Some(selector) = &mut self.selector {
            selector.restart();
        }
    }

    /// Decides on one packet and sends it if it is wanted.
    #[inline]
    pub fn offer(
        &mut self,
        now: Instant,
        offer: &Offer<'_>,
        clocks: &[EncodingState],
        way: &mut Way<'_>,
        egress: &mut Egress,
    ) -> Outcome {
        let facts = &offer.facts;
        let decision = match &mut self.selector {
            Some(selector) => selector.select(facts),
            None if !self.wish.enabled => {
                self.restart = true;
                return Outcome::NotSent;
            }
            None if facts.is_padding => Decision::Drop,
            None if std::mem::take(&mut self.restart) => Decision::Start { marker: facts.marker },
            None => Decision::Forward { marker: facts.marker },
        };
        match decision {
            Decision::Wait => Outcome::NotSent,
            Decision::Drop => {
                let before = self.sequence.next_egress();
                let dropped = self.sequence.drop(facts.encoding, facts.sequence);
                if let Dropped::Open(number) = dropped {
                    self.fill(offer, number, way, egress);
                }
                let is_late = dropped != Dropped::Closed || self.sequence.next_egress() < before;
                if !facts.is_padding && !is_late {
                    let next = self.sequence.next_egress();
                    self.timeline.drop(next, facts.timestamp);
                    match &mut self.numbers {
                        Numbers::Vp8(numbers) => numbers.drop_picture(next, offer.packet.payload),
                        Numbers::Frames(numbers) => numbers.drop(offer.packet.dependency_descriptor),
                        Numbers::None => {}
                    }
                }
                Outcome::NotSent
            }
            Decision::Start { marker } => {
                let number = self.sequence.start(facts.encoding, facts.sequence);
                let clock = |encoding: u8| -> Option<SenderClock> {
                    clocks.get(usize::from(encoding))?.stats.sender_clock()
                };
                self.timeline.start_with_past(
                    now,
                    offer.packet.meta.arrived,
                    number,
                    facts.timestamp,
                    clock(self.encoding),
                    clock(facts.encoding),
                );
                self.encoding = facts.encoding;
                match &mut self.numbers {
                    Numbers::Vp8(numbers) => numbers.start(number, offer.packet.payload),
                    Numbers::Frames(numbers) => numbers.start(number, offer.packet.dependency_descriptor),
                    Numbers::None => {}
                }
                match self.send(offer, number, marker, way, egress) {
                    true => Outcome::Started,
                    false => Outcome::NotSent,
                }
            }
            Decision::Forward { marker } => {
                let Some(number) = self.sequence.forward(facts.encoding, facts.sequence) else {
                    return Outcome::NotSent;
                };
                match self.send(offer, number, marker, way, egress) {
                    true => Outcome::Sent,
                    false => Outcome::NotSent,
                }
            }
        }
    }

    fn send(
        &mut self,
        offer: &Offer<'_>,
        number: u64,
        marker: bool,
        way: &mut Way<'_>,
        egress: &mut Egress,
    ) -> bool {
        let Some(timestamp) = self.timeline.forward(offer.packet.meta.arrived, number, offer.facts.timestamp)
        else {
            return false;
        };
        let Some(format) = self.format(offer.codec) else { return false };
        // Without a retransmission stream the packet may go again under its number, and then without padding.
        let may_pad = self.has_rtx(format);
        let fixed = FixedHeader {
            marker,
            payload_type: format.payload_type,
            sequence_number: number as u16,
            timestamp,
            ssrc: self.ssrc,
            has_extension: false,
            has_padding: offer.padding > 0 && may_pad,
        };
        let named = Named::first(number);
        let Some(len) = self.seal(offer, named, fixed, way, egress) else { return false };
        self.markers.note(number, marker && !offer.facts.marker);
        self.sent.packets = self.sent.packets.wrapping_add(1);
        self.sent.octets = self.sent.octets.wrapping_add((len - FIXED_HEADER_LEN) as u32);
        true
    }

    fn has_rtx(&self, format: PayloadFormat) -> bool {
        self.rtx_ssrc.is_some() && format.rtx_payload_type.is_some()
    }

    /// A packet came late that is not for this subscriber, and its number had been left open: the receiver asks for it
    /// until something comes. Padding comes. Without a retransmission stream nothing does, since the packet itself
    /// could go under the same number later.
    fn fill(&mut self, offer: &Offer<'_>, number: u64, way: &mut Way<'_>, egress: &mut Egress) {
        let Some(format) = self.format(offer.codec).filter(|format| self.has_rtx(*format)) else { return };
        let Some(timestamp) = self.timeline.at(number, offer.facts.timestamp) else { return };
        self.sequence.fill(number);
        let fixed = FixedHeader {
            marker: false,
            payload_type: format.payload_type,
            sequence_number: number as u16,
            timestamp,
            ssrc: self.ssrc,
            has_extension: false,
            has_padding: true,
        };
        let plain = Plain {
            ssrc: self.ssrc,
            index: number,
            header: &fixed.to_bytes(),
            prefix: &[],
            payload: &[],
            padding: 1,
        };
        if egress.push(way.route, |out| way.srtp.seal_rtp(&plain, out)).is_some() {
            self.sent.packets = self.sent.packets.wrapping_add(1);
        }
    }

    /// What became of what was sent since the receiver's last report, now that it reports so many 256ths lost.
    pub fn judge(&mut self, fraction_lost: u8) -> Fate {
        self.sent.judge(fraction_lost, self.sequence.left_out())
    }

    /// The packet that has this egress number, if it may be sent again or was not sent at all: [`Self::is_open`].
    pub fn source_of(&mut self, now: Instant, sequence_number: u16) -> Option<(u64, u8, u64)> {
        let number = self.sequence.extend_egress(sequence_number);
        let (encoding, ingress) = self.sequence.ingress_of(number)?;
        let may_go = match self.is_open(number) {
            true => self.encoding().is_some(),
            false => self.resends.may(now, number, self.sent.octets),
        };
        may_go.then_some((number, encoding, ingress))
    }

    /// Whether nothing was sent under this egress number yet, though something may be.
    pub fn is_open(&self, number: u64) -> bool {
        self.sequence.is_open(number)
    }

    /// Sends a packet again, on the retransmission stream if there is one
    /// ([RFC 4588](https://www.rfc-editor.org/rfc/rfc4588)).
    pub fn resend(&mut self, offer: &Offer<'_>, number: u64, way: &mut Way<'_>, egress: &mut Egress) -> bool {
        let Some(timestamp) = self.timeline.at(number, offer.facts.timestamp) else { return false };
        let Some(format) = self.format(offer.codec) else { return false };
        let is_known = self.sequence.is_within(number);
        let marker = offer.facts.marker || is_known && self.markers.is_added(number);
        let mut fixed = FixedHeader {
            marker,
            payload_type: format.payload_type,
            sequence_number: number as u16,
            timestamp,
            ssrc: self.ssrc,
            has_extension: false,
            has_padding: false,
        };
        let (Some(rtx_ssrc), Some(rtx_payload_type)) = (self.rtx_ssrc, format.rtx_payload_type) else {
            // Without a retransmission stream the same packet goes again under the same number. It must be the same to
            // the bit: a second plaintext under one number of the cipher would give both away. A marker that
            // we added may be forgotten by then.
            if !is_known || offer.facts.frame_end && !offer.facts.marker {
                return false;
            }
            let named = Named { again: true, ..Named::first(number) };
            let len = self.seal(offer, named, fixed, way, egress);
            self.resends.on_again(len.unwrap_or(0));
            return len.is_some();
        };
        fixed.ssrc = rtx_ssrc;
        fixed.payload_type = rtx_payload_type;
        fixed.sequence_number = self.rtx_sequence as u16;
        let original = (number as u16).to_be_bytes();
        if self.sequence.is_filled(number) {
            fixed.marker = false;
            let (index, header) = (self.rtx_sequence, fixed.to_bytes());
            let plain =
                Plain { ssrc: rtx_ssrc, index, header: &header, prefix: &original, payload: &[], padding: 0 };
            let sent = egress.push(way.route, |out| way.srtp.seal_rtp(&plain, out)).is_some();
            self.rtx_sequence += u64::from(sent);
            return sent;
        }
        let named = Named { number, index: self.rtx_sequence, original: &original, again: false };
        let len = self.seal(offer, named, fixed, way, egress);
        self.resends.on_again(len.unwrap_or(0));
        self.rtx_sequence += u64::from(len.is_some());
        len.is_some()
    }

    /// Whether a first picture should have come by now. Then padding alone looks for what the line carries, so that the
    /// picture is the right one when it comes; earlier it would, of many who join behind one line, keep pictures from all.
    fn is_late(&self, now: Instant) -> bool {
        !self.started && self.wish.enabled && self.granted_since.is_some_and(|at| now >= at + LATE)
    }

    /// Whether padding can be sent on it, see [`Self::probe`].
    pub fn can_probe(&self, now: Instant) -> bool {
        (self.started || self.is_late(now))
            && self.rtx_ssrc.is_some()
            && self.transport_cc_id.is_some()
            && self.is_video()
    }

    /// Sends so many bytes of padding, and at most what one packet takes, on the retransmission stream
    /// ([RFC 4588 §4](https://www.rfc-editor.org/rfc/rfc4588#section-4) has packets of padding only in mind). False if there is
    /// none, or it is not [`Self::can_probe`].
    pub fn probe(&mut self, now: Instant, bytes: usize, way: &mut Way<'_>, egress: &mut Egress) -> bool {
        let rtx = self.formats.iter().find_map(|format| format.rtx_payload_type);
        let (Some(rtx_ssrc), Some(payload_type), Some(id)) = (self.rtx_ssrc, rtx, self.transport_cc_id)
        else {
            return false;
        };
        let timestamp = self.timeline.newest();
        let Some(line) = way.line.as_deref_mut().filter(|_| self.can_probe(now)) else { return false };
        let around = FIXED_HEADER_LEN + TRANSPORT_CC_LEN + way.srtp.overhead() + BELOW_RTP;
        let padding = bytes.saturating_sub(around).clamp(1, usize::from(u8::MAX)) as u8;
        let fixed = FixedHeader {
            marker: false,
            payload_type,
            sequence_number: self.rtx_sequence as u16,
            timestamp,
            ssrc: rtx_ssrc,
            has_extension: true,
            has_padding: true,
        };
        let mut header = [0; FIXED_HEADER_LEN + TRANSPORT_CC_LEN];
        header[..FIXED_HEADER_LEN].copy_from_slice(&fixed.to_bytes());
        let number = line.on_sent(way.time, around + usize::from(padding));
        let mut writer = ExtensionWriter::new(&mut header[FIXED_HEADER_LEN..]);
        if !writer.push(id, &number.to_be_bytes()) {
            return false;
        }
        let len = FIXED_HEADER_LEN + writer.finish();
        let (index, header) = (self.rtx_sequence, &header[..len]);
        let plain = Plain { ssrc: rtx_ssrc, index, header, prefix: &[], payload: &[], padding };
        let sent = egress.push(way.route, |out| way.srtp.seal_rtp(&plain, out)).is_some();
        self.rtx_sequence += u64::from(sent);
        sent
    }

    /// Rewrites what is inside and writes the protected packet.
    #[inline]
    fn seal(
        &mut self,
        offer: &Offer<'_>,
        named: Named<'_>,
        mut fixed: FixedHeader,
        way: &mut Way<'_>,
        egress: &mut Egress,
    ) -> Option<usize> {
        let Named { number, index, original, again } = named;
        let mut payload = offer.packet.payload;
        if offer.codec == Codec::Red && !self.formats.iter().any(|format| format.codec == Codec::Red) {
            (_, payload) = red::primary(payload)?;
        }
        let mut rewritten = Prefix::default();
        let mut header = [0; MAX_HEADER];
        let mut writer = ExtensionWriter::new(&mut header[FIXED_HEADER_LEN..]);
        match &mut self.numbers {
            Numbers::Vp8(numbers) => {
                rewritten = numbers.forward(number, payload)?;
                payload = &payload[rewritten.replaces()..];
            }
            Numbers::Frames(numbers) if !offer.packet.dependency_descriptor.is_empty() => {
                if let Some(id) = self.dependency_descriptor_id {
                    let mut descriptor = [0; 256];
                    let source = offer.packet.dependency_descriptor;
                    let descriptor = descriptor.get_mut(..source.len())?;
                    descriptor.copy_from_slice(source);
                    let fields = numbers.forward(number, source)?;
                    descriptor[..MANDATORY_FIELDS].copy_from_slice(&fields);
                    fixed.has_extension = writer.push(id, descriptor);
                }
            }
            _ => {}
        }
        let padding = if fixed.has_padding { offer.padding } else { 0 };
        let rewritten = rewritten.as_bytes();
        let body = original.len() + rewritten.len() + payload.len() + usize::from(padding);
        let extensions = TRANSPORT_CC_LEN + offer.packet.dependency_descriptor.len();
        let bytes = body + FIXED_HEADER_LEN + extensions + way.srtp.overhead() + BELOW_RTP;
        let mut transport = None;
        if let Some(line) = way.line.as_deref_mut().filter(|line| line.is_reported()) {
            line.on_sent_unnumbered(way.time, bytes);
        } else if let (Some(id), Some(line)) = (self.transport_cc_id, way.line.as_deref_mut()) {
            let transport_number = if again {
                self.transport_numbers.as_ref()?.of(number)?
            } else {
                line.on_sent(way.time, bytes)
            };
            if let Some(numbers) = &mut self.transport_numbers {
                numbers.note(number, transport_number);
            }
            transport = Some((id, transport_number));
        }
        let alone = transport.filter(|_| !fixed.has_extension);
        let alone = alone.and_then(|(id, number)| transport_sequence_block(id, number));
        let header_len = FIXED_HEADER_LEN
            + match (alone, transport) {
                (Some(block), _) => {
                    header[FIXED_HEADER_LEN..][..TRANSPORT_CC_LEN].copy_from_slice(&block);
                    fixed.has_extension = true;
                    TRANSPORT_CC_LEN
                }
                (None, Some((id, number))) => {
                    fixed.has_extension |= writer.push(id, &number.to_be_bytes());
                    writer.finish()
                }
                (None, None) => writer.finish(),
            };
        header[..FIXED_HEADER_LEN].copy_from_slice(&fixed.to_bytes());
        // A retransmission has the original number before the payload; VP8's rewritten descriptor comes after it.
        let mut prefix = [0; 2 + crate::rewrite::vp8::MAX_DESCRIPTOR];
        prefix[..original.len()].copy_from_slice(original);
        prefix[original.len()..original.len() + rewritten.len()].copy_from_slice(rewritten);
        let plain = Plain {
            ssrc: fixed.ssrc,
            index,
            header: &header[..header_len],
            prefix: &prefix[..original.len() + rewritten.len()],
            payload,
            padding,
        };
        egress.push(way.route, |out| way.srtp.seal_rtp(&plain, out)).filter(|len| *len > 0)
    }

    /// What the subscriber takes this codec as. RED towards one that has none goes as the Opus inside.
    fn format(&self, codec: Codec) -> Option<PayloadFormat> {
        if self.first_format.is_some_and(|format| format.codec == codec) {
            return self.first_format;
        }
        let find = |codec| self.formats.iter().find(|format| format.codec == codec).copied();
        find(codec).or_else(|| if codec == Codec::Red { find(Codec::Opus) } else { None })
    }

    /// An ingress timestamp of the encoding being sent, as the subscriber sees it.
    pub fn egress_timestamp(&self, timestamp: u32) -> u32 {
        self.timeline.present(timestamp)
    }

    /// A sender report left.
    pub fn on_reported(&mut self, now: Instant, compact_ntp: u32) {
        self.reported = [Some((compact_ntp, now)), self.reported[0]];
    }

    /// When the sender report that a receiver answers left, if it was one of the last.
    pub fn reported_at(&self, compact_ntp: u32) -> Option<Instant> {
        self.reported.iter().flatten().find(|reported| reported.0 == compact_ntp).map(|reported| reported.1)
    }

    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }
}

/// The transport-wide numbers of a stream's newest packets. Without a retransmission stream a packet goes again as it was,
/// and its number is part of it.
#[derive(Default)]
struct TransportNumbers {
    /// By egress number modulo [`REPEATABLE`]: the low half of it, and the transport-wide one.
    newest: Vec<(u16, u16)>,
}

impl TransportNumbers {
    fn note(&mut self, number: u64, transport_number: u16) {
        if self.newest.is_empty() {
            // Nobody has this number at any place but the one that is written now.
            self.newest.resize(REPEATABLE, (number as u16 ^ 0x8000, 0));
        }
        self.newest[number as usize % REPEATABLE] = (number as u16, transport_number);
    }

    fn of(&self, number: u64) -> Option<u16> {
        let (known, transport_number) = *self.newest.get(number as usize % REPEATABLE)?;
        (known == number as u16).then_some(transport_number)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use weir_rtp::payload::PayloadInfo;
    use weir_transport::srtp::{Profile, SrtpKeys};
    use weir_units::ids::{ConferenceId, PublicationId};
    use weir_units::media::{Encoding, ExtensionIds, IngressMedia, Mid};

    use super::*;
    use crate::rewrite::select::PacketFacts;
    use crate::ring::{Packet, PacketMeta};
    use crate::testing::start;

    /// Somebody who takes the lower of two spatial layers, without a retransmission stream.
    fn subscription(now: Instant) -> Subscription {
        let format = PayloadFormat { codec: Codec::Vp9, payload_type: 98, rtx_payload_type: None };
        let (mid, kind) = (Mid::new("0").unwrap(), MediaKind::Video);
        let source = IngressMedia {
            mid,
            kind,
            formats: vec![format],
            extensions: ExtensionIds::default(),
            encodings: vec![Encoding::default()],
            nack: true,
            is_screen: false,
        };
        let media = EgressMedia {
            mid,
            kind,
            formats: vec![format],
            extensions: ExtensionIds::default(),
            ssrc: 1,
            rtx_ssrc: None,
        };
        let source = Publication::new(now, PublicationId(1), 0, (0, ConferenceId(1)), source);
        let mut rng = SmallRng::seed_from_u64(0);
        let mut subscription =
            Subscription::new(SubscriptionId(1), 0, 0, &source, media, Wish::default(), &mut rng);
        subscription.set_target(Some(Layer { spatial: 0, temporal: 0 }));
        subscription
    }

    #[test]
    fn under_a_number_never_goes_another_packet() {
        let (now, mut egress) = (start(), Egress::default());
        let mut subscription = subscription(now);
        let material = [7; 2 * (16 + 12)];
        let (_, srtp) =
            SrtpKeys::from_exporter(Profile::Aes128Gcm, &material, false).unwrap().into_contexts();
        let route = Route::Udp { socket: 0, remote: "192.0.2.1:9".parse().unwrap() };
        let mut way = Way { srtp: &srtp, route, line: None, time: Time::ZERO };
        // Of every picture the third packet ends it for who takes the lower layer.
        let offer = |sequence: u64| {
            let (timestamp, frame_end) = (sequence as u32 / 3 * 3000, sequence % 3 == 2);
            let meta = PacketMeta {
                sequence,
                timestamp,
                arrived: now,
                marker: false,
                payload_type: 98,
                info: PayloadInfo::default(),
            };
            let facts = PacketFacts {
                sequence,
                timestamp,
                frame_end,
                key_frame_start: sequence == 0,
                ..PacketFacts::default()
            };
            let packet = Packet { meta, payload: &[0x80, 1, 2, 3], dependency_descriptor: &[] };
            Offer { packet, facts, codec: Codec::Vp9, padding: 0 }
        };
        let datagram = |egress: &mut Egress| {
            let datagram = egress.runs().last().map(|run| egress.bytes(run).to_vec());
            egress.clear();
            datagram
        };
        let first = subscription.sequence.next_egress();
        let mut sent = Vec::new();
        for sequence in 0..1_200 {
            assert_ne!(
                subscription.offer(now, &offer(sequence), &[], &mut way, &mut egress),
                Outcome::NotSent
            );
            sent.push((sequence, datagram(&mut egress)));
        }
        let mut repeated = 0;
        for (sequence, before) in sent {
            if subscription.resend(&offer(sequence), first + sequence, &mut way, &mut egress) {
                assert_eq!(datagram(&mut egress), before, "{sequence}");
                repeated += 1;
            }
        }
        assert_eq!(repeated, 682, "of the last 1,024, what is known to have had no marker of ours");
    }
}
