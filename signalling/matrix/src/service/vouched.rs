//! Tokens through homeservers
//! ([MSC4195](https://github.com/matrix-org/matrix-spec-proposals/pull/4195)): clients ask their own homeserver, which
//! passes the request on to us with its word on who asks, so nobody is looked up by OpenID. A token for the focus of
//! another homeserver is asked for there, from homeserver to homeserver.
//!
//! The order is that of the other endpoints, with the homeserver's own token before everything: who does not show it
//! has no body read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::{Admission, Delegation, FocusAnswer, Refusal, Service, read};
use crate::appservice::{HsToken, Shown};
use crate::names::{ServerName, UserId, shortened};
use crate::openid::Limits;
use crate::request::{Caller, VouchedEndpoint, VouchedRequest};

/// As whom a user asks, by its homeserver's word.
const USER: &str = "x-matrix-user-identifier";
/// For which server another homeserver asks, by the word of ours.
const ORIGIN: &str = "x-matrix-origin";
/// Where another homeserver is asked.
const RELAYED_TO: &str = "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token";
/// How long another homeserver is waited for. Ours waits half a minute for us, and has been asked for members before.
const RELAY_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests a second that are relayed to one homeserver.
const RELAYS_PER_SECOND: u32 = 50;
/// The longest token of another focus, and its longest address.
const MAX_JWT_BYTES: usize = 8 * 1024;
const MAX_URL_BYTES: usize = 1_000;

/// What another homeserver answered: the status, and the JSON if it was any.
pub type Relayed = (u16, Value);

/// A delayed event, as its homeserver has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayedEvent {
    pub room_id: String,
    pub delay: Duration,
}

/// The homeserver gave no answer that says anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unanswered(pub String);

/// What the homeserver beside this focus is asked, as its application service.
pub trait OwnHomeserver: Send + Sync + 'static {
    /// Has it send a request to another homeserver, and say what that answered.
    fn relay<'a>(
        &'a self,
        to: &'a ServerName,
        path: &'static str,
        body: Value,
    ) -> BoxFuture<'a, Result<Relayed, Unanswered>>;

    /// A delayed event of this user; `None` if there is none.
    fn delayed_event<'a>(
        &'a self,
        user: &'a UserId,
        delay_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<DelayedEvent>, Unanswered>>;
}

/// What it takes to serve what a homeserver passes on.
pub struct Through {
    own: ServerName,
    hs_token: HsToken,
    homeserver: Arc<dyn OwnHomeserver>,
    relays: Limits,
}

impl Through {
    pub fn new(own: ServerName, hs_token: HsToken, homeserver: Arc<dyn OwnHomeserver>) -> Self {
        Self { own, hs_token, homeserver, relays: Limits::new(RELAYS_PER_SECOND) }
    }

    /// Who asks, if it is our homeserver that says so.
    fn caller(&self, endpoint: VouchedEndpoint, headers: &HeaderMap) -> Result<Caller, Refusal> {
        match self.hs_token.shown(headers) {
            Shown::Right => {}
            Shown::Wrong => return Err(Refusal::NotTheHomeserver),
            Shown::Nothing => return Err(Refusal::NoHsToken),
        }
        let (user, origin) = (header(headers, USER)?, header(headers, ORIGIN)?);
        let caller = match (endpoint, user, origin) {
            (VouchedEndpoint::FederationGetToken, None, Some(origin)) => {
                ServerName::parse(origin).map(Caller::Server)
            }
            (VouchedEndpoint::GetToken | VouchedEndpoint::DelegateDelayedLeave, Some(user), None) => {
                UserId::parse(user).filter(|user| *user.server() == self.own).map(Caller::User)
            }
            _ => None,
        };
        caller.ok_or(Refusal::NobodyNamed)
    }

    async fn relay(&self, to: &ServerName, request: &VouchedRequest) -> Result<Value, Refusal> {
        // The asker has named the server, and it may be one that never answers.
        let places =
            self.relays.enter(to.as_str(), tokio::time::Instant::now()).map_err(|_| Refusal::Busy)?;
        let asking = async {
            let _turn = places.turn().await;
            self.homeserver.relay(to, RELAYED_TO, request.relayed()).await
        };
        let server = shortened(to.as_str());
        match tokio::time::timeout(RELAY_TIMEOUT, asking).await {
            Ok(Ok((status, content))) => {
                self.relays.note_answer(to.as_str());
                tracing::debug!(%server, status, "another homeserver was asked for a token");
                judge(status, &content)
            }
            Ok(Err(error)) => {
                tracing::debug!(%server, %error, "another homeserver was not asked for a token");
                Err(Refusal::NotRelayed)
            }
            Err(_) => Err(Refusal::NotRelayed),
        }
    }

    async fn delayed_event(&self, user: &UserId, delay_id: &str) -> Result<DelayedEvent, Refusal> {
        let asked = self.homeserver.delayed_event(user, delay_id).await;
        let event = asked.map_err(|error| {
            tracing::warn!(%error, "no leave is taken on, since the homeserver does not say when it is due");
            Refusal::HomeserverAway
        })?;
        event.ok_or(Refusal::NoSuchLeave)
    }
}

/// The one of this name. Two would be read differently by two.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Refusal::NobodyNamed),
        (Some(_), Some(_)) => Err(Refusal::NobodyNamed),
    }
}

/// What becomes of another homeserver's answer. Its words are not passed on: they are anybody's.
fn judge(status: u16, content: &Value) -> Result<Value, Refusal> {
    let told = |key: &str, most: usize| {
        let text = content.get(key)?.as_str()?;
        (text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
    };
    match status {
        200 => {
            let mut answer = json!({ "jwt": told("jwt", MAX_JWT_BYTES).ok_or(Refusal::NotRelayed)? });
            if let Some(url) = told("url", MAX_URL_BYTES) {
                answer["url"] = json!(url);
            }
            Ok(answer)
        }
        400 => Err(Refusal::RefusedThere),
        403 => Err(Refusal::Forbidden),
        // It does not know the endpoint: clients ask its focus by OpenID then.
        404 => Err(Refusal::NotHere),
        429 => Err(Refusal::Busy),
        _ => Err(Refusal::NotRelayed),
    }
}

/// Which endpoint a path stands for, if it is one of these; `path` in its segments.
pub(super) fn endpoint(path: &[&str]) -> Option<VouchedEndpoint> {
    let at = path.iter().position(|segment| *segment == "_matrix")?;
    let (api, name) = match path[at + 1..] {
        [api, "v1", "rtc", "livekit", name] => (api, name),
        [api, "unstable", "io.element.msc4195", "rtc", "livekit", name] => (api, name),
        _ => return None,
    };
    match (api, name) {
        ("client", "get_token") => Some(VouchedEndpoint::GetToken),
        ("client", "delegate_delayed_leave") => Some(VouchedEndpoint::DelegateDelayedLeave),
        ("federation", "get_token") => Some(VouchedEndpoint::FederationGetToken),
        _ => None,
    }
}

impl Service {
    pub(super) async fn answer_vouched(
        &self,
        through: &Through,
        endpoint: VouchedEndpoint,
        request: Request<Body>,
    ) -> Result<Value, Refusal> {
        let caller = through.caller(endpoint, request.headers())?;
        let request = VouchedRequest::parse(endpoint, &caller, &read(request.into_body()).await?)?;
        let elsewhere = request.server.as_ref().filter(|server| **server != through.own);
        if elsewhere.is_none() && request.url.as_ref().is_some_and(|url| !self.parts.foci.is_at(url)) {
            return Err(Refusal::NotThisFocus);
        }
        let leave = match (&request.delay_id, &self.parts.leaves) {
            (Some(_), _) if elsewhere.is_some() => return Err(Refusal::NotThisFocus), // nobody publishes there
            (Some(_), None) => return Err(Refusal::NotHere),
            (Some(delay_id), Some(leaves)) => Some((delay_id.clone(), leaves)),
            (None, _) => None,
        };
        // Also before another homeserver is asked: nobody who is in no room has us ask around.
        let VouchedRequest { user, room_id, slot_id, member, .. } = &request;
        let admission = self.decide(user.clone(), room_id, slot_id, member).await?;
        if let Some(server) = elsewhere {
            return through.relay(server, &request).await;
        }
        let Some((delay_id, leaves)) = leave else {
            let FocusAnswer { url, jwt } = self.grant(&admission).await?;
            return Ok(json!({ "url": url, "jwt": jwt }));
        };
        let delegation = self.delegation(through, admission, &request, delay_id).await?;
        leaves.delegate(delegation).await?;
        Ok(json!({}))
    }

    /// The leave that somebody hands over, with what the homeserver knows of it.
    async fn delegation(
        &self,
        through: &Through,
        admission: Admission,
        request: &VouchedRequest,
        delay_id: String,
    ) -> Result<Delegation, Refusal> {
        if !admission.grants.publish {
            return Err(Refusal::Forbidden); // not in the call: nobody would see the leave
        }
        let DelayedEvent { room_id, delay } = through.delayed_event(&request.user, &delay_id).await?;
        if room_id != request.room_id {
            return Err(Refusal::NoSuchLeave);
        }
        Ok(Delegation {
            identities: request.member.identities(&request.user),
            admission,
            delay_id,
            timeout: delay,
            cs_api_url: None,
            is_alone: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(path: &str) -> Vec<&str> {
        super::super::segments(path).collect()
    }

    #[test]
    fn paths_are_those_of_both_versions_wherever_a_deployment_puts_them() {
        use VouchedEndpoint::{DelegateDelayedLeave, FederationGetToken, GetToken};
        const CLIENT: &str = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit";
        for (path, expected) in [
            (format!("{CLIENT}/get_token"), Some(GetToken)),
            (format!("/behind/a/proxy{CLIENT}/delegate_delayed_leave"), Some(DelegateDelayedLeave)),
            ("/_matrix/client/v1/rtc/livekit/get_token".to_owned(), Some(GetToken)),
            ("/_matrix/federation/v1/rtc/livekit/get_token".to_owned(), Some(FederationGetToken)),
            (RELAYED_TO.to_owned(), Some(FederationGetToken)),
            ("/_matrix/federation/v1/rtc/livekit/delegate_delayed_leave".to_owned(), None),
            ("/_matrix/client/v3/rtc/livekit/get_token".to_owned(), None),
            ("/_matrix/client/unstable/org.example/rtc/livekit/get_token".to_owned(), None),
            (format!("{CLIENT}/get_token/more"), None),
            (CLIENT.to_owned(), None),
            ("/get_token".to_owned(), None),
        ] {
            assert_eq!(endpoint(&segments(&path)), expected, "{path}");
        }
    }

    #[test]
    fn of_what_another_homeserver_says_little_is_passed_on() {
        let jwt = "a.b.c";
        assert_eq!(judge(200, &json!({ "jwt": jwt, "new": 1 })), Ok(json!({ "jwt": jwt })));
        let whole = json!({ "jwt": jwt, "url": "wss://x" });
        assert_eq!(judge(200, &whole), Ok(whole.clone()));
        for wrong in [json!({}), json!([]), json!(null), json!({ "jwt": 5 }), json!({ "jwt": "a b" })] {
            assert_eq!(judge(200, &wrong), Err(Refusal::NotRelayed), "{wrong}");
        }
        let long = json!({ "jwt": "x".repeat(MAX_JWT_BYTES + 1) });
        assert_eq!(judge(200, &long), Err(Refusal::NotRelayed));
        let words = json!({ "errcode": "M_FORBIDDEN", "error": "@dana:lab.example is not in !r" });
        for (status, refusal) in [
            (400, Refusal::RefusedThere),
            (403, Refusal::Forbidden),
            (404, Refusal::NotHere),
            (429, Refusal::Busy),
            (401, Refusal::NotRelayed),
            (500, Refusal::NotRelayed),
            (302, Refusal::NotRelayed),
        ] {
            assert_eq!(judge(status, &words), Err(refusal), "{status}");
        }
    }
}
