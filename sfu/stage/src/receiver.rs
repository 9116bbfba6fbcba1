//! What a subscriber receives of one publication: it keeps everything, and asks again for what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use weir_rtp::extension;
use weir_rtp::header::RtpHeader;
use weir_rtp::rtcp::{ReportBlock, SenderInfo, compact_ntp};
use weir_rtp::{red, rtx};
use weir_units::ids::{PublicationId, SubscriptionId};
use weir_units::media::{Codec, EgressMedia, ExtensionIds, Mid, PayloadFormat};

use crate::body::Body;
use crate::codec::{body_of, egress_payload_type};
use crate::screen::Screen;
use crate::source::{EXTENSIONS, Shape};

/// How long a gap may be reordering.
const PATIENCE: Duration = Duration::from_millis(10);
/// Requests for one packet before a client gives up.
const MAX_REQUESTS: u32 = 10;

/// A packet as it came, on its own stream or repaired.
#[derive(Clone, Debug)]
pub struct Received {
    pub at: Instant,
    pub timestamp: u32,
    pub marker: bool,
    /// Bytes of RTP padding.
    pub padding: u8,
    /// Its first bytes.
    pub descriptor: Vec<u8>,
    pub dependency: Vec<u8>,
    pub body: Body,
}

pub struct Receiver {
    pub id: SubscriptionId,
    pub publication: PublicationId,
    /// The codec as the subscriber takes it.
    pub codec: Codec,
    pub ssrc: u32,
    pub rtx_ssrc: Option<u32>,
    pub nacks: bool,
    /// It reports when each packet of its transport arrived.
    pub reports_arrivals: bool,
    /// By extended sequence number.
    pub packets: BTreeMap<u64, Received>,
    /// Numbers under which nothing but padding came.
    pub fillers: BTreeSet<u64>,
    pub screen: Screen,
    missing: BTreeMap<u64, (u32, Instant)>,
    /// Numbers asked for, repeats counted.
    pub requested: u64,
    /// Packets that had come already.
    pub duplicates: u64,
    /// Packets of nothing but padding on the retransmission stream.
    pub probes: u64,
    pub repairs: u64,
    /// Packets on the stream itself, and numbers that were missing on it.
    pub arrived: u64,
    pub lost: u64,
    pub reports: Vec<(Instant, SenderInfo)>,
    highest: Option<u64>,
    prior: (u64, u64),
    first: Option<u64>,
}

impl Receiver {
    pub fn new(
        id: SubscriptionId,
        publication: PublicationId,
        shape: &Shape,
        ssrc: u32,
        codec: Codec,
    ) -> Self {
        Self {
            id,
            publication,
            codec,
            ssrc,
            rtx_ssrc: shape.is_video().then_some(ssrc + 1),
            nacks: true,
            reports_arrivals: false,
            packets: BTreeMap::new(),
            fillers: BTreeSet::new(),
            screen: Screen::default(),
            missing: BTreeMap::new(),
            requested: 0,
            duplicates: 0,
            probes: 0,
            repairs: 0,
            arrived: 0,
            lost: 0,
            reports: Vec::new(),
            highest: None,
            prior: (0, 0),
            first: None,
        }
    }

    /// What the focus is told of it.
    pub fn media(&self) -> EgressMedia {
        let (payload_type, rtx_payload_type) = egress_payload_type(self.codec);
        let rtx_payload_type = rtx_payload_type.filter(|_| self.rtx_ssrc.is_some());
        let mut formats = vec![PayloadFormat { codec: self.codec, payload_type, rtx_payload_type }];
        if self.codec == Codec::Red {
            let (payload_type, _) = egress_payload_type(Codec::Opus);
            formats.push(PayloadFormat { codec: Codec::Opus, payload_type, rtx_payload_type: None });
        }
        EgressMedia {
            mid: Mid::new("0").unwrap(),
            kind: self.codec.kind(),
            formats,
            extensions: ExtensionIds {
                transport_cc: EXTENSIONS.transport_cc.filter(|_| self.reports_arrivals),
                ..EXTENSIONS
            },
            ssrc: self.ssrc,
            rtx_ssrc: self.rtx_ssrc,
        }
    }

    pub fn owns(&self, ssrc: u32) -> bool {
        self.ssrc == ssrc || self.rtx_ssrc == Some(ssrc)
    }

    /// An opened packet of one of its streams.
    pub fn handle(&mut self, now: Instant, index: u64, packet: &[u8]) {
        let header = RtpHeader::parse(packet).unwrap();
        let range = header.payload_range(packet).expect("padding that is possible");
        let padding = (packet.len() - range.end) as u8;
        assert!(packet[range.end..].iter().rev().skip(1).all(|byte| *byte == 0), "padding of zeroes");
        let mut payload = &packet[range];
        let (media_type, rtx_type) = egress_payload_type(self.codec);
        let (index, is_repair) = if header.ssrc == self.ssrc {
            assert_eq!(header.payload_type, media_type, "the subscriber's payload type");
            (index, false)
        } else {
            assert_eq!(Some(header.payload_type), rtx_type);
            let Some((original, rest)) = rtx::decapsulate(payload) else {
                self.probes += 1;
                return;
            };
            payload = rest;
            let highest = self.highest.expect("a repair of something");
            let distance = original.wrapping_sub(highest as u16) as i16;
            (highest.checked_add_signed(i64::from(distance)).unwrap(), true)
        };
        if !is_repair {
            self.note(now, index);
        }
        if self.packets.contains_key(&index) {
            self.duplicates += 1;
            return;
        }
        self.missing.remove(&index);
        if payload.is_empty() {
            self.fillers.insert(index);
            return;
        }
        self.repairs += u64::from(is_repair);
        let dependency = extension::find(&header, packet, 13).map_or(&[][..], |range| range.of(packet));
        if self.codec == Codec::Red {
            (_, payload) = red::primary(payload).expect("a primary block");
        }
        let media = if self.codec == Codec::Red { Some(payload) } else { body_of(self.codec, payload) };
        let body = media.and_then(Body::read).expect("a body of ours");
        assert_eq!(u64::from(body.frame.source), self.publication.0, "of the publication subscribed to");
        let received = Received {
            at: now,
            timestamp: header.timestamp,
            marker: header.marker,
            padding,
            descriptor: payload[..payload.len().min(8)].to_vec(),
            dependency: dependency.to_vec(),
            body,
        };
        self.packets.insert(index, received);
        self.screen.on_packet(now, index, &body);
    }

    fn note(&mut self, now: Instant, index: u64) {
        self.arrived += 1;
        self.first = Some(self.first.map_or(index, |first| first.min(index)));
        if let Some(highest) = self.highest {
            for number in highest + 1..index {
                self.missing.insert(number, (0, now + PATIENCE));
                self.lost += 1;
            }
        }
        self.highest = Some(self.highest.map_or(index, |highest| highest.max(index)));
    }

    /// The numbers to ask for now.
    pub fn nack(&mut self, now: Instant, round_trip: Duration) -> Vec<u16> {
        if !self.nacks {
            return Vec::new();
        }
        self.missing.retain(|_, (requests, _)| *requests < MAX_REQUESTS);
        let mut numbers = Vec::new();
        for (number, (requests, due)) in &mut self.missing {
            if *due <= now {
                numbers.push(*number as u16);
                *requests += 1;
                *due = now + round_trip + PATIENCE;
            }
        }
        self.requested += numbers.len() as u64;
        numbers
    }

    pub fn next_nack(&self) -> Option<Instant> {
        self.missing.values().map(|missing| missing.1).min().filter(|_| self.nacks)
    }

    /// The report block as of now.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let (first, highest) = self.first.zip(self.highest)?;
        let expected = highest - first + 1;
        let (expected_now, arrived_now) = (expected - self.prior.0, self.arrived - self.prior.1);
        self.prior = (expected, self.arrived);
        let fraction =
            (expected_now.saturating_sub(arrived_now) * 256).checked_div(expected_now).unwrap_or(0);
        let (last_sender_report, delay) = self.reports.last().map_or((0, 0), |(at, info)| {
            (compact_ntp(info.ntp), ((now - *at).as_micros() * 65_536 / 1_000_000) as u32)
        });
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: fraction as u8,
            cumulative_lost: (expected - self.arrived.min(expected)) as i32,
            highest_sequence: highest as u32,
            jitter: 90,
            last_sender_report,
            delay_since_last_sender_report: delay,
        })
    }
}
