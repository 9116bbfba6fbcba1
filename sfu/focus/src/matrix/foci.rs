//! The focus that people are sent to: this one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use weir_livekit::Server;
use weir_livekit::token::{self, Claims, Keys, VideoGrant};
use weir_matrix::rooms::Holder;
use weir_matrix::service::{Admission, Foci, FocusAnswer, Refusal};

use super::openers::Openers;

/// Signs tokens for the rooms of this process.
pub struct ThisFocus {
    server: Arc<Server>,
    keys: Keys,
    /// The name of the key that signs; empty for the first.
    signer: String,
    url: String,
    validity: Duration,
    openers: Mutex<Openers>,
}

impl ThisFocus {
    pub fn new(server: Arc<Server>, keys: Keys, signer: String, url: String, validity: Duration) -> Self {
        Self { server, keys, signer, url, validity, openers: Mutex::default() }
    }

    fn answer(&self, admission: &Admission) -> Result<FocusAnswer, Refusal> {
        // Whoever may create is about to announce the call; those who hear of it must not come to a closed door.
        if admission.grants.create && !self.server.is_open(&admission.conference) {
            self.open(admission)?;
        }
        let claims = claims(admission, &self.signer, unix_ms(), self.validity);
        let jwt = token::sign(&self.keys, &claims).ok_or(Refusal::Internal)?;
        Ok(FocusAnswer { url: self.url.clone(), jwt })
    }
}

impl ThisFocus {
    fn open(&self, Admission { asker, conference, .. }: &Admission) -> Result<(), Refusal> {
        let is_admitted =
            self.openers.lock().unwrap_or_else(PoisonError::into_inner).admit(now(), &asker.user);
        if !is_admitted {
            tracing::info!(user = ?asker.user, "somebody opens too many conferences");
            return Err(Refusal::Busy);
        }
        if self.server.open(conference) { Ok(()) } else { Err(Refusal::NoFocus) }
    }
}

impl Foci for ThisFocus {
    fn focus_for<'a>(&'a self, admission: &'a Admission) -> BoxFuture<'a, Result<FocusAnswer, Refusal>> {
        Box::pin(std::future::ready(self.answer(admission)))
    }

    fn is_at(&self, url: &str) -> bool {
        url.trim_end_matches('/') == self.url.trim_end_matches('/')
    }
}

/// No name and no metadata: clients take those from the Matrix room, and a hashed identity says nothing of who it is.
fn claims(admission: &Admission, signer: &str, now_ms: u64, validity: Duration) -> Claims {
    let Admission { asker, conference, identity, grants } = admission;
    let holder = Holder { room_id: asker.room_id.clone(), user: asker.user.clone() };
    let now = now_ms / 1_000;
    Claims {
        iss: signer.to_owned(),
        sub: identity.clone(),
        nbf: Some(now),
        // To the millisecond: who is kicked and comes back has tokens of the same second, and only one is good.
        iat: Some(now_ms as f64 / 1_000.0),
        issued_to: holder.encode(),
        exp: Some(now.saturating_add(validity.as_secs())),
        video: VideoGrant {
            room: conference.clone(),
            room_join: true,
            room_create: grants.create,
            can_publish: Some(grants.publish),
            can_subscribe: Some(true),
            can_update_own_metadata: Some(true), // else a client that brings some is refused
            ..VideoGrant::default()
        },
        ..Claims::default()
    }
}

#[expect(clippy::disallowed_methods, reason = "here the clock is read that openers are passed")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a token is for now")]
fn unix_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use weir_matrix::names::UserId;
    use weir_matrix::policy::{Asker, Grants};

    use super::*;

    #[test]
    fn a_token_grants_what_the_policy_granted_and_the_rest_to_nobody() {
        let user = UserId::parse("@dana:lab.example").unwrap();
        let asker = Asker { user, room_id: "!r:lab.example".to_owned(), slot_id: "m.call#ROOM".to_owned() };
        for (create, publish) in [(true, true), (false, true), (false, false)] {
            let admission = Admission {
                asker: asker.clone(),
                conference: "room".to_owned(),
                identity: "@dana:lab.example:DEVICE".to_owned(),
                grants: Grants { create, publish },
            };
            let claims = claims(&admission, "weir-1", 1_000_700, Duration::from_secs(3_600));
            assert_eq!((claims.iss.as_str(), claims.sub.as_str()), ("weir-1", "@dana:lab.example:DEVICE"));
            assert_eq!((claims.nbf, claims.exp, claims.issued_ms()), (Some(1_000), Some(4_600), 1_000_700));
            let holder = Holder::decode(&claims.issued_to).unwrap();
            assert_eq!((holder.room_id, holder.user), (asker.room_id.clone(), asker.user.clone()));
            let video = &claims.video;
            assert_eq!(
                (video.room_create, video.may_publish(), video.may_publish_data()),
                (create, publish, publish)
            );
            assert!(
                video.room_join
                    && video.may_subscribe()
                    && !video.room_admin
                    && !video.hidden
                    && !video.room_list
            );
            assert!(claims.name.is_empty() && claims.metadata.is_empty());
        }
    }
}
