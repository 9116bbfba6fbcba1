//! What one join costs the focus: from the first command to media and data channels connected, two tracks subscribed.

use std::sync::Arc;

use aws_lc_rs::agreement;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use livekit_protocol as proto;
use prost::Message;
use weir_core::shard::ufrag_prefix;
use weir_livekit::RoomConfig;
use weir_livekit::ids::{ConnectionId, IdSource};
use weir_livekit::join::JoinParameters;
use weir_livekit::room::{LocalMedia, Now, Output, Room};
use weir_livekit::token::{self, Keys};
use weir_negotiation::{Candidate, Protocol};
use weir_transport::testing::Client;
use weir_units::command::Command;
use weir_units::ids::{ConferenceId, PeerId};
use weir_units::media::{Codec, IceCredentials};

use crate::call::{Call, imaginary};
use crate::measure::{Comparison, Cost, compare};

/// Joins of one run.
const JOINS: usize = 50;

/// livekit-client's first offer, as Chromium made it.
const OFFER: &str = include_str!("../../sfu/negotiation/testdata/web-2.23.0.sdp");

pub struct Joins {
    pub media: Comparison,
    pub signalling: Comparison,
}

pub fn measure() -> Joins {
    let floor = Handshake::new();
    let run_floor = || {
        let mut cost = Cost::new();
        for _ in 0..JOINS {
            cost.charge(|| floor.run());
            cost.units += 1;
        }
        cost
    };
    let media = compare(join_media, run_floor);
    let signalling = compare(join_rooms, run_floor);
    Joins { media, signalling }
}

/// The forwarding plane alone.
fn join_media() -> Cost {
    let mut call = Call::new(false);
    let publisher = call.connect(imaginary(0), 1, &mut Cost::default()).peer;
    let codecs = [Codec::Opus, Codec::Vp8];
    let tracks = codecs.map(|codec| call.publish(publisher, codec, codec as u32 + 1));
    let mut cost = Cost::new();
    for number in 1..=JOINS {
        let peer = call.connect(imaginary(number), JOINS, &mut cost).peer;
        cost.charge(|| {
            for (track, codec) in tracks.into_iter().zip(codecs) {
                call.subscribe(peer, track, codec);
            }
        });
        cost.units += 1;
    }
    cost
}

/// With the client's token and request read, the room's part, and its commands carried out. HTTP and WebSocket framing
/// are not in it.
fn join_rooms() -> Cost {
    let mut call = Call::new(false);
    let keys = Keys::new([("key".to_owned(), "a secret that is long enough".to_owned())]);
    let config = Arc::new(RoomConfig { keys: keys.clone(), ..RoomConfig::default() });
    let media = LocalMedia {
        ufrag_prefix: ufrag_prefix(0),
        fingerprint: call.fingerprint(),
        candidates: vec![Candidate {
            protocol: Protocol::Udp,
            address: "127.0.0.1:7882".parse().expect("an address"),
        }],
    };
    let ids = Arc::new(IdSource::default());
    let mut cost = Cost::new();
    for number in 0..JOINS {
        let now = Now { at: call.now, unix_ms: 1_700_000_000_000 };
        let seed = [number as u8; 32];
        let (config, ids, media) = (Arc::clone(&config), Arc::clone(&ids), media.clone());
        let conference = ConferenceId(number as u64 + 1);
        let mut room = Room::new(config, "room", conference, media, ids, seed, now);
        let mut joiner = Joiner { call: &mut call, room: &mut room, keys: &keys, now };
        joiner.join(2 * number, true, &mut Cost::default());
        joiner.join(2 * number + 1, false, &mut cost);
        cost.units += 1;
    }
    cost
}

struct Joiner<'a> {
    call: &'a mut Call,
    room: &'a mut Room,
    keys: &'a Keys,
    now: Now,
}

impl Joiner<'_> {
    fn join(&mut self, number: usize, publishes: bool, cost: &mut Cost) {
        self.call.id();
        let client = self.call.client();
        let connection = ConnectionId(number as u64);
        let unix = self.now.unix_ms as u64 / 1_000;
        let secret = "a secret that is long enough";
        let token = token::mint("key", secret, &format!("user {number}"), "room", unix, unix + 600);
        let token = token.expect("it can be signed");
        let query = [("join_request".to_owned(), request(&client, publishes))];
        let mut peer = None;
        cost.charge(|| {
            let claims = token::verify(self.keys, &token, unix).expect("it was just signed");
            let parameters = JoinParameters::from_v1(&query).expect("it was just made");
            self.room.join(self.now, connection, claims, parameters).expect("there is room");
            peer = carry_out(self.call, self.room);
        });
        let (peer, local) = peer.expect("the answer makes a peer");
        self.call.handshake(client, peer, local, imaginary(number), cost);
        cost.charge(|| {
            self.room.handle_event(self.now, weir_units::event::Event::PeerConnected { peer });
            carry_out(self.call, self.room)
        });
    }
}

/// Gives the room's commands to the shard; what it sends would go to WebSockets.
fn carry_out(call: &mut Call, room: &mut Room) -> Option<(PeerId, IceCredentials)> {
    let mut transport = None;
    while let Some(output) = room.poll_output() {
        if let Output::Command(command) = output {
            if let Command::SetRemoteTransport { peer, local, .. } = &command {
                transport = Some((*peer, local.clone()));
            }
            call.shard.handle_command(call.now, command);
            call.shard.egress().clear();
        }
    }
    transport
}

/// `join_request` of a client with this transport.
fn request(client: &Client, publishes: bool) -> String {
    let description = client.description(None);
    let fingerprint: Vec<String> = description.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    let mut mid = "";
    let lines = OFFER.lines().map(|line| {
        if let Some(value) = line.strip_prefix("a=mid:") {
            mid = value;
        }
        match line.split_once(':').map_or(line, |(name, _)| name) {
            "a=ice-ufrag" => format!("a=ice-ufrag:{}", description.ice.ufrag),
            "a=ice-pwd" => format!("a=ice-pwd:{}", description.ice.password),
            "a=fingerprint" => format!("a=fingerprint:sha-256 {}", fingerprint.join(":")),
            "a=recvonly" if publishes && matches!(mid, "0" | "3") => {
                format!("a=sendonly\r\na=msid:- track{mid}")
            }
            _ => line.to_owned(),
        }
    });
    let sdp = lines.map(|line| line + "\r\n").collect();
    let track = |mid, kind: proto::TrackType, source: proto::TrackSource| proto::AddTrackRequest {
        cid: format!("track{mid}"),
        r#type: kind as i32,
        source: source as i32,
        ..Default::default()
    };
    let tracks = vec![
        track(0, proto::TrackType::Audio, proto::TrackSource::Microphone),
        track(3, proto::TrackType::Video, proto::TrackSource::Camera),
    ];
    let request = proto::JoinRequest {
        client_info: Some(proto::ClientInfo { protocol: 17, ..Default::default() }),
        connection_settings: Some(proto::ConnectionSettings { auto_subscribe: true, ..Default::default() }),
        add_track_requests: if publishes { tracks } else { Vec::new() },
        publisher_offer: Some(proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp,
            id: 1,
            ..Default::default()
        }),
        ..Default::default()
    };
    let wrapped = proto::WrappedJoinRequest { compression: 0, join_request: request.encode_to_vec() };
    URL_SAFE.encode(wrapped.encode_to_vec())
}

/// The floor: the public-key operations that a DTLS 1.2 handshake with certificates on both sides asks of one side.
struct Handshake {
    random: SystemRandom,
    ours: EcdsaKeyPair,
    theirs: UnparsedPublicKey<Vec<u8>>,
    signed: Vec<u8>,
    share: agreement::PublicKey,
}

const TRANSCRIPT: &[u8] = &[7; 64];

impl Handshake {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pair = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("keys can be made");
        let (ours, theirs) = (pair(), pair());
        let signed = theirs.sign(&random, TRANSCRIPT).expect("a signature").as_ref().to_vec();
        let private = agreement::PrivateKey::generate(&agreement::X25519).expect("a key");
        Self {
            ours,
            theirs: UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, theirs.public_key().as_ref().to_vec()),
            signed,
            share: private.compute_public_key().expect("a key"),
            random,
        }
    }

    fn run(&self) {
        let private = agreement::PrivateKey::generate(&agreement::X25519).expect("a key");
        let public = private.compute_public_key().expect("a key");
        let signature = self.ours.sign(&self.random, TRANSCRIPT).expect("a signature");
        self.theirs.verify(TRANSCRIPT, &self.signed).expect("it is theirs");
        let theirs = agreement::UnparsedPublicKey::new(&agreement::X25519, self.share.as_ref());
        let secret =
            agreement::agree(&private, theirs, aws_lc_rs::error::Unspecified, |secret| Ok(secret.to_vec()));
        std::hint::black_box((public, signature, secret.expect("it is on the curve")));
    }
}
