//! Orders to a room, as clients, the forwarding plane and the clock would give them in any sequence. What each byte
//! means is in [`Play::order`].
//!
//! Protobuf messages are taken from the input as they are, but a string of one character in a place that names
//! something stands for a name the room has given out, so that requests find what they are about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use prost::Message;
use weir_livekit::ids::{ConnectionId, IdSource};
use weir_livekit::join::JoinParameters;
use weir_livekit::room::{Limits, LocalMedia, Now, Output, Room, RoomConfig};
use weir_livekit::supervision::ParticipantEvent;
use weir_livekit::token::{Claims, Keys, VideoGrant};
use weir_negotiation::{Candidate, LocalParameters, Negotiator, Protocol};
use weir_units::command::Command;
use weir_units::event::{Event, LineQuality, PeerLostReason, Shortage};
use weir_units::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use weir_units::media::{Codec, IceCredentials};

use crate::{Input, clock};

const MAX_ORDERS: usize = 96;
const MAX_CONNECTIONS: u64 = 24;
const CONFERENCE: ConferenceId = ConferenceId(1);
/// Messages and commands that one order may cause. Nine participants of eight tracks each are told of one another.
const MAX_OUTPUTS: usize = 1_024;
/// Bytes of one message to a client, with [`LIMITS`] as they are here.
const MAX_MESSAGE: usize = 256 * 1024;

const LIMITS: Limits =
    Limits { participants: 6, tracks: 8, name: 64, identity: 64, metadata: 1_024, attributes: 1_024 };

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut play = Play::new();
    for _ in 0..MAX_ORDERS {
        if input.is_empty() {
            break;
        }
        play.order(&mut input);
        play.drain();
    }
    play.room.shut_down(play.now);
    play.drain();
    assert_eq!((play.room.participants(), play.room.tracks()), (0, 0), "nobody stays after the end");
    assert!(play.present.is_empty(), "whoever joined has left: {:?}", play.present);
    assert!(play.open.is_empty(), "every connection is closed: {:?}", play.open);
    assert!(play.peers.is_empty(), "every peer is removed: {:?}", play.peers);
}

struct Play {
    room: Room,
    now: Now,
    next_connection: u64,
    /// Connections that may be sent to.
    open: BTreeSet<ConnectionId>,
    clients: BTreeMap<ConnectionId, Client>,
    /// What the forwarding plane was told of and not told to forget.
    peers: BTreeSet<PeerId>,
    publications: BTreeMap<PublicationId, PeerId>,
    subscriptions: BTreeMap<SubscriptionId, (PublicationId, PeerId)>,
    /// Everything that ever had a number: none is given twice.
    numbers: BTreeSet<u64>,
    /// Who is here, as observers were told.
    present: BTreeSet<String>,
    /// Names that the room gave out.
    names: Vec<String>,
}

/// What a client remembers of its side.
#[derive(Default)]
struct Client {
    /// The last offer it got.
    offer: Option<proto::SessionDescription>,
    negotiator: Option<Negotiator>,
}

impl Play {
    fn new() -> Self {
        let now = Now { at: clock::start(), unix_ms: 1_750_000_000_000 };
        let config = RoomConfig {
            keys: Keys::new([("key".to_owned(), "secret".to_owned())]),
            limits: LIMITS,
            ..RoomConfig::default()
        };
        let media = LocalMedia {
            ufrag_prefix: 'A',
            fingerprint: [7; 32],
            candidates: vec![Candidate {
                protocol: Protocol::Udp,
                address: "192.0.2.7:7882".parse().expect("an address"),
            }],
        };
        let ids = Arc::new(IdSource::default());
        Self {
            room: Room::new(Arc::new(config), "room", CONFERENCE, media, ids, [3; 32], now),
            now,
            next_connection: 1,
            open: BTreeSet::new(),
            present: BTreeSet::new(),
            clients: BTreeMap::new(),
            peers: BTreeSet::new(),
            publications: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            numbers: BTreeSet::new(),
            names: Vec::new(),
        }
    }

    fn order(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            0 => self.join(input),
            1 | 2 => {
                let connection = self.connection(input);
                let bytes = input.chunk();
                if let Ok(proto::SignalRequest { message: Some(mut message) }) =
                    proto::SignalRequest::decode(bytes)
                {
                    self.name(&mut message);
                    self.room.handle_message(self.now, connection, message);
                }
            }
            3 => {
                let connection = self.connection(input);
                let sdp = offer(input);
                let offer =
                    proto::SessionDescription { r#type: "offer".to_owned(), sdp, ..Default::default() };
                self.room.handle_message(self.now, connection, Request::Offer(offer));
            }
            4 => self.answer(input),
            5 => self.event(input),
            6 => self.pass_time(input),
            _ => {
                let connection = self.connection(input);
                self.room.handle_close(self.now, connection);
                self.open.remove(&connection);
            }
        }
    }

    fn connection(&self, input: &mut Input<'_>) -> ConnectionId {
        ConnectionId(1 + u64::from(input.u8()) % self.next_connection)
    }

    fn join(&mut self, input: &mut Input<'_>) {
        if self.next_connection > MAX_CONNECTIONS {
            return;
        }
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let (flags, more) = (input.u8(), input.u8());
        let identity = input.choose(&["anne", "ben", "cleo", "dora"]);
        let resumes = flags & 0x0f == 0x0f;
        let claims = Claims {
            sub: identity.to_owned(),
            exp: Some(1_750_000_600),
            video: VideoGrant {
                room: "room".to_owned(),
                room_join: true,
                can_publish: (more & 1 != 0).then_some(more & 2 == 0),
                can_subscribe: (more & 4 != 0).then_some(more & 8 == 0),
                hidden: more & 0x30 == 0x30,
                can_update_own_metadata: Some(more & 0x40 == 0),
                can_publish_sources: if more & 0x80 == 0 { vec![] } else { vec!["camera".to_owned()] },
                ..VideoGrant::default()
            },
            ..Claims::default()
        };
        let resume = resumes.then(|| self.named(input.u8()));
        let single = flags & 0x10 == 0;
        let add_tracks = if flags & 0x80 == 0 {
            vec![]
        } else {
            proto::AddTrackRequest::decode(input.chunk()).into_iter().collect()
        };
        let parameters = JoinParameters {
            client: proto::ClientInfo {
                protocol: input.choose(&[17, 16, 13, 12, 9, 2]),
                ..Default::default()
            },
            single_peer_connection: single,
            auto_subscribe: flags & 0x20 == 0,
            adaptive_stream: flags & 0x40 != 0,
            add_tracks,
            resume,
            ..JoinParameters::default()
        };
        self.open.insert(connection);
        self.clients.insert(connection, Client::default());
        if self.room.join(self.now, connection, claims, parameters).is_err() {
            self.open.remove(&connection);
        }
        assert!(self.room.participants() <= LIMITS.participants);
    }

    /// Answers the last offer as a client would, or with an answer of its own making.
    fn answer(&mut self, input: &mut Input<'_>) {
        let connection = self.connection(input);
        let honest = input.u8() < 200;
        let Some(client) = self.clients.get_mut(&connection) else { return };
        let Some(offer) = client.offer.clone() else { return };
        let sdp = if honest {
            let negotiator = client.negotiator.get_or_insert_with(|| Negotiator::new(local(), 9));
            if negotiator.handle_offer(&offer.sdp).is_err() {
                return; // ICE was restarted with fewer m-lines only if the client missed an offer
            }
            negotiator.create_answer().expect("an offer waits").sdp
        } else {
            self::offer(input)
        };
        let id = if input.bool() { 0 } else { offer.id };
        let answer = proto::SessionDescription { r#type: "answer".to_owned(), sdp, id, ..Default::default() };
        self.room.handle_message(self.now, connection, Request::Answer(answer));
    }

    fn event(&mut self, input: &mut Input<'_>) {
        let kind = input.below(10);
        let at = usize::from(input.u8());
        let peer = self.peers.iter().nth(at % (self.peers.len() + 1)).copied().unwrap_or(PeerId(u64::MAX));
        let publication = self.publications.keys().nth(at % (self.publications.len() + 1)).copied();
        let publication = publication.unwrap_or(PublicationId(u64::MAX));
        let subscription = self.subscriptions.keys().nth(at % (self.subscriptions.len() + 1)).copied();
        let subscription = subscription.unwrap_or(SubscriptionId(u64::MAX));
        let label =
            |input: &mut Input<'_>| input.choose(&["_reliable", "_lossy", "_data_track", "mine"]).to_owned();
        let event = match kind {
            0 | 1 => Event::PeerConnected { peer },
            2 => Event::PeerLost { peer, reason: PeerLostReason::Timeout },
            3 => Event::ChannelOpen { peer, label: label(input) },
            4 => {
                let label = label(input);
                let payload = Bytes::copy_from_slice(input.chunk());
                Event::Data { peer, label, payload, binary: true }
            }
            5 => Event::PublicationStarted { publication, codec: input.choose(&[Codec::Vp8, Codec::H264]) },
            6 => Event::SubscriptionStarted { subscription },
            7 => Event::StreamState { subscription, paused: input.bool() },
            8 => Event::LayersWanted { publication, layers: input.u8() },
            _ if input.bool() => {
                let level = f32::from(input.u8()) / 255.0;
                Event::Speakers { conference: CONFERENCE, speakers: vec![(publication, level)] }
            }
            _ => {
                let quality = LineQuality {
                    loss: f32::from(input.u8()) / 255.0,
                    round_trip_ms: f32::from(input.u8()) * 10.0,
                    jitter_ms: f32::from(input.u8()),
                    shortage: match input.u8() % 3 {
                        0 => Shortage::Little,
                        1 => Shortage::Much,
                        _ => Shortage::Paused,
                    },
                };
                Event::Quality { peer, quality }
            }
        };
        self.room.handle_event(self.now, event);
    }

    /// To the next timeout, or some milliseconds on. A timeout that has been handled is not due again.
    fn pass_time(&mut self, input: &mut Input<'_>) {
        let millis = u64::from(input.u16());
        if let (0, Some(at)) = (millis, self.room.poll_timeout()) {
            self.advance_to(at.max(self.now.at));
        } else {
            self.advance_to(self.now.at + Duration::from_millis(millis));
        }
        self.room.handle_timeout(self.now);
        if let Some(next) = self.room.poll_timeout() {
            let over = self.room.is_over(self.now.at);
            assert!(next > self.now.at || over, "a timeout comes back at once");
        }
    }

    fn advance_to(&mut self, at: Instant) {
        self.now.unix_ms += at.saturating_duration_since(self.now.at).as_millis() as i64;
        self.now.at = at;
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.room.poll_output() {
            outputs += 1;
            assert!(outputs <= MAX_OUTPUTS, "one order causes more than {MAX_OUTPUTS} outputs");
            match output {
                Output::Send { connection, message } => self.sent(connection, &message),
                Output::Close { connection } => {
                    assert!(self.open.remove(&connection), "{connection:?} is closed once");
                }
                Output::Command(command) => self.commanded(command),
                Output::Happened { bearer, event } => self.happened(&bearer.identity, event),
                Output::FirstPacket { .. } => {}
            }
        }
    }

    fn happened(&mut self, identity: &str, event: ParticipantEvent) {
        let is_news = match event {
            ParticipantEvent::Joined => self.present.insert(identity.to_owned()),
            ParticipantEvent::Left(_) => self.present.remove(identity),
            _ => self.present.contains(identity),
        };
        assert!(is_news, "{event:?} of somebody of whom it cannot be");
    }

    fn sent(&mut self, connection: ConnectionId, message: &[u8]) {
        assert!(self.open.contains(&connection), "{connection:?} is closed");
        assert!(message.len() <= MAX_MESSAGE, "a message of {} bytes", message.len());
        let response = proto::SignalResponse::decode(message).expect("what we send is a response");
        match response.message.expect("and says something") {
            Response::Join(join) => {
                let others = join.other_participants.len();
                assert!(others < LIMITS.participants);
                let participant = join.participant.expect("who it is");
                self.names.push(participant.sid);
            }
            Response::TrackPublished(published) => {
                self.names.push(published.track.expect("a track").sid);
            }
            Response::PublishDataTrackResponse(published) => {
                self.names.push(published.info.expect("a data track").sid);
            }
            Response::Offer(offer) => {
                parse(&offer.sdp);
                self.clients.entry(connection).or_default().offer = Some(offer);
            }
            Response::Answer(answer) => parse(&answer.sdp),
            _ => {}
        }
    }

    fn commanded(&mut self, command: Command) {
        match command {
            Command::AddPeer { peer, conference, local } => {
                assert_eq!(conference, CONFERENCE);
                assert!(local.ufrag.starts_with('A'));
                assert!(self.peers.insert(peer) && self.numbers.insert(peer.0), "{peer} is added once");
            }
            Command::SetRemoteTransport { peer, .. }
            | Command::OpenChannel { peer, .. }
            | Command::SendData { peer, .. } => assert!(self.peers.contains(&peer), "{peer} is not there"),
            Command::RemovePeer { peer } => {
                assert!(self.peers.remove(&peer), "{peer} is removed once");
                // The plane ends with a peer what it published and subscribed to.
                self.publications.retain(|_, owner| *owner != peer);
                let publications = &self.publications;
                self.subscriptions.retain(|_, (source, to)| *to != peer && publications.contains_key(source));
            }
            Command::Publish { publication, peer, media } => {
                assert!(self.peers.contains(&peer), "{peer} is not there");
                assert!(!media.formats.is_empty() && !media.encodings.is_empty());
                if self.publications.insert(publication, peer).is_none() {
                    assert!(self.numbers.insert(publication.0), "{publication} is published once");
                }
            }
            Command::SetMuted { .. } | Command::SetWish { .. } => {}
            Command::Unpublish { publication } => {
                self.publications.remove(&publication);
                self.subscriptions.retain(|_, (source, _)| *source != publication);
            }
            Command::Subscribe { subscription, publication, peer, media, .. } => {
                assert!(self.peers.contains(&peer), "{peer} is not there");
                let owner = self.publications.get(&publication);
                assert!(owner.is_some_and(|owner| *owner != peer), "{publication} is another's");
                assert!(!media.formats.is_empty());
                let news = self.subscriptions.insert(subscription, (publication, peer)).is_none();
                assert!(news, "{subscription} is subscribed while it is");
            }
            Command::Unsubscribe { subscription } => {
                self.subscriptions.remove(&subscription);
            }
        }
    }

    fn named(&self, at: u8) -> String {
        let count = self.names.len() + 1;
        self.names.get(usize::from(at) % count).cloned().unwrap_or_default()
    }

    /// Puts names in the place of single characters.
    fn name(&self, message: &mut Request) {
        let name = |text: &mut String| {
            if let [at] = text.as_bytes() {
                *text = self.named(*at);
            }
        };
        match message {
            Request::AddTrack(request) => name(&mut request.sid),
            Request::Mute(request) => name(&mut request.sid),
            Request::Subscription(request) => {
                request.track_sids.iter_mut().for_each(name);
                for tracks in &mut request.participant_tracks {
                    tracks.track_sids.iter_mut().for_each(name);
                }
            }
            Request::TrackSetting(settings) => settings.track_sids.iter_mut().for_each(name),
            Request::SubscriptionPermission(permission) => {
                for entry in &mut permission.track_permissions {
                    name(&mut entry.participant_sid);
                    entry.track_sids.iter_mut().for_each(name);
                }
            }
            Request::SyncState(state) => {
                for published in &mut state.publish_tracks {
                    if let Some(track) = &mut published.track {
                        name(&mut track.sid);
                    }
                }
                state.track_sids_disabled.iter_mut().for_each(name);
                if let Some(subscription) = &mut state.subscription {
                    subscription.track_sids.iter_mut().for_each(name);
                }
            }
            Request::UpdateAudioTrack(request) => name(&mut request.track_sid),
            Request::UpdateVideoTrack(request) => name(&mut request.track_sid),
            Request::UpdateDataSubscription(request) => {
                for update in &mut request.updates {
                    name(&mut update.track_sid);
                }
            }
            _ => {}
        }
    }
}

fn local() -> LocalParameters {
    LocalParameters {
        ice: IceCredentials { ufrag: "client".to_owned(), password: "password of 22 letters".to_owned() },
        fingerprint: [9; 32],
        candidates: Vec::new(),
        max_message_size: 65_535,
    }
}

fn parse(sdp: &str) {
    // Where all m-lines are rejected there is nothing to connect, and no description of how.
    if sdp.lines().any(|line| line.starts_with("m=") && line.split(' ').nth(1) != Some("0")) {
        let mut other = Negotiator::new(local(), 1);
        other.handle_offer(sdp).unwrap_or_else(|error| panic!("{error}\n{sdp}"));
    }
}

/// A description of sections that a byte each describes: two bits of kind, two of direction, two of details.
pub(crate) fn offer(input: &mut Input<'_>) -> String {
    let count = input.below(12);
    let ufrag = input.choose(&["here", "there"]);
    let setup = input.choose(&["actpass", "actpass", "active", "passive"]);
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-ufrag:{ufrag}\r\n\
         a=ice-pwd:password of 22 letters\r\na=setup:{setup}\r\na=fingerprint:sha-256 {}\r\n",
        ["0A"; 32].join(":")
    );
    for index in 0..count {
        section(&mut sdp, index, input.u8());
    }
    sdp
}

fn section(sdp: &mut String, index: usize, what: u8) {
    let port = if what & 0xc0 == 0xc0 { 0 } else { 9 };
    let direction = ["sendonly", "recvonly", "sendrecv", "inactive"][usize::from(what >> 2 & 3)];
    let details = what >> 4 & 3;
    let (line, codecs) = match (what & 3, details) {
        (0, _) => ("application", ""),
        (1, 0) => ("audio", "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10\r\n"),
        (1, _) => ("audio", "a=rtpmap:111 opus/48000/2\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n"),
        (2, 0) => ("video", "a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"),
        (2, 1) => (
            "video",
            "a=rtpmap:96 VP8/90000\r\na=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n",
        ),
        (2, 2) => ("video", "a=rtpmap:98 VP9/90000\r\na=rtpmap:35 AV1/90000\r\na=rtcp-fb:98 nack pli\r\n"),
        (2, _) => ("video", "a=rtpmap:108 H264/90000\r\na=fmtp:108 packetization-mode=1\r\n"),
        _ => ("text", "a=rtpmap:96 red/1000\r\n"),
    };
    let formats = match line {
        "application" => "UDP/DTLS/SCTP webrtc-datachannel",
        _ => "UDP/TLS/RTP/SAVPF 111 63 96 97 98 35 108",
    };
    let cid = index % 4;
    sdp.push_str(&format!(
        "m={line} {port} {formats}\r\nc=IN IP4 0.0.0.0\r\na=mid:{index}\r\na={direction}\r\n\
         a=msid:- cid{cid}\r\n{codecs}"
    ));
}
