//! A room in virtual time, a plane that takes note of what it is told, and clients that hold their own view of the
//! room: by what they were sent, and nothing else.
//!
//! Every input is followed by a check of what must always hold: snapshots of a participant carry growing versions,
//! nobody hears of a track before its participant, an m-line is inactive before it carries another track, and a room
//! that has handled a time-out wants the next one later.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use prost::Message;
use weir_livekit::ids::{ConnectionId, IdSource};
use weir_livekit::join::JoinParameters;
use weir_livekit::room::{JoinError, LocalMedia, Now, Output, Room, RoomConfig};
use weir_livekit::supervision::ParticipantEvent;
use weir_livekit::token::{Claims, Keys, VideoGrant};
use weir_negotiation::{Candidate, Protocol};
use weir_units::command::Command;
use weir_units::event::Event;
use weir_units::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use weir_units::media::{Codec, IngressMedia, MediaKind, Wish};

use crate::client::Client;
use crate::sdp::Line;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MILLISECOND: Duration = Duration::from_millis(1);

/// Time-outs of one step of virtual time; a room that wants more is going round in circles.
const MAX_TIMEOUTS: usize = 10_000;

pub struct World {
    pub room: Room,
    pub now: Now,
    pub clients: BTreeMap<&'static str, Client>,
    pub plane: PlaneModel,
    /// What observers were told of whom.
    pub happened: Vec<(String, ParticipantEvent)>,
    /// Of which kind first packets went to subscribers, and how long after all was there.
    pub first_packets: Vec<(MediaKind, Duration)>,
    last_connection: u64,
}

/// What the forwarding plane was told, as it stands now.
#[derive(Default)]
pub struct PlaneModel {
    /// By the user fragment that clients see.
    pub peers: HashMap<String, PeerId>,
    pub removed: Vec<PeerId>,
    pub publications: BTreeMap<PublicationId, (PeerId, IngressMedia)>,
    pub muted: BTreeMap<PublicationId, bool>,
    pub subscriptions: BTreeMap<SubscriptionId, Forwarded>,
    /// With the stream, if it is one by agreement.
    pub channels: Vec<(PeerId, String, Option<u16>)>,
}

pub struct Forwarded {
    pub publication: PublicationId,
    pub peer: PeerId,
    pub wish: Wish,
    /// Those that the subscriber takes.
    pub codecs: Vec<Codec>,
}

/// How somebody joins.
pub struct Joining {
    /// By which the test knows this client; its identity unless said otherwise.
    pub name: &'static str,
    pub claims: Claims,
    pub parameters: JoinParameters,
    /// Whether the media connect at once.
    pub connects: bool,
    /// The m-lines of an offer that the test wrote itself.
    pub lines: Option<Vec<Line>>,
}

impl Joining {
    pub fn new(identity: &'static str) -> Self {
        let claims = Claims {
            iss: "key".to_owned(),
            sub: identity.to_owned(),
            name: format!("{identity}'s name"),
            exp: Some(1_700_003_600),
            video: VideoGrant { room: "room".to_owned(), room_join: true, ..VideoGrant::default() },
            ..Claims::default()
        };
        let parameters = JoinParameters {
            client: proto::ClientInfo {
                sdk: proto::client_info::Sdk::Js as i32,
                protocol: 17,
                client_protocol: 2,
                ..Default::default()
            },
            single_peer_connection: true,
            auto_subscribe: true,
            ..JoinParameters::default()
        };
        Self { name: identity, claims, parameters, connects: true, lines: None }
    }

    /// Another client of the same identity.
    pub fn called(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// With a peer connection each way.
    pub fn dual(mut self) -> Self {
        self.parameters.single_peer_connection = false;
        self
    }

    pub fn grant(mut self, change: impl FnOnce(&mut VideoGrant)) -> Self {
        change(&mut self.claims.video);
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut JoinParameters)) -> Self {
        change(&mut self.parameters);
        self
    }

    pub fn unconnected(mut self) -> Self {
        self.connects = false;
        self
    }

    /// Made the offer that goes out with the join.
    pub fn lines(mut self, offering: Client) -> Self {
        self.lines = Some(offering.into_lines());
        self
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(RoomConfig::default())
    }

    pub fn with(config: RoomConfig) -> Self {
        let keys = Keys::new([("key".to_owned(), "a secret of thirty-two characters".to_owned())]);
        let config = Arc::new(RoomConfig { keys, ..config });
        let now = origin();
        let media = LocalMedia {
            ufrag_prefix: 'A',
            fingerprint: [7; 32],
            candidates: vec![Candidate {
                protocol: Protocol::Udp,
                address: "192.0.2.1:7882".parse().unwrap(),
            }],
        };
        let ids = Arc::new(IdSource::default());
        Self {
            room: Room::new(config, "room", ConferenceId(1), media, ids, [9; 32], now),
            now,
            clients: BTreeMap::new(),
            plane: PlaneModel::default(),
            happened: Vec::new(),
            first_packets: Vec::new(),
            last_connection: 0,
        }
    }

    /// Joins with everything that is usual: one peer connection, media connected, negotiation answered.
    pub fn join(&mut self, identity: &'static str) {
        self.join_as(Joining::new(identity)).unwrap();
    }

    pub fn join_as(&mut self, joining: Joining) -> Result<(), JoinError> {
        let Joining { name, claims, mut parameters, connects, lines } = joining;
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        let mut client = Client::new(connection, claims.clone(), parameters.clone(), true);
        if let Some(lines) = lines {
            client.set_lines(lines);
        }
        if parameters.single_peer_connection && parameters.offer.is_none() {
            parameters.offer = Some(client.next_offer());
        }
        client.expects_answer_to(parameters.offer.as_ref());
        let known = self.clients.insert(name, client);
        assert!(known.is_none(), "{name} is taken: Joining::called");
        if let Err(error) = self.room.join(self.now, connection, claims, parameters) {
            self.clients.remove(name);
            return Err(error);
        }
        self.settle();
        if connects {
            self.connect(name);
        }
        Ok(())
    }

    /// The client's media connect, and its data channels open.
    pub fn connect(&mut self, identity: &'static str) {
        for peer in self.peers(identity) {
            self.event(Event::PeerConnected { peer });
            for label in ["_reliable", "_lossy", "_data_track"] {
                self.event(Event::ChannelOpen { peer, label: label.to_owned() });
            }
        }
    }

    /// The client's peer connections that the plane knows: the one it publishes on first.
    pub fn peers(&self, identity: &str) -> Vec<PeerId> {
        let client = &self.clients[identity];
        let ufrags = [&client.answered_ufrag, &client.offered_ufrag];
        ufrags.into_iter().flatten().filter_map(|ufrag| self.plane.peers.get(ufrag)).copied().collect()
    }

    pub fn says(&mut self, identity: &'static str, message: Request) {
        let connection = self.clients[identity].connection;
        self.room.handle_message(self.now, connection, message);
        self.settle();
    }

    /// The WebSocket is cut.
    pub fn cut(&mut self, identity: &'static str) {
        let client = self.clients.get_mut(identity).unwrap();
        client.closed = true;
        self.room.handle_close(self.now, client.connection);
        self.settle();
    }

    /// The client comes back over a new WebSocket. What it was sent is counted from here.
    pub fn resume(&mut self, identity: &'static str) {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        let client = self.clients.get_mut(identity).unwrap();
        let parameters =
            JoinParameters { resume: Some(client.sid()), offer: None, ..client.parameters.clone() };
        client.reconnect(connection);
        self.room.join(self.now, connection, client.claims.clone(), parameters).unwrap();
        self.settle();
    }

    pub fn event(&mut self, event: Event) {
        self.room.handle_event(self.now, event);
        self.settle();
    }

    /// Lets time pass, stopping at whatever the room wants done on the way.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now.at + by;
        for _ in 0..MAX_TIMEOUTS {
            let Some(at) = self.room.poll_timeout().filter(|at| *at <= end) else {
                self.set_time(end);
                return;
            };
            let at = at.max(self.now.at);
            self.set_time(at);
            self.room.handle_timeout(self.now);
            self.settle();
            if self.room.is_over(self.now.at) {
                self.set_time(end);
                return;
            }
            let next = self.room.poll_timeout();
            assert!(next.is_none_or(|next| next > at), "what was due is due again: a room that spins");
        }
        panic!("more than {MAX_TIMEOUTS} time-outs within {by:?}");
    }

    fn set_time(&mut self, at: Instant) {
        self.now.unix_ms += (at - self.now.at).as_millis() as i64;
        self.now.at = at;
    }

    /// Announces a track and offers its m-line; returns its sid.
    pub fn publish(&mut self, identity: &'static str, track: proto::AddTrackRequest) -> String {
        let cid = track.cid.clone();
        let client = self.clients.get_mut(identity).unwrap();
        let offer = client.offer_with(&track);
        self.says(identity, Request::AddTrack(track));
        self.says(identity, Request::Offer(offer));
        self.clients[identity]
            .published_sid(&cid)
            .unwrap_or_else(|| panic!("{identity} was not told a sid for {cid}"))
    }

    /// Takes the track off its m-line.
    pub fn unpublish(&mut self, identity: &'static str, cid: &str) {
        let offer = self.clients.get_mut(identity).unwrap().offer_without(cid);
        self.says(identity, Request::Offer(offer));
    }

    /// The publication that carries a track of this client.
    pub fn publication(&self, identity: &str, cid: &str) -> PublicationId {
        let peers = self.peers(identity);
        let mid = self.clients[identity].mid_of(cid).unwrap_or_else(|| panic!("{cid} has no m-line"));
        let of_mid = |media: &IngressMedia| media.mid.as_str() == mid;
        let found =
            self.plane.publications.iter().find(|(_, (peer, media))| peers.contains(peer) && of_mid(media));
        *found.unwrap_or_else(|| panic!("{cid} of {identity} is not published")).0
    }

    /// What the plane forwards to this client: of whom and how.
    pub fn forwarded(&self, identity: &str) -> Vec<(SubscriptionId, &Forwarded)> {
        let peers = self.peers(identity);
        let theirs = self.plane.subscriptions.iter().filter(|(_, entry)| peers.contains(&entry.peer));
        theirs.map(|(id, entry)| (*id, entry)).collect()
    }

    /// The wish that the plane holds for the one subscription of this client to that publication.
    pub fn wish(&self, identity: &str, publication: PublicationId) -> Wish {
        let forwarded = self.forwarded(identity);
        let found = forwarded.iter().find(|(_, entry)| entry.publication == publication);
        found.unwrap_or_else(|| panic!("{identity} gets nothing of {publication}")).1.wish
    }

    pub fn data(&mut self, identity: &'static str, label: &str, payload: impl Into<bytes::Bytes>) {
        let peer = self.peers(identity)[0];
        self.event(Event::Data { peer, label: label.to_owned(), payload: payload.into(), binary: true });
    }

    /// Carries out what the room wants and lets clients react, until nobody has anything more to say.
    pub fn settle(&mut self) {
        for _ in 0..MAX_TIMEOUTS {
            self.drain();
            let reaction = self.clients.values_mut().find_map(Client::react);
            let Some((connection, message)) = reaction else { return };
            self.room.handle_message(self.now, connection, message);
        }
        panic!("clients and room never stop talking");
    }

    fn drain(&mut self) {
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Command(command) => self.carry_out(command),
                Output::Send { connection, message } => {
                    let response = proto::SignalResponse::decode(message).expect("the room sends protobuf");
                    let response = response.message.expect("the room sends something");
                    self.client_on(connection).hear(response);
                }
                Output::Close { connection } => self.client_on(connection).closed = true,
                Output::Happened { bearer, event } => self.happened.push((bearer.identity.clone(), event)),
                Output::FirstPacket { kind, after } => self.first_packets.push((kind, after)),
            }
        }
    }

    fn client_on(&mut self, connection: ConnectionId) -> &mut Client {
        let client = self.clients.values_mut().find(|client| client.connection == connection);
        client.unwrap_or_else(|| panic!("nobody is on {connection:?}"))
    }

    fn carry_out(&mut self, command: Command) {
        let plane = &mut self.plane;
        match command {
            Command::AddPeer { peer, local, .. } => {
                plane.peers.insert(local.ufrag, peer);
            }
            Command::SetRemoteTransport { peer, local, .. } => {
                plane.peers.insert(local.ufrag, peer);
            }
            Command::RemovePeer { peer } => {
                plane.removed.push(peer);
                plane.subscriptions.retain(|_, entry| entry.peer != peer);
                plane.publications.retain(|_, (publisher, _)| *publisher != peer);
            }
            Command::OpenChannel { peer, label, stream, .. } => plane.channels.push((peer, label, stream)),
            Command::SendData { peer, label, payload, .. } => {
                let ufrag =
                    plane.peers.iter().find(|(_, known)| **known == peer).map(|(ufrag, _)| ufrag.clone());
                let ufrag = ufrag.expect("data goes to a peer that was added");
                let client = self.clients.values_mut().find(|client| client.has_ufrag(&ufrag));
                client.expect("data goes to somebody").data.push((label, payload));
            }
            Command::Publish { publication, peer, media } => {
                plane.publications.insert(publication, (peer, media));
            }
            Command::SetMuted { publication, muted } => {
                plane.muted.insert(publication, muted);
            }
            Command::Unpublish { publication } => {
                plane.publications.remove(&publication);
                plane.subscriptions.retain(|_, entry| entry.publication != publication);
            }
            Command::Subscribe { subscription, publication, peer, wish, media } => {
                assert!(plane.publications.contains_key(&publication), "subscribed to what is not published");
                let codecs = media.formats.iter().map(|format| format.codec).collect();
                plane.subscriptions.insert(subscription, Forwarded { publication, peer, wish, codecs });
            }
            Command::SetWish { subscription, wish } => {
                plane.subscriptions.get_mut(&subscription).expect("a wish about a subscription").wish = wish;
            }
            Command::Unsubscribe { subscription } => {
                plane.subscriptions.remove(&subscription);
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time; tests only add to it")]
fn origin() -> Now {
    Now { at: Instant::now(), unix_ms: 1_700_000_000_000 }
}
