//! Coming and going: joining, carrying on, leaving, being replaced, giving up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message as Response;
use weir_negotiation::{LocalParameters, Negotiator};
use weir_units::command::Command;
use weir_units::ids::PeerId;

use super::config::{PING_INTERVAL_SECONDS, PING_TIMEOUT_SECONDS};
use super::participant::{
    CutOnResume, PROTOCOL_LEAVE_ACTION, PROTOCOL_LEAVERS, Participant, ParticipantId, PeerConnection, Round,
};
use super::{Now, Output, Room, start_over};
use crate::ids::{ConnectionId, ice_credentials, shortened, sid};
use crate::join::{JoinError, JoinParameters};
use crate::supervision::{Bearer, LeaveReason, ParticipantEvent};
use crate::token::{self, Claims, Keys};

/// Media must be connected this long after the join, else the participant is let go.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
/// A fresh token goes out this often, so that a client can come back though its first has expired.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// A refreshed token is good for at least this long, in seconds.
const REFRESHED_VALIDITY: u64 = 600;
/// The longest refreshed token, in bytes, if it can be helped. Browsers show theirs in a URL, of which 65,534 bytes are read,
/// beside an offer of perhaps 10 KB.
const MAX_REFRESHED_BYTES: usize = 32 * 1024;
/// A client that is cut off for longer than this has lost its media as well, and starts over.
const LEAVERS_REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// Leavers remembered, whatever the coming and going.
const MAX_LEAVERS: usize = 1_024;
/// Capabilities of a client that others are told of; the protocol knows two.
const MAX_CAPABILITIES: usize = 32;
/// The longest a simulated speaker speaks.
const MAX_SIMULATED_SECONDS: i32 = 600;
/// The largest data channel message that is taken, in bytes: what clients keep below.
const MAX_MESSAGE_BYTES: u32 = 65_535;

impl Room {
    /// Somebody wants to join, or to carry on. What is then sent on `connection` begins with the answer to that.
    pub fn join(
        &mut self,
        now: Now,
        connection: ConnectionId,
        claims: Claims,
        parameters: JoinParameters,
    ) -> Result<(), JoinError> {
        if let Some(sid) = &parameters.resume {
            self.resume(now, connection, claims, sid);
            self.flush(now);
            return Ok(());
        }
        let limits = &self.config.limits;
        let replaced = self.by_identity.get(claims.identity()).copied();
        let others = self.participants.len() - usize::from(replaced.is_some());
        if limits.participants > 0 && others >= limits.participants {
            return Err(JoinError::RoomFull);
        }
        parameters.check(&claims, limits)?;
        let attributes = parameters.all_attributes(&claims);
        let metadata =
            if parameters.metadata.is_empty() { claims.metadata.clone() } else { parameters.metadata };
        if let Some(old) = replaced {
            self.dismiss(now, old, DisconnectReason::DuplicateIdentity, Action::Disconnect);
        }
        let mut client = parameters.client;
        client.capabilities.truncate(MAX_CAPABILITIES);
        let id = self.ids.next();
        let single = parameters.single_peer_connection;
        let publisher = self.peer_connection(proto::SignalTarget::Publisher);
        let subscriber = (!single).then(|| self.peer_connection(proto::SignalTarget::Subscriber));
        let participant = Participant {
            id,
            sid: sid("PA_", &mut self.rng),
            identity: claims.identity().to_owned(),
            name: claims.name.clone(),
            client,
            metadata,
            attributes,
            state: proto::participant_info::State::Joined,
            version: 1,
            joined_at_ms: now.unix_ms,
            connection: Some(connection),
            publisher,
            subscriber,
            auto_subscribe: parameters.auto_subscribe,
            adaptive_stream: parameters.adaptive_stream,
            auto_subscribe_data: parameters.auto_subscribe_data,
            pending: Vec::new(),
            tracks: Vec::new(),
            subscriptions: Default::default(),
            preferences: Default::default(),
            allowed: Default::default(),
            permission: proto::SubscriptionPermission { all_participants: true, ..Default::default() },
            data: Default::default(),
            data_tracks: Default::default(),
            quality: None,
            heard: Default::default(),
            speaks_until: None,
            cut_on_resume: None,
            changed: true,
            join_deadline: Some(now.at + JOIN_TIMEOUT),
            refresh_at: now.at + REFRESH_INTERVAL,
            bearer: Arc::new(Bearer::new(&claims)),
            claims,
        };
        tracing::info!(
            room = %self.info.name, participant = %participant.sid, identity = %shortened(&participant.identity),
            sdk = participant.client.sdk().as_str_name(), protocol = participant.client.protocol, single, "joined"
        );
        self.by_connection.insert(connection, id);
        self.by_identity.insert(participant.identity.clone(), id);
        self.by_peer.insert(participant.publisher.id, id);
        if let Some(subscriber) = &participant.subscriber {
            self.by_peer.insert(subscriber.id, id);
        }
        self.participants.insert(id, participant);
        self.was_entered = true;
        self.empty_since = None;
        self.counters.joined += 1;
        self.happened(id, ParticipantEvent::Joined);
        self.send_join_response(id);
        self.send_refresh_token(now, id);
        self.settle_subscriptions(now, id);
        self.subscribe_to_all_data(id);
        for request in parameters.add_tracks {
            self.add_track(now, id, request);
        }
        if single {
            if let Some(offer) = parameters.offer {
                self.handle_offer(now, id, &offer);
            }
        } else if self.is_subscriber_primary(id) {
            self.begin_round(now, id);
        }
        self.flush(now);
        Ok(())
    }

    fn peer_connection(&mut self, target: proto::SignalTarget) -> PeerConnection {
        let local = LocalParameters {
            ice: ice_credentials(self.media.ufrag_prefix, &mut self.rng),
            fingerprint: self.media.fingerprint,
            candidates: self.media.candidates.clone(),
            max_message_size: MAX_MESSAGE_BYTES,
        };
        PeerConnection {
            id: PeerId(self.ids.next()),
            target,
            negotiator: Negotiator::new(local, rand::Rng::random_range(&mut self.rng, 1..1 << 62)),
            added: false,
            connected_at: None,
            line: None,
            open_channels: Vec::new(),
            transport: None,
            offered: Vec::new(),
            ingress: Vec::new(),
            assigned: Default::default(),
            round: Round::default(),
        }
    }

    /// With two peer connections: whether the one we offer carries data and makes the session active.
    pub(super) fn is_subscriber_primary(&self, id: ParticipantId) -> bool {
        self.participants.get(&id).is_some_and(|participant| {
            participant.subscriber.is_some()
                && participant.client.protocol > 2
                && participant.claims.video.may_subscribe()
        })
    }

    fn send_join_response(&mut self, id: ParticipantId) {
        let visible = self.participants.values().filter(|other| other.id != id && !other.is_hidden());
        let others = visible.map(|other| self.participant_info(other)).collect();
        let participant = &self.participants[&id];
        let grant = &participant.claims.video;
        let dual = participant.subscriber.is_some();
        let info = self.config.server_info();
        let response = proto::JoinResponse {
            room: Some(self.room_info()),
            participant: Some(self.participant_info(participant)),
            other_participants: others,
            server_version: info.version.clone(),
            server_region: info.region.clone(),
            server_info: Some(info),
            ice_servers: self.config.ice_servers(),
            subscriber_primary: self.is_subscriber_primary(id),
            client_configuration: Some(proto::ClientConfiguration {
                resume_connection: proto::ClientConfigSetting::Enabled as i32,
                ..Default::default()
            }),
            ping_interval: PING_INTERVAL_SECONDS,
            ping_timeout: PING_TIMEOUT_SECONDS,
            enabled_publish_codecs: self.config.enabled_codecs(),
            // With one peer connection, native clients take it to mean "offer without waiting 150 ms for more to
            // offer", also when we ask for an offer: it is as good for who only watches.
            fast_publish: !dual || grant.may_publish(),
            ..Default::default()
        };
        self.send(id, Response::Join(response));
    }

    /// A token like the first, good for a while longer.
    pub(super) fn send_refresh_token(&mut self, now: Now, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.refresh_at = now.at + REFRESH_INTERVAL;
        let unix = (now.unix_ms / 1000).max(0) as u64;
        let original = participant.claims.exp.unwrap_or_default();
        let claims = Claims {
            iss: String::new(), // the first key signs
            name: participant.name.clone(),
            metadata: participant.metadata.clone(),
            attributes: participant
                .attributes
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            exp: Some(original.max(unix + REFRESHED_VALIDITY)),
            nbf: Some(unix),
            iat: Some(participant.bearer.issued_ms as f64 / 1000.0), // whoever voids the first voids this one
            ..participant.claims.clone()
        };
        if let Some(token) = sign_to_come_back(&self.config.keys, claims) {
            self.send(id, Response::RefreshToken(token));
        }
    }

    /// The client lost its WebSocket and is back. Media went on meanwhile, or is about to restart its ICE.
    fn resume(&mut self, now: Now, connection: ConnectionId, claims: Claims, sid: &str) {
        let known = self.by_identity.get(claims.identity()).copied();
        let id = known.filter(|id| sid.is_empty() || self.participants[id].sid == sid);
        let Some(id) = id else {
            self.out.push_back(Output::Send { connection, message: start_over() });
            self.out.push_back(Output::Close { connection });
            return;
        };
        self.drop_connection(id);
        let participant = &mut self.participants[&id];
        let cut = participant.cut_on_resume.take();
        if cut == Some(CutOnResume::BeforeMessages) {
            self.out.push_back(Output::Close { connection });
            self.happened(id, ParticipantEvent::CutOff);
            return;
        }
        participant.connection = Some(connection);
        self.by_connection.insert(connection, id);
        self.counters.resumed += 1;
        self.happened(id, ParticipantEvent::Resumed);
        let participant = &self.participants[&id];
        tracing::info!(room = %self.info.name, participant = %participant.sid, "resumed");
        let last_message_seq = participant.data.last_sequence;
        let reconnect = proto::ReconnectResponse {
            ice_servers: self.config.ice_servers(),
            client_configuration: None,
            server_info: Some(self.config.server_info()),
            last_message_seq,
        };
        self.send(id, Response::Reconnect(reconnect));
        self.tell_leavers(id);
        let everybody = self.participants.values().filter(|other| other.id == id || !other.is_hidden());
        let participants = everybody.map(|other| self.participant_info(other)).collect();
        self.send(id, Response::Update(proto::ParticipantUpdate { participants }));
        let room = self.room_info();
        self.send(id, Response::RoomUpdate(proto::RoomUpdate { room: Some(room) }));
        self.send_refresh_token(now, id);
        self.tell_again(now, id);
        // With two peer connections ours is the offer that restarts ICE; with one the client's.
        let participant = &mut self.participants[&id];
        let is_dual = participant.subscriber.is_some();
        let connection = participant.downstream_mut();
        connection.negotiator.abandon_round();
        connection.round.begun = None;
        if is_dual {
            connection.negotiator.restart_ice(ice_credentials(self.media.ufrag_prefix, &mut self.rng));
            self.begin_round(now, id);
        } else {
            self.schedule_round(now, id);
        }
        if cut.is_some() {
            self.drop_connection(id);
            self.happened(id, ParticipantEvent::CutOff);
        }
    }

    /// Of those who left it may have heard nothing. Who is here again is in the list of all.
    fn tell_leavers(&mut self, id: ParticipantId) {
        let gone = self.remembered.iter().map(|(_, info)| info);
        let participants: Vec<_> =
            gone.filter(|info| !self.by_identity.contains_key(&info.identity)).cloned().collect();
        if !participants.is_empty() && self.participants[&id].client.protocol >= PROTOCOL_LEAVERS {
            self.send(id, Response::Update(proto::ParticipantUpdate { participants }));
        }
    }

    /// News that no snapshot holds, and that may have been lost with the connection.
    fn tell_again(&mut self, now: Now, id: ParticipantId) {
        self.repeat_layers(now, id);
        self.repeat_stream_states(id);
        self.repeat_permissions(id);
        self.tell_known_qualities(id);
        for level in self.participants[&id].heard.values_mut() {
            *level = f32::NAN; // unlike any level, so it is told
        }
        self.tell_who_speaks();
    }

    /// What the client believes after coming back. If it thinks something published that is not, it must start over.
    pub(super) fn sync_state(&mut self, now: Now, id: ParticipantId, state: &proto::SyncState) {
        let participant = &self.participants[&id];
        let known = |published: &proto::TrackPublishedResponse| {
            published.track.as_ref().is_some_and(|track| {
                participant.tracks.contains(&track.sid)
                    || participant.pending.iter().any(|pending| pending.info.sid == track.sid)
            })
        };
        let known_data = |published: &proto::PublishDataTrackResponse| {
            published.info.as_ref().is_some_and(|info| participant.data_tracks.has_published(&info.sid))
        };
        if !state.publish_tracks.iter().all(known) || !state.publish_data_tracks.iter().all(known_data) {
            self.dismiss(now, id, DisconnectReason::StateMismatch, Action::Reconnect);
            return;
        }
        self.disable_tracks(now, id, &state.track_sids_disabled);
        if let Some(subscription) = &state.subscription {
            self.update_subscription(now, id, subscription);
        }
        if let Some(subscription) = &state.data_subscription {
            self.update_data_subscription(id, subscription);
        }
        self.replay_data(id, &state.datachannel_receive_states);
    }

    /// The client hung up without a word. Its media may still be well: it has until the media is lost to come back.
    pub fn handle_close(&mut self, now: Now, connection: ConnectionId) {
        let Some(id) = self.by_connection.remove(&connection) else { return };
        let participant = &mut self.participants[&id];
        participant.connection = None;
        // The answer to a round under way may never come; that is no fault of the client's.
        participant.downstream_mut().round.begun = None;
        if participant.is_active() {
            self.happened(id, ParticipantEvent::CutOff);
        } else {
            self.remove(now, id, DisconnectReason::SignalClose);
        }
        self.flush(now);
    }

    pub(super) fn handle_leave(&mut self, now: Now, id: ParticipantId) {
        self.counters.left += 1;
        self.drop_connection(id);
        self.remove(now, id, DisconnectReason::ClientInitiated);
    }

    /// The media is gone: nothing came for long, or DTLS failed. A client that still hears us starts over.
    pub(super) fn handle_lost_peer(&mut self, now: Now, id: ParticipantId) {
        self.counters.lost += 1;
        let reason = match self.participants[&id].is_active() {
            true => DisconnectReason::ConnectionTimeout,
            false => DisconnectReason::JoinFailure,
        };
        self.dismiss(now, id, reason, Action::Reconnect);
    }

    pub(super) fn handle_participant_timeout(&mut self, now: Now, id: ParticipantId) {
        let participant = &self.participants[&id];
        if participant.join_deadline.is_some_and(|at| at <= now.at) {
            self.dismiss(now, id, DisconnectReason::JoinFailure, Action::Disconnect);
            return;
        }
        if participant.speaks_until.is_some_and(|at| at <= now.at) {
            self.participants[&id].speaks_until = None;
            self.tell_who_speaks();
        }
        let participant = &self.participants[&id];
        if participant.connection.is_some() && participant.refresh_at <= now.at {
            self.send_refresh_token(now, id);
        }
        self.handle_round_timeout(now, id);
    }

    /// Tells a participant to go, and why, and lets it go.
    pub(super) fn dismiss(&mut self, now: Now, id: ParticipantId, reason: DisconnectReason, action: Action) {
        let Some(participant) = self.participants.get(&id) else { return };
        let mut request = leave(reason, action);
        if participant.client.protocol < PROTOCOL_LEAVE_ACTION {
            request.action = 0;
        }
        self.send(id, Response::Leave(request));
        self.drop_connection(id);
        self.remove(now, id, reason);
    }

    fn drop_connection(&mut self, id: ParticipantId) {
        if let Some(connection) = self.participants[&id].connection.take() {
            self.by_connection.remove(&connection);
            self.out.push_back(Output::Close { connection });
        }
    }

    /// Takes a participant out of everything, and remembers to tell the others.
    fn remove(&mut self, now: Now, id: ParticipantId, reason: DisconnectReason) {
        for track in self.participants[&id].tracks.clone() {
            self.unpublish(now, &track);
        }
        let Some(mut gone) = self.participants.shift_remove(&id) else { return };
        tracing::info!(
            room = %self.info.name, participant = %gone.sid, reason = reason.as_str_name(), "left"
        );
        let event = ParticipantEvent::Left(LeaveReason::from_protocol(reason));
        self.out.push_back(Output::Happened { bearer: Arc::clone(&gone.bearer), event });
        self.by_identity.remove(&gone.identity);
        for subscription in gone.subscriptions.values() {
            self.by_subscription.remove(&subscription.id);
        }
        for connection in gone.peer_connections() {
            self.by_peer.remove(&connection.id);
            let peer = connection.id;
            if connection.added {
                self.out.push_back(Output::Command(Command::RemovePeer { peer }));
            }
        }
        if !gone.is_hidden() {
            gone.version += 1;
            gone.state = proto::participant_info::State::Disconnected;
            let mut info = gone.info(Vec::new());
            info.data_tracks.clear();
            info.disconnect_reason = reason as i32;
            let news = proto::ParticipantInfo {
                metadata: String::new(),
                attributes: Default::default(),
                ..info.clone()
            };
            self.remembered.push_back((now.at, news));
            let is_old = |at: Instant| at + LEAVERS_REMEMBERED_FOR < now.at;
            while self.remembered.len() > MAX_LEAVERS
                || self.remembered.front().is_some_and(|(at, _)| is_old(*at))
            {
                self.remembered.pop_front();
            }
            self.departed.push(info);
        }
        self.forget_data_of(id, &gone.data_tracks);
        if self.participants.is_empty() {
            self.empty_since = Some(now.at);
        }
    }

    /// Test scenarios that client suites ask for by name. Those that need nothing of us are ignored.
    pub(super) fn simulate(&mut self, now: Now, id: ParticipantId, request: proto::SimulateScenario) {
        use proto::simulate_scenario::Scenario;
        match request.scenario {
            Some(Scenario::ServerLeave(_)) => {
                self.dismiss(now, id, DisconnectReason::ServerShutdown, Action::Disconnect);
            }
            Some(Scenario::LeaveRequestFullReconnect(_) | Scenario::NodeFailure(_)) => {
                self.dismiss(now, id, DisconnectReason::StateMismatch, Action::Reconnect);
            }
            Some(Scenario::Migration(_)) => {
                let leave = leave(DisconnectReason::Migration, Action::Resume);
                self.send(id, Response::Leave(leave));
                self.drop_connection(id);
                self.happened(id, ParticipantEvent::CutOff);
            }
            Some(Scenario::SpeakerUpdate(seconds)) => {
                let seconds = seconds.clamp(0, MAX_SIMULATED_SECONDS) as u64;
                self.participants[&id].speaks_until = Some(now.at + Duration::from_secs(seconds));
                self.tell_who_speaks();
            }
            Some(Scenario::DisconnectSignalOnResume(_)) => {
                self.participants[&id].cut_on_resume = Some(CutOnResume::AfterMessages);
            }
            Some(Scenario::DisconnectSignalOnResumeNoMessages(_)) => {
                self.participants[&id].cut_on_resume = Some(CutOnResume::BeforeMessages);
            }
            Some(Scenario::SwitchCandidateProtocol(_) | Scenario::SubscriberBandwidth(_)) | None => {}
        }
    }
}

/// Leaves out what would make a token too long to come back with. Carrying on reads neither; who starts over has less to
/// show, but is let in.
fn sign_to_come_back(keys: &Keys, mut claims: Claims) -> Option<String> {
    let mut token = token::sign(keys, &claims)?;
    if token.len() > MAX_REFRESHED_BYTES {
        claims.metadata.clear();
        token = token::sign(keys, &claims)?;
    }
    if token.len() > MAX_REFRESHED_BYTES {
        claims.attributes.clear();
        token = token::sign(keys, &claims)?;
    }
    Some(token)
}

pub(super) fn leave(reason: DisconnectReason, action: Action) -> proto::LeaveRequest {
    proto::LeaveRequest {
        can_reconnect: action != Action::Disconnect,
        reason: reason as i32,
        action: action as i32,
        regions: None,
    }
}
