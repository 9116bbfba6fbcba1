//! Delegated leaves: told by rooms who comes and goes.

use std::collections::HashMap;
use std::sync::Arc;

use rand::Rng;
use weir_livekit::supervision::{Bearer, LeaveReason, Observer, ParticipantEvent};
use weir_matrix::appservice::Registration;
use weir_matrix::leaves::{Credential, Delegations, GuardedWeb, Locator, Presence, Web};
use weir_matrix::openid::OpenId;
use weir_matrix::store::Store;

use crate::config::Matrix;

/// Takes up what was kept; nothing if clients are to keep their leaves alive themselves.
pub async fn start(
    matrix: &Matrix,
    registration: Option<&Registration>,
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
    let locator = Locator::new(Arc::clone(&web), known);
    let credentials = credentials(matrix, registration);
    let delegations = Delegations::start(store.clone(), web, locator, credentials, registry, seed()).await?;
    Ok(Some(delegations))
}

/// An application service may act for the users of its namespace, and ours has all of the homeserver's.
fn credentials(matrix: &Matrix, registration: Option<&Registration>) -> HashMap<String, Credential> {
    let own = |registration: &Registration| {
        // Whoever passes requests on to us knows us.
        let is_shown_unasked = matrix.appservice.tokens;
        let credential = Credential { token: registration.as_token.as_str().into(), is_shown_unasked };
        (matrix.server_name.clone(), credential)
    };
    registration.map(own).into_iter().collect()
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
    use weir_matrix::names::ServerName;

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
    fn the_own_homeserver_is_shown_what_it_registered_and_others_nothing() {
        let matrix = Matrix { server_name: "lab.example".to_owned(), ..Matrix::default() };
        let server = ServerName::parse("lab.example").unwrap();
        let registration =
            Registration::new(&server, "http://127.0.0.1:1", ["as".to_owned(), "hs".to_owned()]);
        for tokens in [false, true] {
            let mut matrix = matrix.clone();
            matrix.appservice.tokens = tokens;
            let credentials = credentials(&matrix, Some(&registration));
            let own = &credentials["lab.example"];
            assert_eq!((credentials.len(), &*own.token, own.is_shown_unasked), (1, "as", tokens));
        }
        assert!(credentials(&matrix, None).is_empty());
    }
}
