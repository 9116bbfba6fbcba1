//! The front door of a shard with a conference behind it: a publisher and two subscribers whose keys are known, and a
//! peer that has not connected. The first bytes choose codec, encodings and SRTP profile; then come orders.
//!
//! What must hold: nobody unauthenticated gets an answer, let alone one larger than the question; whatever leaves opens
//! under the receiver's keys and parses; no SRTP number is used for two packets; tables stay as small as their bounds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_core::Route;
use weir_core::egress::{MAX_DATAGRAM, MAX_RUNS, MAX_SEGMENTS};
use weir_core::shard::{Disposition, Shard, ShardConfig};
use weir_rtp::extension::ExtensionWriter;
use weir_rtp::header::{DatagramKind, FixedHeader, RtpHeader, classify};
use weir_rtp::rtcp::{Compound, FirEntry, ReportBlock, RtcpPacket, RtcpWriter};
use weir_transport::srtp::{MAX_SSRCS, Plain, Profile, SrtpEgress, SrtpError, SrtpIngress};
use weir_transport::testing::binding_request;
use weir_units::command::Command;
use weir_units::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use weir_units::media::{
    Codec, DtlsRole, EgressMedia, Encoding, ExtensionIds, IceCredentials, IngressMedia, Layer, MediaKind,
    PayloadFormat, RemoteTransport, Rid, Token, Wish,
};

use super::srtp::keys;
use crate::{Input, clock, context};

const MAX_ORDERS: usize = 192;
/// Publisher, two subscribers, and one that never connects.
const PEERS: u64 = 4;
const CONNECTED: u64 = 3;
/// Addresses of one peer in the table, at most.
const ROUTES_PER_PEER: usize = 17;
/// Events that one order may cause.
const MAX_EVENTS: usize = 64;
/// Pieces that one flush may come in.
const MAX_FLUSHES: usize = 64;
/// Stale entries included: an alarm is only set earlier a few times until it is due.
const MAX_TIMERS: usize = 2_048;

const VIDEO: PublicationId = PublicationId(10);
const AUDIO: PublicationId = PublicationId(11);
const EXTENSIONS: ExtensionIds = ExtensionIds {
    mid: Some(4),
    rid: Some(10),
    repaired_rid: Some(11),
    transport_cc: Some(3),
    abs_send_time: Some(2),
    audio_level: Some(1),
    dependency_descriptor: Some(8),
};

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut play = Play::new(&mut input);
    for _ in 0..MAX_ORDERS {
        if input.is_empty() {
            break;
        }
        play.order(&mut input);
    }
    play.flush();
    for peer in 1..=PEERS {
        play.command(Command::RemovePeer { peer: PeerId(peer) });
    }
    let stats = play.shard.stats();
    assert_eq!((stats.peers, stats.publications, stats.subscriptions, stats.conferences), (0, 0, 0, 0));
    let tables = play.shard.table_sizes();
    assert_eq!((tables.routes, tables.user_fragments, tables.streams), (0, 0, 0), "nothing is left of peers");
}

struct Play {
    now: Instant,
    shard: Shard,
    codec: Codec,
    clients: BTreeMap<u64, Client>,
    /// What goes out, by SSRC. None is used twice, as signalling promises.
    streams: BTreeMap<u32, Stream>,
    next_subscription: u64,
    /// What was sent under each SSRC and number.
    sent: BTreeMap<(u32, u16), Vec<u8>>,
}

struct Stream {
    peer: u64,
    subscription: SubscriptionId,
    payload_types: &'static [u8],
    /// The number last sent.
    last: u16,
}

struct Client {
    egress: SrtpEgress,
    ingress: SrtpIngress,
    /// By SSRC, the extended number last used.
    numbers: BTreeMap<u32, u64>,
}

fn route(peer: u64) -> Route {
    Route::Udp { socket: 0, remote: SocketAddr::from(([192, 0, 2, peer as u8], 4_000)) }
}

fn elsewhere(port: u8) -> Route {
    let remote = SocketAddr::from(([198, 51, 100, 1], 1_000 + u16::from(port)));
    if port & 1 == 0 {
        Route::Udp { socket: 1, remote }
    } else {
        Route::Tcp { connection: port.into(), remote }
    }
}

fn ice(peer: u64) -> IceCredentials {
    IceCredentials { ufrag: format!("Apeer{peer}"), password: format!("password {peer} of 22 letters") }
}

fn formats(codec: Codec) -> Vec<PayloadFormat> {
    match codec.kind() {
        MediaKind::Video => vec![PayloadFormat { codec, payload_type: 96, rtx_payload_type: Some(97) }],
        MediaKind::Audio => vec![
            PayloadFormat { codec: Codec::Red, payload_type: 63, rtx_payload_type: None },
            PayloadFormat { codec: Codec::Opus, payload_type: 111, rtx_payload_type: None },
        ],
    }
}

impl Play {
    fn new(input: &mut Input<'_>) -> Self {
        let profile = input.choose(&[Profile::Aes128Gcm, Profile::Aes128CmSha1, Profile::Aes256Gcm]);
        let codec = input.choose(&[Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1]);
        let encodings = match input.below(3) {
            0 => ["q", "h", "f"].map(|rid| Encoding { rid: Rid::new(rid), ..Encoding::default() }).to_vec(),
            1 => vec![Encoding { rid: None, ssrc: Some(100), rtx_ssrc: Some(101) }],
            _ => vec![Encoding::default()],
        };
        let now = clock::start();
        let mut play = Self {
            now,
            shard: Shard::new(
                &ShardConfig { index: 0, rate_control: true },
                Arc::new(context().clone()),
                now,
                7,
            ),
            codec,
            clients: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_subscription: 1,
            sent: BTreeMap::new(),
        };
        for peer in 1..=PEERS {
            play.command(Command::AddPeer {
                peer: PeerId(peer),
                conference: ConferenceId(1),
                local: ice(peer),
            });
            play.command(Command::SetRemoteTransport {
                peer: PeerId(peer),
                local: ice(peer),
                remote: RemoteTransport {
                    ice: IceCredentials { ufrag: "client".to_owned(), password: String::new() },
                    fingerprint: [9; 32],
                    local_role: DtlsRole::Server,
                    max_message_size: Some(65_536),
                },
            });
        }
        play.publish(VIDEO, codec, encodings);
        play.publish(AUDIO, Codec::Opus, vec![Encoding::default()]);
        for peer in 1..=CONNECTED {
            let (client, server) = keys(profile, peer as u8);
            play.shard.connect(play.now, PeerId(peer), route(peer), server);
            let (ingress, egress) = client.into_contexts();
            play.clients.insert(peer, Client { egress, ingress, numbers: BTreeMap::new() });
        }
        for peer in 2..=CONNECTED {
            play.subscribe(peer, VIDEO, codec);
            play.subscribe(peer, AUDIO, Codec::Opus);
        }
        play.drain();
        play
    }

    fn publish(&mut self, publication: PublicationId, codec: Codec, encodings: Vec<Encoding>) {
        let media = IngressMedia {
            mid: Token::new(if publication == VIDEO { "1" } else { "2" }).expect("a token"),
            kind: codec.kind(),
            formats: formats(codec),
            extensions: EXTENSIONS,
            encodings,
            nack: true,
            is_screen: false,
        };
        self.command(Command::Publish { publication, peer: PeerId(1), media });
    }

    /// The second subscriber has neither retransmission streams nor RED.
    fn subscribe(&mut self, peer: u64, publication: PublicationId, codec: Codec) {
        let mut formats = formats(codec);
        if peer == CONNECTED {
            formats.retain(|format| format.codec != Codec::Red);
            formats.iter_mut().for_each(|format| format.rtx_payload_type = None);
        }
        let subscription = SubscriptionId(self.next_subscription);
        self.next_subscription += 1;
        let ssrc = 1_000 + 2 * subscription.0 as u32;
        let has_rtx = peer != CONNECTED && codec.kind() == MediaKind::Video;
        let payload_types: &[u8] = match codec.kind() {
            MediaKind::Video => &[96],
            MediaKind::Audio if peer == CONNECTED => &[111],
            MediaKind::Audio => &[63, 111],
        };
        self.streams.insert(ssrc, Stream { peer, subscription, payload_types, last: 0 });
        if has_rtx {
            self.streams.insert(ssrc + 1, Stream { peer, subscription, payload_types: &[97], last: 0 });
        }
        let media = EgressMedia {
            mid: Token::new("3").expect("a token"),
            kind: codec.kind(),
            formats,
            extensions: ExtensionIds { dependency_descriptor: Some(8), ..ExtensionIds::default() },
            ssrc,
            rtx_ssrc: has_rtx.then_some(ssrc + 1),
        };
        let (peer, wish) = (PeerId(peer), Wish::default());
        self.command(Command::Subscribe { subscription, publication, peer, media, wish });
    }

    fn order(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0 => self.datagram_from_anywhere(input),
            1..=3 => {
                let datagram = self.media(input);
                self.receive(1, datagram);
            }
            4 => {
                let (peer, plain) = (1 + input.below(3) as u64, input.chunk());
                let datagram = self.sealed(peer, plain);
                self.receive(peer, datagram);
            }
            5 => {
                let (peer, plain) = (1 + input.below(3) as u64, input.chunk());
                let datagram = self.sealed_rtcp(peer, plain);
                self.receive(peer, datagram);
            }
            6 => {
                let (peer, plain) = self.feedback(input);
                let datagram = self.sealed_rtcp(peer, &plain);
                self.receive(peer, datagram);
            }
            7 => {
                self.flush();
                self.now += Duration::from_millis(u64::from(input.u16()) / 16);
                self.shard.handle_timeout(self.now);
                let next = self.shard.poll_timeout();
                assert!(next.is_none_or(|at| at > self.now), "a timeout comes back at once");
            }
            8 => self.flush(),
            9 => self.check(input),
            _ => {
                self.flush();
                let command = self.chosen(input);
                self.shard.handle_command(self.now, command);
            }
        }
        self.drain();
    }

    /// Anything, from an address of a peer or any other.
    fn datagram_from_anywhere(&mut self, input: &mut Input<'_>) {
        let from = input.u8();
        let peer = u64::from(from % 8);
        let from = if (1..=PEERS).contains(&peer) { route(peer) } else { elsewhere(from) };
        let mut datagram = input.chunk().to_vec();
        let (len, kind) = (datagram.len(), classify(&datagram));
        self.drain();
        let disposition = self.shard.handle_datagram(self.now, from, &mut datagram);
        // A peer whose address was checked may begin a handshake; nothing else of this is authentic.
        let may_answer = kind == DatagramKind::Dtls && disposition == Disposition::Handled;
        let answered: usize = self.shard.egress().runs().iter().map(|run| run.bytes.len()).sum();
        assert!(answered == 0 || may_answer, "{answered} bytes answer {len} that nobody authenticated");
    }

    fn receive(&mut self, peer: u64, mut datagram: Vec<u8>) {
        let disposition = self.shard.handle_datagram(self.now, route(peer), &mut datagram);
        assert!(disposition == Disposition::Handled || classify(&datagram) == DatagramKind::Stun);
    }

    /// An RTP packet of the publisher, in most ways right.
    fn media(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let (stream, step, flags) = (input.u8(), input.u8() as i8, input.u8());
        let ssrc = 100 + u32::from(stream & 15);
        let client = self.clients.get_mut(&1).expect("the publisher");
        let number = client.numbers.entry(ssrc).or_insert(1_000);
        let leap = if stream & 0x40 == 0 { 1 } else { 97 };
        let index = number.saturating_add_signed(i64::from(step) * leap);
        *number = index.max(*number);
        let payload_type = match stream >> 4 & 3 {
            0 => 96,
            1 => 97,
            2 => 111,
            _ => 63,
        };
        let rid = ["q", "h", "f", "x"][usize::from(stream & 3)];
        let mut block = [0; 400];
        let mut writer = ExtensionWriter::new(&mut block);
        if flags & 1 != 0 {
            let mid: &[u8] = if payload_type >= 111 || payload_type == 63 { b"2" } else { b"1" };
            writer.push(4, mid);
        }
        if flags & 2 != 0 {
            writer.push(if payload_type == 97 { 11 } else { 10 }, rid.as_bytes());
        }
        if flags & 4 != 0 {
            writer.push(3, &(index as u16).to_be_bytes());
        }
        if flags & 8 != 0 {
            writer.push(1, &[input.u8()]);
        }
        if flags & 16 != 0 {
            let len = input.u8();
            writer.push(8, input.bytes(len.into()));
        }
        let block_len = writer.finish();
        let fixed = FixedHeader {
            marker: flags & 32 != 0,
            payload_type,
            sequence_number: index as u16,
            timestamp: (index as u32).wrapping_mul(3_000),
            ssrc,
            has_extension: block_len > 0,
            has_padding: flags & 64 != 0,
        };
        let header = [&fixed.to_bytes()[..], &block[..block_len]].concat();
        let len = if flags & 128 == 0 { input.u8().into() } else { input.u16() % 1_400 };
        let payload = input.bytes(len.into());
        let padding = if fixed.has_padding { 1 + input.u8() % 16 } else { 0 };
        let mut datagram = vec![0; 4_096];
        let plain = Plain { ssrc, index, header: &header, prefix: &[], payload, padding };
        let len = client.egress.seal_rtp(&plain, &mut datagram);
        datagram.truncate(len);
        datagram
    }

    /// A packet of any content, sealed.
    fn sealed(&mut self, peer: u64, plain: &[u8]) -> Vec<u8> {
        let Some(header) = RtpHeader::parse(plain) else { return plain.to_vec() };
        let client = self.clients.get_mut(&peer).expect("a connected peer");
        let index = u64::from(header.sequence_number);
        let (head, payload) = plain.split_at(header.header_len.into());
        let mut datagram = vec![0; plain.len() + 64];
        let plain = Plain { ssrc: header.ssrc, index, header: head, prefix: &[], payload, padding: 0 };
        let len = client.egress.seal_rtp(&plain, &mut datagram);
        datagram.truncate(len);
        datagram
    }

    fn sealed_rtcp(&mut self, peer: u64, plain: &[u8]) -> Vec<u8> {
        let client = self.clients.get_mut(&peer).expect("a connected peer");
        let mut datagram = vec![0; plain.len() + 64];
        datagram[..plain.len()].copy_from_slice(plain);
        let len = client.egress.seal_rtcp(&mut datagram, plain.len());
        datagram.truncate(len);
        datagram
    }

    /// Feedback about what a subscriber was sent.
    fn feedback(&mut self, input: &mut Input<'_>) -> (u64, Vec<u8>) {
        let at = input.below(self.streams.len());
        let (&media, stream) = self.streams.iter().nth(at).expect("there are subscriptions");
        let (peer, last) = (stream.peer, stream.last);
        let mut plain = vec![0; 1_400];
        let mut writer = RtcpWriter::new(&mut plain);
        let written = match input.below(4) {
            0 | 1 => {
                let (back, count) = (u16::from(input.u8()), 1 + u16::from(input.u8()));
                let lost: Vec<u16> = (0..count).map(|at| last.wrapping_sub(back).wrapping_add(at)).collect();
                writer.nack(5, media, &lost) > 0
            }
            2 => {
                writer.pli(5, media)
                    && writer.fir(5, &[FirEntry { ssrc: media, command_sequence: input.u8() }])
            }
            _ => {
                let block = ReportBlock {
                    ssrc: media,
                    fraction_lost: input.u8(),
                    jitter: input.u32(),
                    last_sender_report: input.u32(),
                    delay_since_last_sender_report: input.u32(),
                    ..ReportBlock::default()
                };
                writer.receiver_report(5, &[block])
            }
        };
        assert!(written);
        let len = writer.finish();
        plain.truncate(len);
        (peer, plain)
    }

    /// An honest check of a peer, from anywhere.
    fn check(&mut self, input: &mut Input<'_>) {
        let (peer, from, nominates) = (1 + input.below(4) as u64, elsewhere(input.u8()), input.bool());
        let mut check = binding_request("client", &ice(peer), u32::from(input.u8()), nominates);
        self.drain();
        let len = check.len();
        self.shard.handle_datagram(self.now, from, &mut check);
        for run in self.shard.egress().runs() {
            assert!(
                run.route == from && run.bytes.len() <= len,
                "a check's answer goes back and is no larger"
            );
        }
    }

    fn chosen(&mut self, input: &mut Input<'_>) -> Command {
        let peer = PeerId(1 + input.below(PEERS as usize) as u64);
        let publication = if input.bool() { AUDIO } else { VIDEO };
        let at = input.below(self.streams.len());
        let subscription = self.streams.values().nth(at).expect("there are subscriptions").subscription;
        match input.below(10) {
            0 => Command::SetMuted { publication, muted: input.bool() },
            1..=3 => Command::SetWish {
                subscription,
                wish: Wish {
                    enabled: input.below(4) > 0,
                    max_layer: Layer { spatial: input.u8() & 3, temporal: input.u8() & 3 },
                    priority: 1,
                },
            },
            4 => Command::Unsubscribe { subscription },
            5 => Command::Unpublish { publication },
            6 => {
                let codec = if publication == AUDIO { Codec::Opus } else { self.codec };
                self.publish(publication, codec, vec![Encoding::default(); 1 + input.below(3)]);
                self.subscribe(2 + input.below(2) as u64, publication, codec);
                Command::SetMuted { publication, muted: false }
            }
            7 => Command::OpenChannel {
                peer,
                label: "_reliable".to_owned(),
                ordered: true,
                max_retransmits: None,
                stream: input.bool().then_some(100),
            },
            8 => Command::SendData {
                peer,
                label: "_reliable".to_owned(),
                payload: Bytes::from_static(b"data"),
                binary: true,
            },
            _ => Command::SetRemoteTransport {
                peer,
                local: ice(peer.0),
                remote: RemoteTransport {
                    ice: IceCredentials { ufrag: "other".to_owned(), password: String::new() },
                    fingerprint: [9 + input.u8() / 255; 32],
                    local_role: if input.u8() == 255 { DtlsRole::Client } else { DtlsRole::Server },
                    max_message_size: Some(65_536),
                },
            },
        }
    }

    fn command(&mut self, command: Command) {
        self.shard.handle_command(self.now, command);
        self.drain();
    }

    fn flush(&mut self) {
        for pieces in 0.. {
            assert!(pieces < MAX_FLUSHES, "a flush ends");
            let more = self.shard.flush(self.now);
            self.drain();
            if !more {
                break;
            }
        }
    }

    /// Takes and looks at everything the shard has to say.
    fn drain(&mut self) {
        let egress = self.shard.egress();
        assert!(egress.runs().len() <= MAX_RUNS);
        let mut datagrams = Vec::new();
        for run in egress.runs() {
            assert!(run.segments <= MAX_SEGMENTS);
            let before = datagrams.len();
            datagrams.extend(run.datagrams(egress.arena()).map(<[u8]>::to_vec));
            assert_eq!(datagrams.len() - before, run.segments);
        }
        egress.clear();
        for datagram in datagrams {
            assert!(!datagram.is_empty() && datagram.len() <= MAX_DATAGRAM);
            self.look_at(datagram);
        }
        let mut events = 0;
        while self.shard.poll_event().is_some() {
            events += 1;
            assert!(events <= MAX_EVENTS, "one order causes more than {MAX_EVENTS} events");
        }
        while self.shard.poll_validated_route().is_some() {}
        while self.shard.poll_forgotten_connection().is_some() {}
        let tables = self.shard.table_sizes();
        assert!(tables.routes <= PEERS as usize * ROUTES_PER_PEER, "{tables:?}");
        assert!(tables.user_fragments <= PEERS as usize, "{tables:?}");
        assert!(tables.streams <= PEERS as usize * MAX_SSRCS, "{tables:?}");
        assert!(tables.timers <= MAX_TIMERS, "{tables:?}");
    }

    /// A datagram that left: whose it is shows by whose keys open it.
    fn look_at(&mut self, datagram: Vec<u8>) {
        match classify(&datagram) {
            DatagramKind::Stun | DatagramKind::Dtls => {}
            DatagramKind::Rtp => self.look_at_rtp(datagram),
            DatagramKind::Rtcp => {
                let opened = self.clients.values_mut().find_map(|client| {
                    let mut copy = datagram.clone();
                    client.ingress.open_rtcp(&mut copy).ok().map(|len| (copy, len))
                });
                let (plain, len) = opened.expect("RTCP that leaves is authentic and new to somebody");
                for packet in Compound::new(&plain[..len]) {
                    let packet = packet.expect("RTCP that leaves is well-formed");
                    assert!(!matches!(packet, RtcpPacket::Other { .. }));
                }
            }
            kind => panic!("{kind:?} leaves"),
        }
    }

    fn look_at_rtp(&mut self, datagram: Vec<u8>) {
        let header = RtpHeader::parse(&datagram).expect("RTP that leaves has a header");
        let (ssrc, number) = (header.ssrc, header.sequence_number);
        let stream = self.streams.get_mut(&ssrc).unwrap_or_else(|| panic!("SSRC {ssrc} was not announced"));
        stream.last = number;
        assert!(stream.payload_types.contains(&header.payload_type), "type {}", header.payload_type);
        if let Some(before) = self.sent.get(&(ssrc, number)) {
            assert_eq!(*before, datagram, "number {number} of {ssrc} is used for two packets");
            return; // sent again as it was
        }
        self.sent.insert((ssrc, number), datagram.clone());
        let mut plain = datagram;
        let client = self.clients.get_mut(&stream.peer).expect("a connected peer");
        match client.ingress.open_rtp(&mut plain, |_| true) {
            Ok(opened) => {
                let range = header.payload_range(&plain[..opened.len]);
                assert!(range.is_some(), "padding that leaves is well-formed");
            }
            Err(SrtpError::Replay) => {} // further behind than a receiver remembers
            Err(error) => panic!("what leaves for {} does not open: {error}", stream.peer),
        }
    }
}
