//! One participant, and its peer connections.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use indexmap::IndexMap;
use livekit_protocol as proto;
use weir_negotiation::{Negotiator, OfferedMedia};
use weir_units::event::LineQuality;
use weir_units::ids::{PeerId, PublicationId, SubscriptionId};
use weir_units::media::{IceCredentials, IngressMedia, Mid, RemoteTransport};

use super::data::DataState;
use super::data_tracks::DataTracks;
use super::publish::PendingTrack;
use super::settings::TrackPreference;
use crate::ids::ConnectionId;
use crate::supervision::Bearer;
use crate::token::Claims;

pub(crate) type ParticipantId = u64;

/// From this version on a client that comes back takes news of those who left meanwhile.
pub(crate) const PROTOCOL_LEAVERS: i32 = 9;
/// From this version on a client knows `RequestResponse`.
pub(crate) const PROTOCOL_RESPONSES: i32 = 10;
/// From this version on it takes one that is no refusal.
pub(crate) const PROTOCOL_APPROVALS: i32 = 15;
/// From this version on a client knows `leave.action`.
pub(crate) const PROTOCOL_LEAVE_ACTION: i32 = 13;
/// From this version on a client on one peer connection has its data channels without opening them, if we say to speak it.
pub(crate) const PROTOCOL_AGREED_CHANNELS: i32 = 18;

pub(crate) struct Participant {
    pub id: ParticipantId,
    pub sid: String,
    pub identity: String,
    pub claims: Claims,
    /// What the claims say of who this is.
    pub bearer: Arc<Bearer>,
    pub client: proto::ClientInfo,
    pub name: String,
    pub metadata: String,
    pub attributes: HashMap<String, String>,
    pub state: proto::participant_info::State,
    pub version: u32,
    pub joined_at_ms: i64,
    /// Absent while the client is cut off from signalling.
    pub connection: Option<ConnectionId>,
    /// What the client offers: with one peer connection, both directions.
    pub publisher: PeerConnection,
    /// What we offer, with two.
    pub subscriber: Option<PeerConnection>,
    pub auto_subscribe: bool,
    pub adaptive_stream: bool,
    /// Gets every data track without asking.
    pub auto_subscribe_data: bool,
    pub pending: Vec<PendingTrack>,
    /// Sids of what is published.
    pub tracks: Vec<String>,
    /// By track sid.
    pub subscriptions: IndexMap<String, Subscription>,
    /// By track sid; may precede the track. Bounded where it grows.
    pub preferences: HashMap<String, TrackPreference>,
    /// Whether their publishers let it have these tracks (by sid), as it was told. Of others it believes that they do.
    pub allowed: BTreeMap<String, bool>,
    /// Who may subscribe to this participant's tracks.
    pub permission: proto::SubscriptionPermission,
    pub data: DataState,
    pub data_tracks: DataTracks,
    /// The last told quality of this participant's line.
    pub quality: Option<proto::ConnectionQualityInfo>,
    /// Who is speaking, as this client was last told: level by participant sid.
    pub heard: IndexMap<String, f32>,
    /// Until when it is said to speak, for a client suite that asked for it.
    pub speaks_until: Option<Instant>,
    /// What the next resume is to meet with, for such a suite.
    pub cut_on_resume: Option<CutOnResume>,
    /// Others are to be told.
    pub changed: bool,
    /// Until when the media must be connected.
    pub join_deadline: Option<Instant>,
    pub refresh_at: Instant,
}

/// A cut that a client suite asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutOnResume {
    BeforeMessages,
    AfterMessages,
}

/// One peer connection's signalling.
pub(crate) struct PeerConnection {
    pub id: PeerId,
    pub target: proto::SignalTarget,
    pub negotiator: Negotiator,
    /// The shard knows it.
    pub added: bool,
    pub connected_at: Option<Instant>,
    /// As the shard last told.
    pub line: Option<LineQuality>,
    pub open_channels: Vec<String>,
    /// As the shard was told.
    pub transport: Option<(IceCredentials, RemoteTransport)>,
    /// Of the client's last offer.
    pub offered: Vec<OfferedMedia>,
    /// Agreed in the last round.
    pub ingress: Vec<IngressMedia>,
    /// Which track (sid) comes on which m-line.
    pub assigned: IndexMap<Mid, String>,
    pub round: Round,
}

/// A round of negotiation that we begin: our offer, or with one peer connection our request for the client's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// When to begin the next.
    pub due: Option<Instant>,
    /// Since when the present one is unanswered.
    pub begun: Option<Instant>,
    /// When the last began.
    pub last: Option<Instant>,
    /// Rounds that brought nothing, one after the other.
    pub attempts: u8,
    /// Of our last offer; echoed by the answer.
    pub offer_id: u32,
}

/// A participant's wish for a track, and how far it has come.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub id: SubscriptionId,
    pub publication: PublicationId,
    /// It has an m-line, and the shard knows it.
    pub live: bool,
    /// Since when it could be sent, as far as the subscriber goes; absent before it is live.
    pub asked_at: Option<Instant>,
    /// The allocation paused it for want of bandwidth, or resumed it; absent until it did.
    pub paused: Option<bool>,
}

impl Participant {
    /// The connection on which this participant receives.
    pub fn downstream(&self) -> &PeerConnection {
        self.subscriber.as_ref().unwrap_or(&self.publisher)
    }

    pub fn downstream_mut(&mut self) -> &mut PeerConnection {
        self.subscriber.as_mut().unwrap_or(&mut self.publisher)
    }

    pub fn peer_connections(&mut self) -> impl Iterator<Item = &mut PeerConnection> {
        [Some(&mut self.publisher), self.subscriber.as_mut()].into_iter().flatten()
    }

    pub fn peer_connection(&mut self, id: PeerId) -> Option<&mut PeerConnection> {
        self.peer_connections().find(|connection| connection.id == id)
    }

    pub fn is_active(&self) -> bool {
        self.state == proto::participant_info::State::Active
    }

    pub fn is_hidden(&self) -> bool {
        self.claims.video.hidden
    }

    /// When something of this participant's is next due.
    pub fn next_deadline(&self) -> Option<Instant> {
        // What is to be said waits until there is somebody to hear it.
        let told = self.connection.map(|_| [Some(self.refresh_at), self.downstream().round.next()]);
        told.into_iter().flatten().flatten().chain(self.join_deadline).chain(self.speaks_until).min()
    }

    /// As others see it. `tracks` come from the room.
    pub fn info(&self, tracks: Vec<proto::TrackInfo>) -> proto::ParticipantInfo {
        proto::ParticipantInfo {
            sid: self.sid.clone(),
            identity: self.identity.clone(),
            state: self.state as i32,
            is_publisher: !tracks.is_empty(),
            tracks,
            metadata: self.metadata.clone(),
            joined_at: self.joined_at_ms / 1000,
            joined_at_ms: self.joined_at_ms,
            name: self.name.clone(),
            version: self.version,
            permission: Some(self.permission()),
            kind: kind(&self.claims.kind) as i32,
            attributes: self.attributes.clone(),
            data_tracks: self.data_tracks.published(),
            client_protocol: self.client.client_protocol,
            capabilities: self.client.capabilities.clone(),
            ..Default::default()
        }
    }

    fn permission(&self) -> proto::ParticipantPermission {
        let grant = &self.claims.video;
        let sources = [
            (proto::TrackSource::Camera, "camera"),
            (proto::TrackSource::Microphone, "microphone"),
            (proto::TrackSource::ScreenShare, "screen_share"),
            (proto::TrackSource::ScreenShareAudio, "screen_share_audio"),
        ];
        let listed =
            |name: &str| grant.can_publish_sources.iter().any(|source| source.eq_ignore_ascii_case(name));
        proto::ParticipantPermission {
            can_subscribe: grant.may_subscribe(),
            can_publish: grant.may_publish() || !grant.can_publish_sources.is_empty(),
            can_publish_data: grant.may_publish_data(),
            can_publish_sources: sources
                .into_iter()
                .filter(|(_, name)| listed(name))
                .map(|(source, _)| source as i32)
                .collect(),
            hidden: grant.hidden,
            recorder: grant.recorder,
            can_update_metadata: grant.may_update_own_metadata(),
            agent: grant.agent,
            ..Default::default()
        }
    }

    pub fn may_publish(&self, source: proto::TrackSource) -> bool {
        let name = match source {
            proto::TrackSource::Camera => "camera",
            proto::TrackSource::Microphone => "microphone",
            proto::TrackSource::ScreenShare => "screen_share",
            proto::TrackSource::ScreenShareAudio => "screen_share_audio",
            proto::TrackSource::Unknown => "unknown",
        };
        self.claims.video.may_publish_source(name)
    }
}

fn kind(claim: &str) -> proto::participant_info::Kind {
    let kind = proto::participant_info::Kind::from_str_name(&claim.to_ascii_uppercase());
    kind.unwrap_or(proto::participant_info::Kind::Standard)
}
