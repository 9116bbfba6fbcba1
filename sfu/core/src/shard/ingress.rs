//! A packet's way in: open it, find whose it is, note it, keep it.

use std::time::Instant;

use weir_rtp::extension::IngressExtensions;
use weir_rtp::header::RtpHeader;
use weir_rtp::payload::PayloadInfo;
use weir_rtp::rtx;
use weir_transport::Route;
use weir_transport::srtp::SrtpError;
use weir_units::event::Event;
use weir_units::media::{Codec, PayloadFormat};

use super::{Disposition, MAX_PENDING, Model, Pending, Shard};
use crate::ingress::nack::Seen;
use crate::offer::{Offer, facts};
use crate::peer::{Line, Stream};
use crate::rewrite::select::NO_LAYER;
use crate::ring::{Inserted, Packet, PacketMeta};
use crate::stats::Drop;
use crate::timers::TimerKey;

impl Shard {
    pub(super) fn handle_rtp(&mut self, now: Instant, route: Route, data: &mut [u8]) -> Disposition {
        let Some(&index) = self.routes.get(&route) else { return Disposition::Unknown };
        if let Err(reason) = self.take_rtp(now, index, route, data) {
            self.out.stats.drop(reason);
        }
        Disposition::Handled
    }

    fn take_rtp(&mut self, now: Instant, index: u32, route: Route, data: &mut [u8]) -> Result<(), Drop> {
        if self.pending.len() == MAX_PENDING {
            return Err(Drop::BatchFull);
        }
        let peer = &mut self.model.peers[index as usize];
        let streams = &peer.streams;
        let is_used = |ssrc| streams.binary_search_by_key(&ssrc, |stream| stream.ssrc).is_ok();
        let srtp = peer.srtp_in.as_mut().ok_or(Drop::NoKeys)?;
        let opened = srtp.open_rtp(data, is_used).map_err(reason)?;
        peer.on_authentic(now, route);
        self.out.stats.rtp_in += 1;

        let packet = &data[..opened.len];
        let header = RtpHeader::parse(packet).ok_or(Drop::Malformed)?;
        let payload_range = header.payload_range(packet).ok_or(Drop::Malformed)?;
        let extensions = IngressExtensions::read(&header, packet, &peer.extensions);
        if let Some(sequence) = extensions.transport_sequence
            && let Some(due) = peer.arrivals.record(now, sequence, packet.len())
        {
            self.arm_peer(index, due);
        }

        let stream = match self.model.peers[index as usize].stream(header.ssrc) {
            Some(stream) => stream,
            None => self.model.bind(index, &header, &extensions)?,
        };
        let publication = &mut self.model.publications[stream.publication as usize];
        let (format, is_retransmission) =
            publication.format(header.payload_type).ok_or(Drop::UnknownPayloadType)?;
        let is_video = publication.is_video();
        let (id, conference) = (publication.id, publication.conference);
        let encoding = &mut publication.encodings[usize::from(stream.encoding)];
        let payload = &packet[payload_range];

        let (sequence, payload) = if is_retransmission {
            let Some((original, payload)) = rtx::decapsulate(payload) else {
                return Ok(()); // padding on the retransmission stream: a probe, noted for feedback above
            };
            (encoding.extend(original).ok_or(Drop::Duplicate)?, payload)
        } else {
            encoding.stats.on_packet(now, opened.index, header.timestamp);
            (encoding.base + opened.index, payload)
        };
        if encoding.losses.on_packet(now, sequence, is_retransmission) == Seen::Outage && is_video {
            encoding.key_frames.want(now);
        }
        let descriptor = extensions.dependency_descriptor.map_or(&[][..], |range| range.of(packet));
        let info = PayloadInfo::read(format.codec, payload);
        let meta = PacketMeta {
            sequence,
            timestamp: header.timestamp,
            arrived: now,
            marker: header.marker,
            payload_type: format.payload_type,
            info,
        };
        let latest = encoding.ring.latest().unwrap_or(sequence);
        match encoding.ring.insert(meta, payload, descriptor) {
            Inserted::New => {}
            Inserted::Duplicate | Inserted::TooOld => return Err(Drop::Duplicate),
            Inserted::TooLarge => return Err(Drop::Malformed),
        }
        let waited = match format.codec {
            Codec::Av1 => encoding.structures.take(sequence, descriptor),
            _ => Vec::new(),
        };
        let facts = facts(
            stream.encoding,
            encoding,
            &Packet { meta, payload, dependency_descriptor: descriptor },
            format.codec,
        );
        if info.frame_start.unwrap_or(true)
            && !facts.is_padding
            && encoding.activity.on_frame(now)
            && !facts.key_frame_start
        {
            // A publisher that plays a file goes on somewhere in it: what follows refers to what was never sent.
            encoding.ring.forget_key_frame();
        }
        if facts.is_unplaced && encoding.structures.on_missing(now, sequence) {
            encoding.key_frames.want(now);
        }
        if facts.key_frame_start {
            encoding.key_frames.on_key_frame();
            encoding.losses.on_key_frame(sequence);
        }
        let nack_at = encoding.losses.next_timeout();
        let spatial = if publication.encodings.len() > 1 { stream.encoding } else { facts.spatial };
        if !facts.is_unplaced && facts.spatial != NO_LAYER {
            publication.rates.add(now, spatial, facts.temporal, payload.len());
        }
        let pending = Pending {
            publication: stream.publication,
            order: self.pending.len() as u32,
            sequence,
            latest,
            encoding: stream.encoding,
            codec: format.codec,
            facts,
            padding: 0,
        };
        self.pending.push(pending);
        for sequence in waited {
            if self.pending.len() < MAX_PENDING
                && let Some(Offer { facts, codec, .. }) = publication.offer(stream.encoding, sequence, 0)
            {
                let order = self.pending.len() as u32;
                self.pending.push(Pending { order, sequence, codec, facts, ..pending });
            }
        }
        if !std::mem::replace(&mut publication.started, true) {
            publication.decide(format.codec);
            self.tell(index, Event::PublicationStarted { publication: id, codec: format.codec });
        }
        if let Some(at) = nack_at {
            self.arm_peer(index, at);
        }
        if !is_video && let Some(level) = extensions.audio_level {
            let Self { model, out, .. } = self;
            let entry = &mut model.conferences[conference as usize];
            if let Some(due) = entry.speakers.sample(now, id, level.below_overload) {
                out.timers.arm(&mut entry.alarm, TimerKey::Conference(conference), due);
            }
        }
        Ok(())
    }
}

impl Model {
    /// Whose an SSRC is that was never seen: by the m-line and RID its header names, by what was announced, or by the
    /// payload type if only one m-line takes it
    /// ([RFC 8843 §9.2](https://www.rfc-editor.org/rfc/rfc8843#section-9.2)).
    fn bind(
        &mut self,
        index: u32,
        header: &RtpHeader,
        extensions: &IngressExtensions,
    ) -> Result<Stream, Drop> {
        let peer = &mut self.peers[index as usize];
        // Clients that negotiated the MID send it until they know that a stream arrived. Without it a stream may be
        // the rest of a publication that is gone, and must not take the place of one that is bound.
        let is_free = |line: &Line| {
            peer.extensions.mid.is_none()
                || !peer.streams.iter().any(|stream| {
                    stream.publication == line.publication
                        && self.publications[line.publication as usize]
                            .format(header.payload_type)
                            .is_some_and(|(_, is_retransmission)| {
                                is_retransmission == stream.is_retransmission
                            })
                })
        };
        let line = match extensions.mid {
            Some(mid) => peer.lines.iter().find(|line| line.mid == mid).copied(),
            None => {
                let announces =
                    |line: &&Line| self.publications[line.publication as usize].announces(header.ssrc);
                let mut takers = peer.lines.iter().filter(|line| {
                    self.publications[line.publication as usize].format(header.payload_type).is_some()
                });
                let only = takers.next().filter(|line| takers.next().is_none() && is_free(line)).copied();
                peer.lines.iter().find(announces).copied().or(only)
            }
        }
        .ok_or(Drop::UnknownSsrc)?;
        let publication = &mut self.publications[line.publication as usize];
        let (_, is_retransmission): (PayloadFormat, bool) =
            publication.format(header.payload_type).ok_or(Drop::UnknownPayloadType)?;
        if !publication.may_be(header.ssrc) {
            return Err(Drop::UnknownSsrc);
        }
        let rid = if is_retransmission { extensions.repaired_rid } else { extensions.rid };
        let encoding = publication.encoding_of(rid, header.ssrc).ok_or(Drop::UnknownSsrc)?;
        let stream = Stream { ssrc: header.ssrc, publication: line.publication, encoding, is_retransmission };
        peer.bind(stream);
        if !is_retransmission {
            let kind = publication.media.kind;
            publication.encodings[usize::from(encoding)].rebind(kind, header.ssrc);
            for subscription in &publication.subscribers {
                self.subscriptions[*subscription as usize].on_source_restart(encoding);
            }
        }
        Ok(stream)
    }
}

fn reason(error: SrtpError) -> Drop {
    match error {
        SrtpError::Authentication => Drop::Authentication,
        SrtpError::Replay => Drop::Replay,
        SrtpError::TooShort => Drop::Malformed,
        SrtpError::TooManySsrcs => Drop::TooManySsrcs,
    }
}
