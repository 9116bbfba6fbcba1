//! Where a homeserver is:
//! <https://spec.matrix.org/latest/server-server-api/#resolving-server-names>, step by step.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, Uri, header};
use lru::LruCache;
use serde_json::Value;
use tokio::time::Instant;

use super::http::{Answer, Http, HttpError, Target};
use crate::names::{Host, ServerName};

/// Where federation is without a word to the contrary.
const FEDERATION_PORT: u16 = 8448;
const HTTPS_PORT: u16 = 443;
const WELL_KNOWN: &str = "/.well-known/matrix/server";
/// A delegation is a few dozen bytes.
const MAX_WELL_KNOWN_BYTES: usize = 16 * 1024;
/// Redirects that are followed. A site behind its bare name takes one, to its www name perhaps another.
const MAX_REDIRECTS: usize = 3;
/// Delegations that are kept, and answers that there is none.
const MAX_CACHED: usize = 4_096;
/// How long a delegation is kept if its server does not say, and the most and the least it may say. The specification
/// recommends a day, and two at most.
const DELEGATED_FOR: Duration = Duration::from_secs(24 * 3600);
const DELEGATED_AT_MOST: Duration = Duration::from_secs(48 * 3600);
const DELEGATED_AT_LEAST: Duration = Duration::from_secs(5 * 60);
/// How long it is remembered that there is no delegation. Long enough that a server without one is not asked for each
/// token; short enough that one who mends it sees the effect.
const NOT_DELEGATED_FOR: Duration = Duration::from_secs(5 * 60);

/// Ports that the specification fixes, which tests cannot have.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub https: u16,
    pub federation: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { https: HTTPS_PORT, federation: FEDERATION_PORT }
    }
}

/// How to ask a homeserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Tried in order.
    pub targets: Vec<Target>,
    /// Whom the certificate must name.
    pub identity: Host,
    /// The `Host` header.
    pub host: String,
}

/// Finds routes, and remembers delegations.
pub struct Routes {
    http: Http,
    ports: Ports,
    /// What a well-known may take. A site that drops packets to its port would else use up the time of every look-up, and
    /// nobody would remember that there is nothing.
    patience: Duration,
    delegations: Mutex<LruCache<String, Delegation>>,
}

#[derive(Clone)]
struct Delegation {
    to: Option<Arc<ServerName>>,
    until: Instant,
}

impl Routes {
    pub fn new(http: Http, ports: Ports, patience: Duration) -> Self {
        let most = NonZeroUsize::new(MAX_CACHED).expect("it is not 0");
        Self { http, ports, patience, delegations: Mutex::new(LruCache::new(most)) }
    }

    pub async fn find(&self, server: &ServerName) -> Route {
        let name = match (server.host(), server.port()) {
            // 1: an address, and 2: a name with a port.
            (Host::Address(_), _) | (Host::Name(_), Some(_)) => return self.straight(server),
            (Host::Name(name), None) => name,
        };
        // 3: the name's own word.
        match self.delegation(name).await {
            Some(delegated) => match (delegated.host(), delegated.port()) {
                // 3.1 and 3.2.
                (Host::Address(_), _) | (Host::Name(_), Some(_)) => self.straight(&delegated),
                // 3.3 to 3.5.
                (Host::Name(name), None) => self.by_service(name).await,
            },
            // 4 to 6.
            None => self.by_service(name).await,
        }
    }

    fn straight(&self, server: &ServerName) -> Route {
        let port = server.port().unwrap_or(self.ports.federation);
        Route {
            targets: vec![Target { host: server.host().clone(), port }],
            identity: server.host().clone(),
            host: server.as_str().to_owned(),
        }
    }

    /// By SRV record, the present name of the service before the former one; and else the well-known port.
    async fn by_service(&self, name: &str) -> Route {
        let mut targets = Vec::new();
        for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
            let found = self.http.dns.services(service, name).await;
            targets = found
                .into_iter()
                .map(|found| Target { host: Host::Name(found.target), port: found.port })
                .collect();
            if !targets.is_empty() {
                break;
            }
        }
        if targets.is_empty() {
            targets.push(Target { host: Host::Name(name.to_owned()), port: self.ports.federation });
        }
        // An SRV record is not authentic, so the certificate is still for the name.
        Route { targets, identity: Host::Name(name.to_owned()), host: name.to_owned() }
    }

    async fn delegation(&self, name: &str) -> Option<Arc<ServerName>> {
        let key = name.to_ascii_lowercase();
        let known = self.lock().get(&key).filter(|known| known.until > Instant::now()).cloned();
        if let Some(known) = known {
            return known.to;
        }
        let found = self.fetch_well_known(name).await;
        let delegation = match found {
            Some((to, lifetime)) => Delegation { to: Some(Arc::new(to)), until: Instant::now() + lifetime },
            None => Delegation { to: None, until: Instant::now() + NOT_DELEGATED_FOR },
        };
        self.lock().put(key, delegation.clone());
        delegation.to
    }

    async fn fetch_well_known(&self, name: &str) -> Option<(ServerName, Duration)> {
        let answer = tokio::time::timeout(self.patience, self.follow(name)).await.ok()?.ok()?;
        if !answer.status.is_success() {
            return None;
        }
        let json: Value = serde_json::from_slice(&answer.body).ok()?;
        let delegated = ServerName::parse(json.get("m.server")?.as_str()?)?;
        Some((delegated, lifetime(&answer.headers)))
    }

    async fn follow(&self, name: &str) -> Result<Answer, HttpError> {
        let mut at = ServerName::parse(name).ok_or(HttpError::NoAddress)?;
        let mut path = WELL_KNOWN.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let port = at.port().unwrap_or(self.ports.https);
            let targets = [Target { host: at.host().clone(), port }];
            let answer = self.http.get(&targets, at.host(), at.as_str(), &path, MAX_WELL_KNOWN_BYTES).await?;
            if !answer.status.is_redirection() {
                return Ok(answer);
            }
            let location = answer.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
            let location: Uri =
                location.and_then(|location| location.parse().ok()).ok_or(HttpError::Broken)?;
            if let Some(authority) = location.authority() {
                if location.scheme_str() != Some("https") {
                    return Err(HttpError::Broken);
                }
                at = ServerName::parse(authority.as_str()).ok_or(HttpError::Broken)?;
            }
            path = location
                .path_and_query()
                .map(ToString::to_string)
                .filter(|path| path.starts_with('/'))
                .ok_or(HttpError::Broken)?;
        }
        Err(HttpError::Broken)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<String, Delegation>> {
        self.delegations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From `Cache-Control: max-age`, which is what servers send; `Expires` needs a clock that both agree on.
fn lifetime(headers: &HeaderMap) -> Duration {
    let control =
        headers.get(header::CACHE_CONTROL).and_then(|control| control.to_str().ok()).unwrap_or_default();
    let directives = || control.split(',').map(str::trim);
    if directives().any(|directive| directive == "no-store" || directive == "no-cache") {
        return DELEGATED_AT_LEAST;
    }
    let seconds = directives().find_map(|directive| directive.strip_prefix("max-age=")?.parse().ok());
    seconds.map_or(DELEGATED_FOR, Duration::from_secs).clamp(DELEGATED_AT_LEAST, DELEGATED_AT_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegation_is_kept_as_long_as_its_server_says_within_bounds() {
        for (control, seconds) in [
            ("", 24 * 3600),
            ("max-age=7200", 7200),
            ("public, max-age=600", 600),
            ("max-age=1", 300),
            ("no-store", 300),
            ("max-age=99999999999", 48 * 3600),
            ("max-age=x", 24 * 3600),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, control.parse().unwrap());
            assert_eq!(lifetime(&headers), Duration::from_secs(seconds), "{control}");
        }
    }
}
