//! What an operator chose for all rooms.

use std::time::Duration;

use livekit_protocol as proto;

use crate::token::Keys;

/// The protocol whose messages and semantics are spoken.
pub(crate) const PROTOCOL_VERSION: i32 = 18;
/// Clients judge by a server version what they may use; this is the release whose client-facing behaviour is meant.
const COMPATIBLE_VERSION: &str = "1.9.11";
pub(crate) const PING_INTERVAL_SECONDS: i32 = 5;
pub(crate) const PING_TIMEOUT_SECONDS: i32 = 15;

/// A STUN or TURN server that clients are told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceServer {
    pub urls: Vec<String>,
    pub username: String,
    pub credential: String,
}

/// Bounds of what clients may have and say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Participants of a room; 0 is unlimited.
    pub participants: usize,
    /// Tracks of one participant, waiting ones included.
    pub tracks: usize,
    /// Characters of a participant's name.
    pub name: usize,
    /// Characters of an identity or of a room's name.
    pub identity: usize,
    /// Bytes of metadata.
    pub metadata: usize,
    /// Bytes of all attributes together.
    pub attributes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            participants: 0,
            tracks: 64,
            name: 256,
            identity: 256,
            metadata: 512 * 1024,
            attributes: 64 * 1024,
        }
    }
}

/// See the module's description.
#[derive(Clone, Debug)]
pub struct RoomConfig {
    /// The first key signs refreshed tokens.
    pub keys: Keys,
    pub limits: Limits,
    pub ice_servers: Vec<IceServer>,
    /// Until a room that nobody entered goes.
    pub empty_timeout: Duration,
    /// Until a room that everybody left goes.
    pub departure_timeout: Duration,
    /// Shown to clients; empty is fine.
    pub region: String,
    /// Names this focus among several.
    pub node_id: String,
}

impl Default for RoomConfig {
    fn default() -> Self {
        Self {
            keys: Keys::default(),
            limits: Limits::default(),
            ice_servers: Vec::new(),
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            region: String::new(),
            node_id: "weir".to_owned(),
        }
    }
}

impl RoomConfig {
    /// What may be published, the preferred first.
    pub(crate) fn enabled_codecs(&self) -> Vec<proto::Codec> {
        ["video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus", "audio/red"]
            .map(|mime| proto::Codec { mime: mime.to_owned(), fmtp_line: String::new() })
            .to_vec()
    }

    pub(crate) fn server_info(&self) -> proto::ServerInfo {
        proto::ServerInfo {
            edition: proto::server_info::Edition::Standard as i32,
            version: COMPATIBLE_VERSION.to_owned(),
            protocol: PROTOCOL_VERSION,
            region: self.region.clone(),
            node_id: self.node_id.clone(),
            ..Default::default()
        }
    }

    pub(crate) fn ice_servers(&self) -> Vec<proto::IceServer> {
        let server = |server: &IceServer| proto::IceServer {
            urls: server.urls.clone(),
            username: server.username.clone(),
            credential: server.credential.clone(),
        };
        self.ice_servers.iter().map(server).collect()
    }
}
