//! The keys and their defaults. What each means stands in `default.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub http: Http,
    pub media: Media,
    pub keys: BTreeMap<String, String>,
    pub key_file: Option<PathBuf>,
    pub matrix: Matrix,
    pub room: Room,
    pub limits: Limits,
    pub ice_servers: Vec<IceServer>,
    pub node: Node,
    pub log: Log,
    pub admin: Admin,
    pub shutdown: Shutdown,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("http", &self.http)
            .field("media", &self.media)
            .field("keys", &self.keys.keys()) // secrets stay secret
            .field("matrix", &self.matrix)
            .field("room", &self.room)
            .field("limits", &self.limits)
            .field("node", &self.node)
            .field("log", &self.log)
            .field("admin", &self.admin)
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    pub bind: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self { bind: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 7880) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    pub bind: Vec<IpAddr>,
    pub announce: Vec<IpAddr>,
    pub udp_port: u16,
    pub tcp_port: u16,
    pub shards: u8,
    pub receive_buffer_bytes: usize,
    pub send_buffer_bytes: usize,
    pub rate_control: bool,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            bind: Vec::new(),
            announce: Vec::new(),
            udp_port: 7882,
            tcp_port: 7881,
            shards: 0,
            receive_buffer_bytes: 4 * 1024 * 1024,
            send_buffer_bytes: 4 * 1024 * 1024,
            rate_control: true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matrix {
    pub server_name: String,
    pub url: String,
    pub prefix: String,
    pub homeserver_url: Option<String>,
    pub creators: Vec<String>,
    pub publishers: Vec<String>,
    pub membership: Membership,
    pub token_seconds: u32,
    pub state_directory: PathBuf,
    pub appservice: Appservice,
    pub user: User,
    pub openid: OpenId,
    pub leaves: Leaves,
}

impl Matrix {
    /// Whether people come from Matrix at all.
    pub fn is_on(&self) -> bool {
        !self.server_name.is_empty()
    }

    /// As what the focus sees rooms.
    pub fn sees_rooms_as(&self) -> &'static str {
        match (&self.appservice.registration, self.user.is_on()) {
            (Some(_), _) => "appservice",
            (None, true) => "user",
            (None, false) => "nothing",
        }
    }
}

impl Default for Matrix {
    fn default() -> Self {
        Self {
            server_name: String::new(),
            url: String::new(),
            prefix: "/livekit/jwt".to_owned(),
            homeserver_url: None,
            creators: Vec::new(),
            publishers: Vec::new(),
            membership: Membership::WhenVisible,
            token_seconds: 3_600,
            state_directory: "/var/lib/weir".into(),
            appservice: Appservice::default(),
            user: User::default(),
            openid: OpenId::default(),
            leaves: Leaves::default(),
        }
    }
}

/// How much the members of a Matrix room count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Membership {
    Require,
    WhenVisible,
    Off,
}

impl Membership {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::WhenVisible => "when-visible",
            Self::Off => "off",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Appservice {
    pub registration: Option<PathBuf>,
    pub tokens: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    pub id: String,
    pub password_file: Option<PathBuf>,
    pub access_token_file: Option<PathBuf>,
    pub homeserver_url: Option<String>,
    pub invited_by: Vec<String>,
    pub max_rooms: u32,
}

impl User {
    /// Whether the focus is a user at all.
    pub fn is_on(&self) -> bool {
        !self.id.is_empty()
    }
}

impl Default for User {
    fn default() -> Self {
        Self {
            id: String::new(),
            password_file: None,
            access_token_file: None,
            homeserver_url: None,
            invited_by: Vec::new(),
            max_rooms: 1_000,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Leaves {
    pub delegation: bool,
}

impl Default for Leaves {
    fn default() -> Self {
        Self { delegation: true }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenId {
    pub allow_networks: Vec<IpNet>,
    pub authorities_file: Option<PathBuf>,
    pub timeout_seconds: u32,
    pub lookups_per_second: u32,
}

impl Default for OpenId {
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            authorities_file: None,
            timeout_seconds: 10,
            lookups_per_second: 200,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Room {
    /// Without a word on it, whatever [`Config::auto_create`] says.
    pub auto_create: Option<bool>,
    pub empty_timeout_seconds: u32,
    pub departure_timeout_seconds: u32,
}

impl Default for Room {
    fn default() -> Self {
        Self { auto_create: None, empty_timeout_seconds: 300, departure_timeout_seconds: 20 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub participants_per_room: usize,
    pub tracks_per_participant: usize,
    pub metadata_bytes: usize,
    pub attributes_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            participants_per_room: 0,
            tracks_per_participant: 64,
            metadata_bytes: 512 * 1024,
            attributes_bytes: 64 * 1024,
        }
    }
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IceServer {
    pub urls: Vec<String>,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub credential: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    pub id: String,
    pub region: String,
}

impl Default for Node {
    fn default() -> Self {
        Self { id: "weir".to_owned(), region: String::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    pub bind: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { bind: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 7889) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    pub deadline_seconds: u32,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { deadline_seconds: 5 }
    }
}

impl Config {
    /// Whether joining creates a room. With Matrix that is a right, which tokens carry.
    pub fn auto_create(&self) -> bool {
        self.room.auto_create.unwrap_or(!self.matrix.is_on())
    }
}

#[cfg(test)]
impl Config {
    /// One with every optional key set, for tests that look at names.
    pub fn example() -> Self {
        Self {
            keys: [("key".to_owned(), "a secret of at least 32 characters".to_owned())].into(),
            key_file: Some("keys.toml".into()),
            matrix: Matrix {
                homeserver_url: Some("http://127.0.0.1:8008".to_owned()),
                appservice: Appservice {
                    registration: Some("appservice.yaml".into()),
                    ..Appservice::default()
                },
                user: User {
                    password_file: Some("password".into()),
                    access_token_file: Some("token".into()),
                    homeserver_url: Some("http://127.0.0.1:8008".to_owned()),
                    ..User::default()
                },
                openid: OpenId { authorities_file: Some("ca.pem".into()), ..OpenId::default() },
                ..Matrix::default()
            },
            room: Room { auto_create: Some(true), ..Room::default() },
            ..Self::default()
        }
    }
}
