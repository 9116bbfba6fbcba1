//! A room: its participants, what they publish and subscribe to, and what each is told. Sans-IO.
//!
//! Feed it ([`Room::join`], [`Room::handle_message`], [`Room::handle_close`], [`Room::handle_event`],
//! [`Room::handle_timeout`]) and drain [`Room::poll_output`] after each.
//!
//! Invariants: whoever is told of a track in SDP has been told of its participant before; a participant's snapshots
//! carry growing versions; each peer connection has at most one round of negotiation under way.

mod config;
mod data;
mod data_packet;
mod data_tracks;
mod dynacast;
mod events;
mod negotiate;
mod participant;
mod presence;
mod publish;
mod session;
mod settings;
mod subscribe;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use indexmap::IndexMap;
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;
use weir_negotiation::Candidate;
use weir_units::command::Command;
use weir_units::ids::{ConferenceId, PeerId, PublicationId, SubscriptionId};
use weir_units::media::MediaKind;

use crate::ids::{ConnectionId, IdSource, sid};
use crate::supervision::{Bearer, EvictionReason, ParticipantEvent};
use participant::{PROTOCOL_APPROVALS, PROTOCOL_RESPONSES, Participant, ParticipantId};
use publish::Track;

pub use crate::join::JoinError;
pub use config::{IceServer, Limits, RoomConfig};

/// The time, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub at: Instant,
    /// Milliseconds since 1970, as clients are told.
    pub unix_ms: i64,
}

/// What a room wants done.
#[derive(Debug)]
pub enum Output {
    /// An encoded `SignalResponse`.
    Send {
        connection: ConnectionId,
        message: Bytes,
    },
    /// Nothing more is sent on the connection.
    Close {
        connection: ConnectionId,
    },
    Command(Command),
    /// For those who watch over participants.
    Happened {
        bearer: Arc<Bearer>,
        event: ParticipantEvent,
    },
    /// A subscriber was sent a track's first packet, so long after all was there for it.
    FirstPacket {
        kind: MediaKind,
        after: Duration,
    },
}

/// How peers of this room are reached.
#[derive(Clone, Debug)]
pub struct LocalMedia {
    pub ufrag_prefix: char,
    pub fingerprint: [u8; 32],
    pub candidates: Vec<Candidate>,
}

/// What a room counts; the server adds them up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomCounters {
    pub joined: u64,
    pub connected: u64,
    pub resumed: u64,
    pub left: u64,
    pub lost: u64,
    pub evicted: u64,
    pub data_forwarded: u64,
    pub data_dropped: u64,
    pub refused_requests: u64,
    pub failed_negotiations: u64,
}

/// See the module's description.
pub struct Room {
    config: Arc<RoomConfig>,
    media: LocalMedia,
    ids: Arc<IdSource>,
    conference: ConferenceId,
    info: proto::Room,
    rng: StdRng,
    /// SSRCs are dealt from here, two a subscription.
    next_ssrc: u32,
    participants: IndexMap<ParticipantId, Participant>,
    by_identity: HashMap<String, ParticipantId>,
    by_connection: HashMap<ConnectionId, ParticipantId>,
    by_peer: HashMap<PeerId, ParticipantId>,
    tracks: IndexMap<String, Track>,
    by_publication: HashMap<PublicationId, String>,
    by_subscription: HashMap<SubscriptionId, (ParticipantId, String)>,
    /// Participants who left and whose leaving is not told yet.
    departed: Vec<proto::ParticipantInfo>,
    /// Those whose leaving was told, with the time, for clients that were cut off then. Bounded where it grows.
    remembered: VecDeque<(Instant, proto::ParticipantInfo)>,
    /// For clients that come back.
    said: data::RecentlySaid,
    /// Who speaks, as the plane last said.
    speakers: Vec<(PublicationId, f32)>,
    /// Participants and publishers, of those who are not hidden.
    counts: (u32, u32),
    /// When everybody is next told of the room.
    room_told_at: Option<Instant>,
    /// Since when nobody is here, and whether somebody ever was.
    empty_since: Option<Instant>,
    was_entered: bool,
    out: VecDeque<Output>,
    pub counters: RoomCounters,
}

impl Room {
    /// `seed` feeds every name and credential the room makes: it must be unpredictable.
    pub fn new(
        config: Arc<RoomConfig>,
        name: &str,
        conference: ConferenceId,
        media: LocalMedia,
        ids: Arc<IdSource>,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let info = proto::Room {
            sid: sid("RM_", &mut rng),
            name: name.to_owned(),
            empty_timeout: config.empty_timeout.as_secs() as u32,
            departure_timeout: config.departure_timeout.as_secs() as u32,
            max_participants: config.limits.participants as u32,
            creation_time: now.unix_ms / 1000,
            creation_time_ms: now.unix_ms,
            enabled_codecs: config.enabled_codecs(),
            ..Default::default()
        };
        Self {
            config,
            media,
            ids,
            conference,
            info,
            next_ssrc: rand::Rng::random_range(&mut rng, 1 << 16..1 << 30),
            rng,
            participants: IndexMap::new(),
            by_identity: HashMap::new(),
            by_connection: HashMap::new(),
            by_peer: HashMap::new(),
            tracks: IndexMap::new(),
            by_publication: HashMap::new(),
            by_subscription: HashMap::new(),
            departed: Vec::new(),
            remembered: VecDeque::new(),
            said: Default::default(),
            speakers: Vec::new(),
            counts: (0, 0),
            room_told_at: None,
            empty_since: Some(now.at),
            was_entered: false,
            out: VecDeque::new(),
            counters: RoomCounters::default(),
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub fn participants(&self) -> usize {
        self.participants.len()
    }

    pub fn tracks(&self) -> usize {
        self.tracks.len()
    }

    /// Whether nobody has been here for so long that the room may go.
    pub fn is_over(&self, now: Instant) -> bool {
        self.ends_at().is_some_and(|at| at <= now)
    }

    fn ends_at(&self) -> Option<Instant> {
        let timeout =
            if self.was_entered { self.config.departure_timeout } else { self.config.empty_timeout };
        Some(self.empty_since? + timeout)
    }

    /// A client's message. From a connection that the room does not know it is ignored: it may have been replaced.
    pub fn handle_message(&mut self, now: Now, connection: ConnectionId, message: Request) {
        let Some(&id) = self.by_connection.get(&connection) else { return };
        match message {
            Request::Offer(offer) => self.handle_offer(now, id, &offer),
            Request::Answer(answer) => self.handle_answer(now, id, &answer),
            // We are ICE-lite: checks tell us where a client is.
            Request::Trickle(_) | Request::UpdateLayers(_) => {}
            Request::AddTrack(request) => self.add_track(now, id, request),
            Request::Mute(request) => self.mute(now, id, &request.sid, request.muted),
            Request::Subscription(request) => self.update_subscription(now, id, &request),
            Request::TrackSetting(settings) => self.update_track_settings(now, id, settings),
            Request::Leave(_) => self.handle_leave(now, id),
            Request::SubscriptionPermission(permission) => {
                self.set_subscription_permission(now, id, permission)
            }
            Request::SyncState(state) => self.sync_state(now, id, &state),
            Request::Simulate(request) => self.simulate(now, id, request),
            Request::Ping(_) => self.send(id, Response::Pong(now.unix_ms)),
            Request::PingReq(ping) => {
                let pong = proto::Pong { last_ping_timestamp: ping.timestamp, timestamp: now.unix_ms };
                self.send(id, Response::PongResp(pong));
            }
            Request::UpdateMetadata(request) => self.update_metadata(now, id, request),
            Request::UpdateAudioTrack(request) => self.update_audio_track(id, request),
            Request::UpdateVideoTrack(request) => self.update_video_track(id, request),
            Request::PublishDataTrackRequest(request) => self.publish_data_track(id, request),
            Request::UnpublishDataTrackRequest(request) => self.unpublish_data_track(id, request),
            Request::UpdateDataSubscription(request) => self.update_data_subscription(id, &request),
            Request::StoreDataBlobRequest(_) | Request::GetDataBlobRequest(_) => {
                self.refuse(
                    id,
                    proto::request_response::Reason::UnsupportedType,
                    "data blobs are not kept here",
                    None,
                );
            }
        }
        self.flush(now);
    }

    /// When [`Self::handle_timeout`] is next wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let participants = self.participants.values().filter_map(Participant::next_deadline);
        let tracks = self.tracks.values().filter_map(Track::layers_due);
        participants.chain(tracks).chain(self.room_told_at).chain(self.ends_at()).min()
    }

    pub fn handle_timeout(&mut self, now: Now) {
        for id in self.participants.keys().copied().collect::<Vec<_>>() {
            self.handle_participant_timeout(now, id);
        }
        self.tell_layers_due(now);
        self.tell_room_due(now);
        self.flush(now);
    }

    /// Ends every session: the focus is going down.
    pub fn shut_down(&mut self, now: Now) {
        self.dismiss_all(now, proto::DisconnectReason::ServerShutdown);
    }

    /// Ends every session: there is no such room any more.
    pub fn delete(&mut self, now: Now) {
        self.counters.evicted += self.participants.len() as u64;
        self.dismiss_all(now, proto::DisconnectReason::RoomDeleted);
    }

    fn dismiss_all(&mut self, now: Now, reason: proto::DisconnectReason) {
        for id in self.participants.keys().copied().collect::<Vec<_>>() {
            self.dismiss(now, id, reason, proto::leave_request::Action::Disconnect);
        }
        self.flush(now);
    }

    /// Who is here under this identity.
    pub fn bearer(&self, identity: &str) -> Option<&Bearer> {
        let id = self.by_identity.get(identity)?;
        self.participants.get(id).map(|participant| &*participant.bearer)
    }

    /// Sends somebody away, and says whether it was here. Media stop, and the client does not come back by itself.
    pub fn evict(&mut self, now: Now, identity: &str, reason: EvictionReason) -> bool {
        let Some(&id) = self.by_identity.get(identity) else { return false };
        self.counters.evicted += 1;
        self.dismiss(now, id, reason.to_protocol(), proto::leave_request::Action::Disconnect);
        self.flush(now);
        true
    }

    fn send(&mut self, to: ParticipantId, message: Response) {
        let Some(connection) = self.participants.get(&to).and_then(|participant| participant.connection)
        else {
            return;
        };
        let message = encode(message);
        self.out.push_back(Output::Send { connection, message });
    }

    fn happened(&mut self, id: ParticipantId, event: ParticipantEvent) {
        if let Some(participant) = self.participants.get(&id) {
            let bearer = Arc::clone(&participant.bearer);
            self.out.push_back(Output::Happened { bearer, event });
        }
    }

    fn command(&mut self, command: Command) {
        self.out.push_back(Output::Command(command));
    }

    /// Tells a client that a request of its own came to nothing. Old clients do not know the message.
    fn refuse(
        &mut self,
        to: ParticipantId,
        reason: proto::request_response::Reason,
        message: &str,
        request: Option<proto::request_response::Request>,
    ) {
        self.counters.refused_requests += 1;
        self.respond(to, 0, reason, message, request);
    }

    fn respond(
        &mut self,
        to: ParticipantId,
        request_id: u32,
        reason: proto::request_response::Reason,
        message: &str,
        request: Option<proto::request_response::Request>,
    ) {
        let needed = match reason {
            proto::request_response::Reason::Ok => PROTOCOL_APPROVALS,
            _ => PROTOCOL_RESPONSES,
        };
        if self.participants.get(&to).is_none_or(|participant| participant.client.protocol < needed) {
            return;
        }
        let response = proto::RequestResponse {
            request_id,
            reason: reason as i32,
            message: message.to_owned(),
            request,
        };
        self.send(to, Response::RequestResponse(response));
    }

    /// What is left to say at the end of every input.
    fn flush(&mut self, now: Now) {
        self.flush_presence();
        self.note_counts(now);
    }
}

/// What a client hears that wants to carry on a session that nobody here knows.
pub(crate) fn start_over() -> Bytes {
    encode(Response::Leave(session::leave(
        proto::DisconnectReason::StateMismatch,
        proto::leave_request::Action::Reconnect,
    )))
}

fn encode(message: Response) -> Bytes {
    proto::SignalResponse { message: Some(message) }.encode_to_vec().into()
}
