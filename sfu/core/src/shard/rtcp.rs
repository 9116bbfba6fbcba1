//! Feedback that arrives: reports, requests for packets and for key frames.

use std::time::{Duration, Instant};

use weir_rtp::rtcp::{Compound, ReportBlock, RtcpPacket, RtcpWriter};
use weir_transport::Route;
use weir_transport::srtp::SrtpError;

use super::forward::MAX_RESENDS;
use super::timeouts::TICK;
use super::{Disposition, Shard};
use crate::ingress::stats::SenderClock;
use crate::publication::SenderReportAt;
use crate::stats::Drop;

impl Shard {
    pub(super) fn handle_srtcp(&mut self, now: Instant, route: Route, data: &mut [u8]) -> Disposition {
        let Some(&index) = self.routes.get(&route) else { return Disposition::Unknown };
        let peer = &mut self.model.peers[index as usize];
        let Some(srtp) = &mut peer.srtp_in else {
            self.out.stats.drop(Drop::NoKeys);
            return Disposition::Handled;
        };
        let len = match srtp.open_rtcp(data) {
            Ok(len) => len,
            Err(error) => {
                self.out.stats.drop(match error {
                    SrtpError::Authentication => Drop::Authentication,
                    SrtpError::Replay => Drop::Replay,
                    SrtpError::TooShort => Drop::Malformed,
                    SrtpError::TooManySsrcs => Drop::TooManySsrcs,
                });
                return Disposition::Handled;
            }
        };
        peer.on_authentic(now, route);
        self.out.stats.rtcp_in += 1;
        let mut resends = MAX_RESENDS;
        for packet in Compound::new(&data[..len]) {
            match packet {
                Ok(packet) => self.handle_rtcp_packet(now, index, packet, &mut resends),
                Err(_) => self.out.stats.drop(Drop::MalformedRtcp),
            }
        }
        Disposition::Handled
    }

    /// `resends` is how many packets the datagram may still ask for.
    fn handle_rtcp_packet(&mut self, now: Instant, index: u32, packet: RtcpPacket<'_>, resends: &mut usize) {
        match packet {
            RtcpPacket::SenderReport(report) => {
                let clock = SenderClock { ntp: report.info.ntp, rtp: report.info.rtp_timestamp };
                if let Some(stream) = self.model.peers[index as usize].stream(report.ssrc)
                    && !stream.is_retransmission
                {
                    let publication = &mut self.model.publications[stream.publication as usize];
                    let encoding = &mut publication.encodings[usize::from(stream.encoding)];
                    encoding.stats.on_sender_report(now, clock);
                    encoding.report = Some(SenderReportAt { clock, arrived: now });
                }
                for block in report.blocks.iter() {
                    self.handle_block(now, index, &block);
                }
            }
            RtcpPacket::ReceiverReport(report) => {
                for block in report.blocks.iter() {
                    self.handle_block(now, index, &block);
                }
            }
            RtcpPacket::Nack(nack) => {
                if let Some(subscription) = self.model.peers[index as usize].subscription_of(nack.media) {
                    self.retransmit(now, subscription, nack.lost(), resends);
                }
            }
            RtcpPacket::Pli { media, .. } => self.handle_key_frame_request(now, index, media),
            RtcpPacket::Fir(fir) => {
                for entry in fir.entries() {
                    self.handle_key_frame_request(now, index, entry.ssrc);
                }
            }
            RtcpPacket::Remb(remb) => self.handle_estimate(now, index, remb.bitrate),
            RtcpPacket::TransportFeedback(feedback) => self.handle_transport_feedback(now, index, &feedback),
            RtcpPacket::SourceDescription(_)
            | RtcpPacket::Bye(_)
            | RtcpPacket::ExtendedReport(_)
            | RtcpPacket::Other { .. } => {}
        }
    }

    /// What a subscriber received of one of our streams.
    fn handle_block(&mut self, now: Instant, index: u32, block: &ReportBlock) {
        let time = self.time(now);
        let peer = &mut self.model.peers[index as usize];
        let Some(subscription) = peer.subscription_of(block.ssrc) else { return };
        let subscription = &mut self.model.subscriptions[subscription as usize];
        if subscription.ssrc() != block.ssrc {
            return; // of the retransmission stream, where gaps mean nothing
        }
        let publication = &self.model.publications[subscription.publication as usize];
        let clock_rate = publication.media.formats.first().map_or(90_000, |format| format.codec.clock_rate());
        let fate = subscription.judge(block.fraction_lost);
        peer.line.sent.add(fate.sent.into(), fate.lost);
        peer.line.on_jitter(block.jitter, clock_rate);
        if let Some(line) = &mut peer.downlink {
            line.on_report(time, fate.sent, fate.share());
        }
        if let Some(at) = subscription.reported_at(block.last_sender_report) {
            let held =
                Duration::from_micros((u64::from(block.delay_since_last_sender_report) * 1_000_000) >> 16);
            if let Some(measured) = now.saturating_duration_since(at).checked_sub(held) {
                let smoothed = peer.round_trip.map_or(measured, |known| (known * 7 + measured) / 8);
                peer.round_trip = Some(smoothed);
            }
        }
    }

    /// A subscriber cannot decode. The encoding it is being sent is asked, and the one it is about to be sent.
    fn handle_key_frame_request(&mut self, now: Instant, index: u32, ssrc: u32) {
        self.out.stats.key_frame_requests_in += 1;
        let Some(subscription) = self.model.peers[index as usize].subscription_of(ssrc) else { return };
        let subscription = &self.model.subscriptions[subscription as usize];
        let (source, encoding) = (subscription.publication, subscription.encoding());
        if let Some(encoding) = encoding.or(subscription.wants_key_frame()) {
            let publication = &mut self.model.publications[source as usize];
            if let Some(encoding) = publication.encodings.get_mut(usize::from(encoding)) {
                encoding.key_frames.want(now);
            }
            self.request_key_frames(now, source);
        }
    }

    /// Sends the key-frame requests that are due for a publication.
    pub(super) fn request_key_frames(&mut self, now: Instant, index: u32) {
        let Some(publication) = self.model.publications.get_mut(index as usize) else { return };
        if publication.muted {
            return; // there is nothing to make a key frame of
        }
        let owner = publication.peer;
        let mut media = [None; weir_units::media::MAX_ENCODINGS];
        for (slot, encoding) in media.iter_mut().zip(&mut publication.encodings) {
            if let Some(ssrc) = encoding.ssrc
                && encoding.key_frames.poll(now)
            {
                *slot = Some(ssrc);
            }
        }
        let local = self.model.peers[owner as usize].local_ssrc;
        for ssrc in media.into_iter().flatten() {
            self.out.stats.key_frame_requests_out += 1;
            self.send_rtcp(owner, |writer| writer.pli(local, ssrc));
        }
        let publication = &self.model.publications[index as usize];
        let due = publication.encodings.iter().filter_map(|encoding| encoding.key_frames.retry_at()).min();
        if let Some(due) = due {
            self.arm_peer(owner, due.max(now + TICK));
        }
    }

    /// Asks a publisher again for what is missing of one encoding.
    pub(super) fn nack_due(&mut self, now: Instant, peer_index: u32, index: u32, encoding: u8) {
        let peer = &self.model.peers[peer_index as usize];
        let (local, round_trip) = (peer.local_ssrc, peer.round_trip);
        let mut missing = [0; MAX_NACKED];
        loop {
            let publication = &mut self.model.publications[index as usize];
            let wanted = publication.media.nack;
            let state = &mut publication.encodings[usize::from(encoding)];
            let count = state.losses.poll(now, round_trip, &mut missing);
            let (before, after) = (state.counted, state.losses.counts());
            self.out.stats.recovered += after.recovered - before.recovered;
            self.out.stats.lost += after.given_up - before.given_up;
            state.counted = after;
            let (Some(ssrc), true) = (state.ssrc, wanted && count > 0) else { return };
            let mut numbers = [0; MAX_NACKED];
            for (number, missing) in numbers.iter_mut().zip(&missing[..count]) {
                *number = *missing as u16;
            }
            self.out.stats.nacks_out += count as u64;
            self.send_rtcp(peer_index, |writer| writer.nack(local, ssrc, &numbers[..count]) > 0);
            if count < MAX_NACKED {
                return;
            }
        }
    }

    /// Writes a compound packet, protects it and puts it into the egress.
    pub(super) fn send_rtcp(&mut self, index: u32, write: impl FnOnce(&mut RtcpWriter<'_>) -> bool) {
        let peer = &mut self.model.peers[index as usize];
        let (Some(srtp), Some(route)) = (&mut peer.srtp_out, peer.route) else { return };
        let pushed = self.out.egress.push(route, |space| {
            let mut writer = RtcpWriter::new(&mut space[..MAX_RTCP]);
            if !write(&mut writer) {
                return 0;
            }
            let len = writer.finish();
            srtp.seal_rtcp(space, len)
        });
        match pushed {
            Some(0) => {}
            Some(_) => self.out.stats.rtcp_out += 1,
            None => self.out.stats.drop(Drop::ArenaFull),
        }
    }
}

/// Sequence numbers asked for by one NACK packet; more are asked for by another.
const MAX_NACKED: usize = 128;
/// The longest RTCP packet before protection, in bytes: it must not be fragmented on any path.
const MAX_RTCP: usize = 1_180;
