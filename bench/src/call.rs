//! One conference on one shard, with peers that are connected for real, in virtual time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_core::shard::{Shard, ShardConfig, ufrag_prefix};
use weir_core::{Route, TransportContext};
use weir_transport::srtp::{SrtpEgress, SrtpIngress};
use weir_transport::testing::{Client, ClientEvent};
use weir_units::command::Command;
use weir_units::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use weir_units::media::{
    Codec, DtlsRole, EgressMedia, Encoding, ExtensionIds, IceCredentials, IngressMedia, MediaKind, Mid,
    PayloadFormat, RemoteTransport, Wish,
};

use crate::measure::Cost;

/// Ids of the header extensions that all m-lines negotiate.
pub const EXTENSIONS: ExtensionIds = ExtensionIds {
    mid: Some(4),
    rid: Some(10),
    repaired_rid: Some(11),
    transport_cc: Some(3),
    abs_send_time: Some(2),
    audio_level: Some(1),
    dependency_descriptor: Some(12),
};

/// The largest data channel message that clients take.
const MAX_MESSAGE: u32 = 262_144;

/// SCTP holds an acknowledgement back for 200 ms.
const HELD_BACK: Duration = Duration::from_millis(250);

/// Peers connect spread over this time, so that their reports are not all due at once.
const SPREAD: Duration = Duration::from_secs(1);

pub struct Call {
    pub shard: Shard,
    pub now: Instant,
    context: Arc<TransportContext>,
    /// All clients share a certificate: making one is no part of what is measured.
    client_context: Arc<TransportContext>,
    next_id: u64,
    peers: Vec<Peer>,
}

/// A connected peer, as its client knows it.
struct Peer {
    route: Route,
    /// Its check, which it repeats to say that it is still there.
    check: Vec<u8>,
}

/// A client's SRTP.
pub struct Media {
    pub peer: PeerId,
    pub ingress: SrtpIngress,
    pub egress: SrtpEgress,
}

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time; only differences matter")]
fn origin() -> Instant {
    Instant::now()
}

impl Call {
    pub fn new(rate_control: bool) -> Self {
        let now = origin();
        let context = || Arc::new(TransportContext::generate().expect("a certificate can be made"));
        let (context, client_context) = (context(), context());
        Self {
            shard: Shard::new(&ShardConfig { index: 0, rate_control }, Arc::clone(&context), now, 1),
            now,
            context,
            client_context,
            next_id: 0,
            peers: Vec::new(),
        }
    }

    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Connects a peer at that address: credentials, a check, DTLS, in memory. What the focus's side costs goes to
    /// `cost`.
    pub fn connect(&mut self, route: Route, spread_over: usize, cost: &mut Cost) -> Media {
        let (peer, number) = (PeerId(self.id()), self.next_id);
        let local = IceCredentials {
            ufrag: format!("{}{number:09}", ufrag_prefix(0)),
            password: format!("password of the focus {number:03}"),
        };
        self.now += SPREAD / spread_over as u32;
        let client = self.client();
        let (remote, now) = (client.description(Some(MAX_MESSAGE)), self.now);
        cost.charge(|| {
            let conference = ConferenceId(1);
            self.shard.handle_command(now, Command::AddPeer { peer, conference, local: local.clone() });
            self.shard
                .handle_command(now, Command::SetRemoteTransport { peer, local: local.clone(), remote });
        });
        self.handshake(client, peer, local, route, cost)
    }

    /// A client that has not said anything yet.
    pub fn client(&self) -> Client {
        let number = self.next_id;
        let ice = IceCredentials {
            ufrag: format!("client{number:05}"),
            password: format!("password+of+client+{number:06}"),
        };
        Client::new(&self.client_context, ice, self.now)
    }

    /// From the first check to open data channels, once the shard knows both descriptions.
    pub fn handshake(
        &mut self,
        mut client: Client,
        peer: PeerId,
        local: IceCredentials,
        route: Route,
        cost: &mut Cost,
    ) -> Media {
        let Self { shard, now, context, .. } = self;
        let focus = RemoteTransport {
            ice: local,
            fingerprint: context.fingerprint(),
            local_role: DtlsRole::Client,
            max_message_size: Some(MAX_MESSAGE),
        };
        client.set_focus(*now, &focus);
        client.open_channel(*now, "_reliable", true, None);
        client.open_channel(*now, "_lossy", false, Some(0));
        let check = client.check(true);
        let mut to_focus = Some(check.clone());
        while let Some(mut packet) = to_focus {
            cost.charge(|| {
                shard.handle_datagram(*now, route, &mut packet);
            });
            let arena = shard.egress();
            for run in arena.runs().iter().filter(|run| run.route == route) {
                for packet in run.datagrams(arena.arena()) {
                    client.handle_packet(*now, packet);
                }
            }
            arena.clear();
            to_focus = client.poll_packet().or_else(|| {
                // Acknowledgements that SCTP holds back; without them the focus would repeat itself.
                client.handle_timeout(*now + HELD_BACK);
                client.poll_packet()
            });
        }
        cost.charge(|| while shard.poll_event().is_some() {});
        while shard.poll_validated_route().is_some() {}
        self.peers.push(Peer { route, check });
        let events: Vec<ClientEvent> = std::iter::from_fn(|| client.poll_event()).collect();
        assert_eq!(events.len(), 3, "connected, and two channels are open: {events:?}");
        let (ingress, egress) = client.take_srtp().expect("the handshake is done");
        Media { peer, ingress, egress }
    }

    pub fn publish(&mut self, peer: PeerId, codec: Codec, ssrc: u32) -> PublicationId {
        let publication = PublicationId(self.id());
        let media = IngressMedia {
            mid: mid(publication.0),
            kind: codec.kind(),
            formats: formats(codec),
            extensions: EXTENSIONS,
            encodings: vec![Encoding { ssrc: Some(ssrc), ..Encoding::default() }],
            nack: codec.kind() == MediaKind::Video,
            is_screen: false,
        };
        self.shard.handle_command(self.now, Command::Publish { publication, peer, media });
        publication
    }

    pub fn subscribe(&mut self, peer: PeerId, publication: PublicationId, codec: Codec) {
        let number = self.id();
        let ssrc = 0x4000_0000 + 2 * number as u32;
        let media = EgressMedia {
            mid: mid(number),
            kind: codec.kind(),
            formats: formats(codec),
            extensions: EXTENSIONS,
            ssrc,
            rtx_ssrc: (codec.kind() == MediaKind::Video).then_some(ssrc + 1),
        };
        let (subscription, wish) = (SubscriptionId(number), Wish::default());
        self.shard
            .handle_command(self.now, Command::Subscribe { subscription, publication, peer, media, wish });
        self.shard.egress().clear();
    }

    /// Everybody's check again, as clients send it every few seconds.
    pub fn keep_alive(&mut self) {
        for peer in &mut self.peers {
            self.shard.handle_datagram(self.now, peer.route, &mut peer.check.clone());
            self.shard.egress().clear();
        }
    }

    pub fn fingerprint(&self) -> [u8; 32] {
        self.context.fingerprint()
    }
}

fn mid(number: u64) -> Mid {
    Mid::new(&number.to_string()).expect("digits are a token")
}

pub fn formats(codec: Codec) -> Vec<PayloadFormat> {
    let payload_type = payload_type(codec);
    let rtx_payload_type = (codec.kind() == MediaKind::Video).then_some(payload_type + 1);
    vec![PayloadFormat { codec, payload_type, rtx_payload_type }]
}

pub fn payload_type(codec: Codec) -> u8 {
    match codec {
        Codec::Opus => 111,
        Codec::Red => 63,
        Codec::Vp8 => 96,
        Codec::Vp9 => 98,
        Codec::H264 => 102,
        Codec::Av1 => 45,
    }
}

/// An address that nothing is ever sent to over a socket.
pub fn imaginary(number: usize) -> Route {
    let [a, b] = (number as u16).to_be_bytes();
    Route::Udp { socket: 0, remote: ([10, (number >> 16) as u8, a, b], 5_000).into() }
}
