//! Delegated leaves: told by rooms who comes and goes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rand::Rng;
use weir_livekit::supervision::{Bearer, LeaveReason, Observer, ParticipantEvent};
use weir_matrix::leaves::{Delegations, GuardedWeb, Locator, Presence, Web};
use weir_matrix::openid::OpenId;
use weir_matrix::store::Store;

use super::wrong;
use crate::config::{ConfigError, Matrix};

/// Takes up what was kept; nothing if clients are to keep their leaves alive themselves.
pub async fn start(
    matrix: &Matrix,
    openid: &OpenId,
    store: &Store,
    registry: &prometheus::Registry,
) -> anyhow::Result<Option<Delegations>> {
    if !matrix.leaves.delegation {
        return Ok(None);
    }
    let web: Arc<dyn Web> = Arc::new(GuardedWeb::new(openid));
    let own = |url: &String| (matrix.server_name.clone(), url.clone());
    let known: HashMap<String, String> = matrix.homeserver_url.iter().map(own).collect();
    // Where private networks are allowed, homeservers are on machines for trying out, and have no certificates.
    let allows_plain = !matrix.openid.allow_networks.is_empty();
    let locator = Locator::new(Arc::clone(&web), known, allows_plain);
    let credentials = credentials(matrix)?;
    let delegations = Delegations::start(store.clone(), web, locator, credentials, registry, seed()).await?;
    Ok(Some(delegations))
}

fn credentials(matrix: &Matrix) -> Result<HashMap<String, String>, ConfigError> {
    let Some(path) = &matrix.leaves.token_file else { return Ok(HashMap::new()) };
    Ok(HashMap::from([(matrix.server_name.clone(), read_token(path)?)]))
}

fn read_token(path: &Path) -> Result<String, ConfigError> {
    const KEY: &str = "matrix.leaves.token_file";
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        key: KEY,
        path: path.to_owned(),
        error,
        remedy: "name a file that exists and that weir may read, or leave the key out",
    })?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let remedy = "write the as_token of the application service's registration into it, and nothing else";
        return Err(wrong(KEY, &path.display().to_string(), "it holds no token", remedy));
    }
    Ok(token.to_owned())
}

#[expect(clippy::disallowed_methods, reason = "here the randomness is drawn that waits are spread by")]
fn seed() -> u64 {
    rand::rng().random()
}

/// Hears of participants for the leaves.
pub struct Presences(pub Delegations);

impl Observer for Presences {
    fn observe(&self, bearer: &Bearer, event: ParticipantEvent) {
        if let Some(presence) = presence(event) {
            self.0.observe(&bearer.room, &bearer.identity, presence);
        }
    }
}

/// A client is there as soon as signalling has begun, and until its room gives it up.
fn presence(event: ParticipantEvent) -> Option<Presence> {
    match event {
        ParticipantEvent::Joined | ParticipantEvent::Connected => Some(Presence::Connected),
        ParticipantEvent::CutOff | ParticipantEvent::Resumed => None,
        ParticipantEvent::Left(LeaveReason::Replaced | LeaveReason::StartsOver) => Some(Presence::Replaced),
        ParticipantEvent::Left(LeaveReason::Own | LeaveReason::Lost | LeaveReason::Evicted) => {
            Some(Presence::Gone)
        }
        // Clients come back when the focus does; its leaves are kept until then.
        ParticipantEvent::Left(LeaveReason::ShutDown) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leave_is_not_sent_for_who_comes_back() {
        let left = |reason| presence(ParticipantEvent::Left(reason));
        assert_eq!(left(LeaveReason::ShutDown), None);
        assert_eq!(left(LeaveReason::Replaced), Some(Presence::Replaced));
        assert_eq!(left(LeaveReason::StartsOver), Some(Presence::Replaced));
        for reason in [LeaveReason::Own, LeaveReason::Lost, LeaveReason::Evicted] {
            assert_eq!(left(reason), Some(Presence::Gone));
        }
        assert_eq!(presence(ParticipantEvent::CutOff), None, "media may go on");
    }

    #[test]
    fn a_token_is_one_word() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "secret\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), "secret");
        std::fs::write(&path, "as_token: secret\n").unwrap();
        let error = read_token(&path).unwrap_err().to_string();
        assert!(error.contains("as_token") && !error.contains("secret"), "{error}");
        assert!(read_token(&directory.path().join("none")).is_err());
    }
}
