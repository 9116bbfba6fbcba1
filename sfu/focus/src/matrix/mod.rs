//! People from Matrix: their authorisation service, wired to the rooms of this focus.

mod foci;
mod leaves;
mod openers;
mod rooms;
mod user;

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rand::Rng;
use weir_livekit::supervision::{Bearer, Observer, ParticipantEvent};
use weir_livekit::token::Keys;
use weir_livekit::{Server, Supervision};
use weir_matrix::keys::{KeyError, TokenKey};
use weir_matrix::leaves::Delegations;
use weir_matrix::names::ServerName;
use weir_matrix::openid::{self, Dns, Home, OpenId, OpenIdConfig, Reach};
use weir_matrix::policy::{ByRoom, ByServer, Servers};
use weir_matrix::service::{Parts, Service, Through};
use weir_matrix::store::{Store, StoreError};

use crate::config::{Config, ConfigError, Matrix};
use foci::ThisFocus;
use leaves::Presences;
use rooms::Rooms;

/// The key that signs tokens for people from Matrix: one of this focus's own, unless a fixed one is chosen because
/// nothing may be kept.
pub fn token_key(matrix: &Matrix) -> Result<Option<TokenKey>, ConfigError> {
    let directory = &matrix.state_directory;
    if !matrix.is_on() || directory.as_os_str().is_empty() {
        return Ok(None);
    }
    TokenKey::load_or_create(directory, randomness()).map(Some).map_err(|error| no_key(directory, &error))
}

fn no_key(directory: &Path, error: &KeyError) -> ConfigError {
    let remedy = match error {
        KeyError::Io { .. } => {
            "choose a directory that weir may write, or make this one and give it to weir's user".to_owned()
        }
        KeyError::Readable { path, .. } => format!("chmod 600 {}", path.display()),
        KeyError::Malformed { path } => {
            format!("move {} away: a new one is made, and people in a call need new tokens", path.display())
        }
    };
    wrong("matrix.state_directory", &directory.display().to_string(), &error.to_string(), &remedy)
}

/// Complains of what [`token_key`] and [`found`] would complain of, and makes and asks nothing.
pub fn check(matrix: &Matrix) -> Result<(), ConfigError> {
    let Some(own) = ServerName::parse(&matrix.server_name) else { return Ok(()) };
    let directory = &matrix.state_directory;
    if !directory.as_os_str().is_empty() {
        TokenKey::load(directory).map_err(|error| no_key(directory, &error))?;
        take_files(directory)
            .map_err(|error| no_key(directory, &KeyError::Io { path: directory.clone(), error }))?;
    }
    openid_config(matrix, &own)?;
    rooms::registration(matrix)?;
    user::check(matrix)
}

/// Whether files can be made there, or where the directory is to be. The one that tries it has no name, and is gone at
/// once.
fn take_files(directory: &Path) -> std::io::Result<()> {
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(there) {
        // Not every file system has such files; then only the start can tell.
        Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => Err(error),
        _ => Ok(()),
    }
}

/// What there is of Matrix before there are rooms, since these tell it of their participants.
pub struct Foundation {
    own: ServerName,
    openid: Arc<OpenId>,
    leaves: Option<Delegations>,
    rooms: Rooms,
    through: Option<Through>,
}

/// Nothing if there is no Matrix.
pub async fn found(config: &Config, registry: &prometheus::Registry) -> anyhow::Result<Option<Foundation>> {
    let matrix = &config.matrix;
    let Some(own) = ServerName::parse(&matrix.server_name) else { return Ok(None) };
    let dns = Dns::system().map_err(|error| {
        wrong("matrix.server_name", &matrix.server_name, &error.to_string(), "mend /etc/resolv.conf")
    })?;
    let openid = OpenId::new(openid_config(matrix, &own)?, dns)?;
    let store = open_store(&matrix.state_directory)?;
    let registration = rooms::registration(matrix)?;
    let leaves = leaves::start(matrix, registration.as_ref(), &openid, &store, registry).await?;
    let rooms = Rooms::open(matrix, registration.as_ref(), &openid, &store, registry).await?;
    let through = rooms.through(matrix, registration.as_ref());
    Ok(Some(Foundation { own, openid, leaves, rooms, through }))
}

impl Foundation {
    /// Who may refuse participants, and who is told of them.
    pub fn supervision(&self) -> Supervision {
        let warden = self.rooms.warden();
        let mut observers: Vec<Arc<dyn Observer>> = vec![Arc::<rooms::Warden>::clone(&warden)];
        if let Some(leaves) = &self.leaves {
            observers.push(Arc::new(Presences(leaves.clone())));
        }
        Supervision { gate: warden, observer: Arc::new(Observers(observers)) }
    }

    /// Begins to serve: the authorisation service, and what the homeserver calls, before the rooms of `server`. `http` is where clients are sent that are told nothing better.
    pub fn serve(
        self,
        matrix: &Matrix,
        key: Option<TokenKey>,
        keys: Keys,
        http: SocketAddr,
        server: &Arc<Server>,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Router> {
        let Self { own, openid, leaves, rooms, through } = self;
        let servers = ByServer {
            creators: servers(&matrix.creators, &own),
            publishers: servers(&matrix.publishers, &own),
        };
        let policy = ByRoom { rule: rooms.rule, servers, door: Arc::clone(&rooms.door) };
        let signer = key.map(|key| key.name).unwrap_or_default();
        let url = url(matrix, http);
        let validity = Duration::from_secs(matrix.token_seconds.into());
        let foci = ThisFocus::new(Arc::clone(server), keys, signer, url, validity);
        let leaves = leaves.map(|leaves| Arc::new(leaves) as Arc<dyn weir_matrix::service::Leaves>);
        let parts = Parts { openid, policy: Arc::new(policy), foci: Arc::new(foci), leaves, through };
        let service = Service::new(&matrix.prefix, parts, registry)?;
        Ok(rooms.start(server, service.in_front_of(server.router())))
    }
}

/// Where clients are told to connect.
pub fn url(matrix: &Matrix, http: SocketAddr) -> String {
    match matrix.url.as_str() {
        "" => format!("ws://{http}/livekit/sfu"),
        url => url.to_owned(),
    }
}

/// All of them, in order.
struct Observers(Vec<Arc<dyn Observer>>);

impl Observer for Observers {
    fn observe(&self, bearer: &Bearer, event: ParticipantEvent) {
        for observer in &self.0 {
            observer.observe(bearer, event);
        }
    }
}

/// Without a directory nothing is kept.
fn open_store(directory: &Path) -> Result<Store, ConfigError> {
    let opened = match directory.as_os_str().is_empty() {
        true => Store::in_memory_with(&[&weir_matrix_user::TABLES]),
        false => Store::open(directory, &[&weir_matrix_user::TABLES]),
    };
    opened.map_err(|error| {
        let remedy = match &error {
            StoreError::Directory { .. } => {
                "choose a directory that weir may write, or give this one to weir's user"
            }
            StoreError::InUse { .. } => "stop the other weir, or give this one a directory of its own",
            StoreError::Newer { .. } => "run the newer weir, or choose another directory",
            StoreError::Open { .. } | StoreError::Failed(_) => {
                "move the file away: a new one is made, and what was kept is forgotten"
            }
            StoreError::Thread(_) | StoreError::Closed => "see what the machine is short of",
        };
        wrong("matrix.state_directory", &directory.display().to_string(), &error.to_string(), remedy)
    })
}

fn openid_config(matrix: &Matrix, own: &ServerName) -> Result<OpenIdConfig, ConfigError> {
    let home = match &matrix.homeserver_url {
        Some(url) => Some(Home::new(own.clone(), url).ok_or_else(|| not_a_url(url))?),
        None => None,
    };
    let authorities = match &matrix.openid.authorities_file {
        Some(path) => read_authorities(path)?,
        None => Vec::new(),
    };
    Ok(OpenIdConfig {
        reach: Reach::new(matrix.openid.allow_networks.clone()),
        authorities,
        timeout: Duration::from_secs(matrix.openid.timeout_seconds.into()),
        per_second: matrix.openid.lookups_per_second,
        own: Some(own.clone()),
        home,
        ..OpenIdConfig::default()
    })
}

/// Configuration files have been checked for it; flags have not.
fn not_a_url(url: &str) -> ConfigError {
    let remedy = "write for example http://127.0.0.1:8008";
    wrong("matrix.homeserver_url", url, "that is no URL of a server", remedy)
}

fn read_authorities(path: &Path) -> Result<Vec<openid::Certificate>, ConfigError> {
    const KEY: &str = "matrix.openid.authorities_file";
    let pem = std::fs::read(path).map_err(|error| ConfigError::File {
        key: KEY,
        path: path.to_owned(),
        error,
        remedy: "name a file that exists and that weir may read, or leave the key out",
    })?;
    openid::read_authorities(&pem).ok_or_else(|| {
        let remedy = "write certificates as \"-----BEGIN CERTIFICATE-----\" blocks";
        wrong(KEY, &path.display().to_string(), "it holds no certificates that can be used", remedy)
    })
}

/// None named is the own one.
fn servers(named: &[String], own: &ServerName) -> Servers {
    if named.iter().any(|name| name == "*") {
        return Servers::All;
    }
    let named: Vec<_> = named.iter().filter_map(|name| ServerName::parse(name)).collect();
    Servers::Listed(if named.is_empty() { vec![own.clone()] } else { named })
}

fn wrong(key: &str, value: &str, problem: &str, remedy: &str) -> ConfigError {
    ConfigError::Value {
        key: key.to_owned(),
        value: value.to_owned(),
        problem: problem.to_owned(),
        remedy: remedy.to_owned(),
    }
}

#[expect(clippy::disallowed_methods, reason = "here the randomness is drawn that a key is made of")]
fn randomness() -> [u8; 40] {
    rand::rng().random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_the_own_users_unless_others_are_named() {
        let own = ServerName::parse("lab.example").unwrap();
        let other = ServerName::parse("else.example").unwrap();
        let named =
            |names: &[&str]| servers(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), &own);
        assert!(named(&[]).contain(&own) && !named(&[]).contain(&other));
        assert!(named(&["else.example"]).contain(&other) && !named(&["else.example"]).contain(&own));
        assert!(named(&["*"]).contain(&other));
    }
}
