//! A scripted client: its transport, what it publishes and what it receives.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use weir_rtp::extension;
use weir_rtp::header::{DatagramKind, RtpHeader, classify};
use weir_rtp::rtcp::{Compound, ReportBlock, RtcpPacket, RtcpWriter, SenderInfo};
use weir_transport::Route;
use weir_transport::srtp::{SrtpEgress, SrtpError, SrtpIngress};
use weir_transport::testing::{Client, ClientEvent};
use weir_units::ids::PeerId;

use crate::receiver::Receiver;
use crate::source::{EXTENSIONS, Source};

/// How often a client checks its path, as Chromium does.
const CHECK_INTERVAL: Duration = Duration::from_millis(2_500);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How long transport-wide feedback collects: libwebrtc takes 50 to 250 ms.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(60);

/// Feedback that came, in the open.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    SenderReport {
        ssrc: u32,
        info: SenderInfo,
    },
    Report(ReportBlock),
    Cname {
        ssrc: u32,
        name: Vec<u8>,
    },
    Nack {
        media: u32,
        lost: Vec<u16>,
    },
    Pli {
        media: u32,
    },
    /// Transport-wide numbers and arrivals, in ticks of 250 µs.
    Transport {
        count: u8,
        packets: Vec<(u16, Option<i64>)>,
    },
    Other,
}

pub struct Participant {
    pub id: PeerId,
    pub route: Route,
    pub client: Client,
    pub srtp: Option<(SrtpIngress, SrtpEgress)>,
    pub sources: Vec<Source>,
    pub receivers: Vec<Receiver>,
    pub heard: Vec<(Instant, Heard)>,
    pub events: Vec<ClientEvent>,
    /// The next transport-wide number, and when each left.
    pub transport: u16,
    pub departures: BTreeMap<u16, Instant>,
    /// It is there at all: it checks its path, reports, asks again.
    pub is_alive: bool,
    pub answers_nacks: bool,
    pub answers_key_frame_requests: bool,
    /// Asks for a key frame when it can show nothing, as browsers do.
    pub asks_for_key_frames: bool,
    pub round_trip: Duration,
    /// Media packets it sent, retransmissions not counted, and retransmissions.
    pub sent: u64,
    pub resent: u64,
    /// It says what arrived, if that was negotiated.
    pub gives_feedback: bool,
    /// Transport-wide numbers that came and were not reported yet, on a number line without end.
    arrivals: BTreeMap<u64, Instant>,
    next_arrival: u64,
    feedbacks: u8,
    next_feedback: Option<Instant>,
    began: Instant,
    spare: VecDeque<Vec<u8>>,
    next_check: Instant,
    next_report: Instant,
}

impl Participant {
    pub fn new(id: PeerId, route: Route, client: Client, now: Instant) -> Self {
        Self {
            id,
            route,
            client,
            srtp: None,
            sources: Vec::new(),
            receivers: Vec::new(),
            heard: Vec::new(),
            events: Vec::new(),
            transport: 0,
            departures: BTreeMap::new(),
            is_alive: true,
            answers_nacks: true,
            answers_key_frame_requests: true,
            asks_for_key_frames: false,
            round_trip: Duration::from_millis(40),
            sent: 0,
            resent: 0,
            gives_feedback: true,
            arrivals: BTreeMap::new(),
            next_arrival: 0,
            feedbacks: 0,
            next_feedback: None,
            began: now,
            spare: VecDeque::new(),
            next_check: now,
            next_report: now + REPORT_INTERVAL,
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.is_alive {
            return None;
        }
        let mut next = self.next_check;
        next = self.client.poll_timeout().map_or(next, |at| next.min(at));
        if self.srtp.is_some() {
            next = next.min(self.next_report);
            next = self.next_feedback.map_or(next, |at| next.min(at));
            for source in &self.sources {
                next = next.min(source.next);
            }
            for receiver in &self.receivers {
                next = receiver.next_nack().map_or(next, |at| next.min(at));
                let request = receiver.screen.next_request().filter(|_| self.asks_for_key_frames);
                next = request.map_or(next, |at| next.min(at));
            }
        }
        Some(next)
    }

    /// Does what is due and gives the datagrams that leave.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if !self.is_alive {
            return Vec::new();
        }
        let mut out = Vec::new();
        if self.next_check <= now {
            self.next_check = now + CHECK_INTERVAL;
            out.push(self.client.check(true));
        }
        if self.client.poll_timeout().is_some_and(|at| at <= now) {
            self.client.handle_timeout(now);
        }
        self.drain_client(&mut out);
        let Some((_, egress)) = &mut self.srtp else { return out };
        let before = self.transport;
        for source in &mut self.sources {
            if source.next <= now {
                let packets = source.capture(now, egress, &mut self.transport);
                self.sent += packets.len() as u64;
                out.extend(packets);
            }
        }
        for number in 0..self.transport.wrapping_sub(before) {
            self.departures.insert(before.wrapping_add(number), now);
        }
        self.ask_again(now, &mut out);
        if self.asks_for_key_frames {
            self.ask_for_key_frames(now, &mut out);
        }
        if self.next_feedback.is_some_and(|at| at <= now) {
            self.next_feedback = None;
            out.extend(self.transport_feedback());
        }
        if self.next_report <= now {
            self.next_report = now + REPORT_INTERVAL;
            self.report(now, &mut out);
        }
        out
    }

    pub fn key_frames_sent(&self) -> usize {
        self.sources.iter().flat_map(|source| &source.streams).map(|stream| stream.key_frames.len()).sum()
    }

    fn ask_again(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        for at in 0..self.receivers.len() {
            let numbers = self.receivers[at].nack(now, self.round_trip);
            let media = self.receivers[at].ssrc;
            for numbers in numbers.chunks(60) {
                out.extend(self.rtcp(|writer| writer.nack(1, media, numbers) > 0));
            }
        }
    }

    fn ask_for_key_frames(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        for at in 0..self.receivers.len() {
            if self.receivers[at].screen.next_request().is_some_and(|due| due <= now) {
                self.receivers[at].screen.on_request(now);
                let media = self.receivers[at].ssrc;
                out.extend(self.rtcp(|writer| writer.pli(1, media)));
            }
        }
    }

    fn report(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        for at in 0..self.sources.len() {
            for stream in 0..self.sources[at].streams.len() {
                let (ssrc, info) =
                    (self.sources[at].streams[stream].ssrc, self.sources[at].report(stream, now));
                if self.sources[at].streams[stream].sent > 0 {
                    out.extend(self.rtcp(|writer| writer.sender_report(ssrc, &info, &[])));
                }
            }
        }
        let blocks: Vec<_> = self.receivers.iter_mut().filter_map(|receiver| receiver.report(now)).collect();
        for blocks in blocks.chunks(31) {
            out.extend(self.rtcp(|writer| writer.receiver_report(1, blocks)));
        }
    }

    /// What arrived since the last feedback, and what did not.
    fn transport_feedback(&mut self) -> Vec<Vec<u8>> {
        let arrivals = std::mem::take(&mut self.arrivals);
        if !self.gives_feedback {
            return Vec::new();
        }
        let Some((last, _)) = arrivals.last_key_value() else { return Vec::new() };
        let numbers: Vec<_> = (self.next_arrival..=*last)
            .map(|number| {
                let at = arrivals.get(&number).map(|at| (*at - self.began).as_micros() as u64 / 250);
                (number as u16, at)
            })
            .collect();
        self.next_arrival = last + 1;
        let mut out = Vec::new();
        for numbers in numbers.chunks(300) {
            let count = self.feedbacks;
            self.feedbacks = count.wrapping_add(1);
            out.extend(
                self.rtcp(|writer| writer.transport_feedback(1, 1, count, numbers.iter().copied()) > 0),
            );
        }
        out
    }

    fn note_arrival(&mut self, now: Instant, packet: &[u8]) {
        let header = RtpHeader::parse(packet).expect("a header");
        let id = EXTENSIONS.transport_cc.expect("negotiated");
        let Some(range) = extension::find(&header, packet, id) else { return };
        let number = u16::from_be_bytes(*range.of(packet).first_chunk().expect("two bytes"));
        let near = self.next_arrival;
        let distance = number.wrapping_sub(near as u16) as i16;
        // One that was reported missing and comes after all is not reported again.
        if let Some(number) = near.checked_add_signed(distance.into()).filter(|number| *number >= near) {
            self.arrivals.insert(number, now);
            self.next_feedback.get_or_insert(now + FEEDBACK_INTERVAL);
        }
    }

    /// The next packet of the first source, which is not sent: for tests that deliver it themselves.
    pub fn next_media(&mut self, now: Instant) -> Vec<u8> {
        while self.spare.is_empty() {
            let (_, egress) = self.srtp.as_ref().expect("connected");
            let due = self.sources[0].next;
            self.spare.extend(self.sources[0].capture(now, egress, &mut self.transport));
            self.sources[0].next = due;
        }
        self.spare.pop_front().expect("filled above")
    }

    /// Anything, protected as RTCP.
    pub fn seal_rtcp(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut packet = plain.to_vec();
        packet.resize(plain.len() + 40, 0);
        let len = self.srtp.as_mut().expect("connected").1.seal_rtcp(&mut packet, plain.len());
        packet.truncate(len);
        packet
    }

    /// A protected RTCP packet.
    pub fn rtcp(&mut self, write: impl FnOnce(&mut RtcpWriter<'_>) -> bool) -> Option<Vec<u8>> {
        let mut packet = vec![0; 1_400];
        let mut writer = RtcpWriter::new(&mut packet[..1_200]);
        assert!(write(&mut writer));
        let len = writer.finish();
        let len = self.srtp.as_mut()?.1.seal_rtcp(&mut packet, len);
        packet.truncate(len);
        Some(packet)
    }

    /// A datagram from the focus. Gives what is answered at once.
    pub fn handle(&mut self, now: Instant, mut datagram: Vec<u8>) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        match classify(&datagram) {
            DatagramKind::Stun | DatagramKind::Dtls => {
                self.client.handle_packet(now, &datagram);
                self.drain_client(&mut out);
            }
            DatagramKind::Rtp => self.handle_rtp(now, &mut datagram),
            DatagramKind::Rtcp => self.handle_rtcp(now, &mut datagram, &mut out),
            kind => panic!("the focus sent {kind:?}"),
        }
        out
    }

    fn drain_client(&mut self, out: &mut Vec<Vec<u8>>) {
        while let Some(packet) = self.client.poll_packet() {
            out.push(packet);
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
        if let Some(srtp) = self.client.take_srtp() {
            self.srtp = Some(srtp);
        }
    }

    fn handle_rtp(&mut self, now: Instant, datagram: &mut [u8]) {
        let Some((ingress, _)) = &mut self.srtp else { return };
        let ssrc = RtpHeader::parse(datagram).expect("a header").ssrc;
        let is_same_again =
            self.receivers.iter().any(|receiver| receiver.ssrc == ssrc && receiver.rtx_ssrc.is_none());
        let opened = match ingress.open_rtp(datagram, |_| true) {
            Ok(opened) => opened,
            Err(SrtpError::Replay) if is_same_again => return, // it has no retransmission stream
            Err(error) => panic!("{error}"),
        };
        self.note_arrival(now, &datagram[..opened.len]);
        // A packet of a subscription that just ended may be on its way.
        if let Some(receiver) = self.receivers.iter_mut().find(|receiver| receiver.owns(ssrc)) {
            receiver.handle(now, opened.index, &datagram[..opened.len]);
        }
    }

    fn handle_rtcp(&mut self, now: Instant, datagram: &mut [u8], out: &mut Vec<Vec<u8>>) {
        let Some((ingress, _)) = &mut self.srtp else { return };
        let len = ingress.open_rtcp(datagram).expect("the focus seals each index once");
        for packet in Compound::new(&datagram[..len]) {
            let mut heard = Vec::new();
            match packet.expect("RTCP as it should be") {
                RtcpPacket::SenderReport(report) => {
                    heard.push(Heard::SenderReport { ssrc: report.ssrc, info: report.info });
                    heard.extend(report.blocks.iter().map(Heard::Report));
                }
                RtcpPacket::ReceiverReport(report) => heard.extend(report.blocks.iter().map(Heard::Report)),
                RtcpPacket::SourceDescription(description) => heard.extend(
                    description
                        .items()
                        .filter(|item| item.kind == 1)
                        .map(|item| Heard::Cname { ssrc: item.ssrc, name: item.text.to_vec() }),
                ),
                RtcpPacket::Nack(nack) => {
                    heard.push(Heard::Nack { media: nack.media, lost: nack.lost().collect() });
                }
                RtcpPacket::Pli { media, .. } => heard.push(Heard::Pli { media }),
                RtcpPacket::TransportFeedback(feedback) => heard.push(Heard::Transport {
                    count: feedback.feedback_count,
                    packets: feedback.packets().collect(),
                }),
                _ => heard.push(Heard::Other),
            }
            for heard in heard {
                self.act_on(now, &heard, out);
                self.heard.push((now, heard));
            }
        }
    }

    fn act_on(&mut self, now: Instant, heard: &Heard, out: &mut Vec<Vec<u8>>) {
        match heard {
            Heard::SenderReport { ssrc, info } => {
                if let Some(receiver) = self.receivers.iter_mut().find(|receiver| receiver.owns(*ssrc)) {
                    receiver.reports.push((now, *info));
                }
            }
            Heard::Nack { media, lost } => {
                let before = self.transport;
                for source in &mut self.sources {
                    let Some(at) = source.stream_of(*media) else { continue };
                    source.streams[at].nacked.extend(lost.iter().map(|number| (now, *number)));
                    if let Some((_, egress)) = self.srtp.as_ref().filter(|_| self.answers_nacks) {
                        let packets = lost
                            .iter()
                            .filter_map(|number| source.resend(at, *number, egress, &mut self.transport));
                        let count = out.len();
                        out.extend(packets);
                        self.resent += (out.len() - count) as u64;
                    }
                }
                for number in 0..self.transport.wrapping_sub(before) {
                    self.departures.insert(before.wrapping_add(number), now);
                }
            }
            Heard::Pli { media } => {
                for source in &mut self.sources {
                    if let Some(at) = source.stream_of(*media) {
                        source.streams[at].requests.push(now);
                        source.streams[at].wants_key |= self.answers_key_frame_requests;
                    }
                }
            }
            _ => {}
        }
    }

    /// What was heard of one kind.
    pub fn heard_where<T>(&self, pick: impl Fn(&Heard) -> Option<T>) -> Vec<(Instant, T)> {
        self.heard.iter().filter_map(|(at, heard)| Some((*at, pick(heard)?))).collect()
    }
}
