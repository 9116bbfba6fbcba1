//! The authorisation service: a client proves who it is, and gets the address of a focus and a token for it.
//!
//! The order is the defence. A body is judged by itself first; only then is the homeserver that it names asked; only
//! then is the policy asked what that person may do; and only then does a focus make the token. What the homeserver
//! beside this focus passes on needs no look-up: `vouched` serves it.

mod metrics;
mod refusal;
mod vouched;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use serde_json::json;

use crate::names::{self, UserId};
use crate::openid::OpenId;
use crate::policy::{Asker, Grants, Policy};
use crate::request::{Endpoint, MAX_BODY_BYTES, Member, TokenRequest, VouchedEndpoint};
use metrics::Metrics;

pub use refusal::Refusal;
pub use vouched::{DelayedEvent, OwnHomeserver, Relayed, Through, Unanswered};

/// A body must be there within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Somebody who may join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    pub asker: Asker,
    /// The name of the conference, by the hash that all clients know.
    pub conference: String,
    /// As whom the others expect to see them.
    pub identity: String,
    pub grants: Grants,
}

/// Where somebody connects, and with what. Clients connect to the `url` of this very answer, whatever host was announced
/// for the call, so each may be sent to the focus that is best for them.
#[derive(Clone, PartialEq, Eq)]
pub struct FocusAnswer {
    pub url: String,
    pub jwt: String,
}

/// Chooses a focus for each admission, has it ready for the conference, and signs.
///
/// A first answer is final to clients, so a slow answer is better than a refusal.
pub trait Foci: Send + Sync + 'static {
    fn focus_for<'a>(&'a self, admission: &'a Admission) -> BoxFuture<'a, Result<FocusAnswer, Refusal>>;

    /// Whether a client that names this address means one of them.
    fn is_at(&self, url: &str) -> bool;
}

/// A leave that a client has scheduled at its homeserver, to be sent when the client is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    pub admission: Admission,
    /// All identities that the client may join by, the admission's first.
    pub identities: Vec<String>,
    pub delay_id: String,
    pub timeout: Duration,
    /// Where the client says that its homeserver is. Nobody vouches for it.
    pub cs_api_url: Option<String>,
    /// Whether the client asks for nothing else, so that it can wait for its homeserver's word.
    pub is_alone: bool,
}

/// Keeps delayed leaves alive while their clients are connected.
pub trait Leaves: Send + Sync + 'static {
    fn delegate(&self, delegation: Delegation) -> BoxFuture<'_, Result<(), Refusal>>;
}

/// What the service asks, in this order.
pub struct Parts {
    pub openid: Arc<OpenId>,
    pub policy: Arc<dyn Policy>,
    pub foci: Arc<dyn Foci>,
    /// Without one `/delegate_delayed_leave` is not there, and clients keep their leaves alive themselves.
    pub leaves: Option<Arc<dyn Leaves>>,
    /// Without it the homeserver passes nothing on, and the paths that it would pass on are not there.
    pub through: Option<Through>,
}

/// See the module's description.
pub struct Service {
    prefix: Vec<String>,
    parts: Parts,
    metrics: Metrics,
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Health,
    Asked(Asked),
}

/// Which endpoint, and by whom: clients, who say themselves who they are, or their homeservers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Here(Endpoint),
    Through(VouchedEndpoint),
}

impl Service {
    /// `prefix` is the path of the URL that is announced to clients. Metrics are registered with `registry`; an error
    /// means that another service has registered its own there.
    pub fn new(
        prefix: &str,
        parts: Parts,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let prefix = segments(prefix).map(str::to_owned).collect();
        let metrics = Metrics::new(registry, parts.through.is_some())?;
        Ok(Arc::new(Self { prefix, parts, metrics }))
    }

    /// Serves its own paths, and leaves all others to `inner`.
    pub fn in_front_of(self: &Arc<Self>, inner: Router) -> Router {
        inner.layer(middleware::from_fn_with_state(Arc::clone(self), handle))
    }

    /// With the prefix, and without any, since proxies may cut it off. Doubled slashes come from a URL that was announced
    /// with one at its end.
    fn path(&self, path: &str) -> Option<Path> {
        let mut rest: Vec<&str> = segments(path).collect();
        if rest.len() > self.prefix.len() && rest.iter().zip(&self.prefix).all(|(one, other)| one == other) {
            rest.drain(..self.prefix.len());
        }
        match rest[..] {
            ["healthz"] => Some(Path::Health),
            ["sfu", "get"] => Some(Path::Asked(Asked::Here(Endpoint::SfuGet))),
            ["get_token"] => Some(Path::Asked(Asked::Here(Endpoint::GetToken))),
            ["delegate_delayed_leave"] => Some(Path::Asked(Asked::Here(Endpoint::DelegateDelayedLeave))),
            _ => {
                let endpoint = vouched::endpoint(&rest).filter(|_| self.parts.through.is_some());
                endpoint.map(|endpoint| Path::Asked(Asked::Through(endpoint)))
            }
        }
    }

    async fn answer(&self, endpoint: Endpoint, body: Body) -> Result<serde_json::Value, Refusal> {
        if endpoint == Endpoint::DelegateDelayedLeave && self.parts.leaves.is_none() {
            // Clients ask with nothing in hand whether this is there, and take any other status for a yes.
            return Err(Refusal::NotHere);
        }
        let request = TokenRequest::parse(endpoint, &read(body).await?)?;
        let leaves = match (&request.leave, &self.parts.leaves) {
            (Some(leave), Some(leaves)) => Some((leave.clone(), leaves)),
            // The client asks again without, and keeps its leave alive itself.
            (Some(_), None) => return Err(Refusal::NoLeaves),
            (None, _) => None,
        };
        let admission = self.admit(&request).await?;
        if let Some((leave, leaves)) = leaves {
            if !admission.grants.publish {
                // Whoever only watches is not in the call: nobody would see their leave.
                return Err(match endpoint {
                    Endpoint::DelegateDelayedLeave => Refusal::Forbidden,
                    Endpoint::SfuGet | Endpoint::GetToken => Refusal::NoLeaves,
                });
            }
            let timeout = Duration::from_millis(leave.timeout_ms);
            let delegation = Delegation {
                identities: request.member.identities(&admission.asker.user),
                admission: admission.clone(),
                delay_id: leave.delay_id,
                timeout,
                cs_api_url: leave.cs_api_url,
                is_alone: endpoint == Endpoint::DelegateDelayedLeave,
            };
            leaves.delegate(delegation).await.map_err(|refusal| match (endpoint, refusal) {
                (Endpoint::DelegateDelayedLeave, refusal) | (_, refusal @ Refusal::Leave(_)) => refusal,
                // No reason to stay out of the call: the client asks again without, and keeps its leave alive itself.
                (Endpoint::SfuGet | Endpoint::GetToken, _) => Refusal::NoLeaves,
            })?;
        }
        if endpoint == Endpoint::DelegateDelayedLeave {
            return Ok(json!({}));
        }
        let FocusAnswer { url, jwt } = self.grant(&admission).await?;
        Ok(json!({ "url": url, "jwt": jwt }))
    }

    async fn grant(&self, admission: &Admission) -> Result<FocusAnswer, Refusal> {
        let answer = self.parts.foci.focus_for(admission).await?;
        let Admission { asker, conference, grants, .. } = admission;
        tracing::debug!(user = ?asker.user, %conference, ?grants, "a token was granted");
        Ok(answer)
    }

    async fn admit(&self, request: &TokenRequest) -> Result<Admission, Refusal> {
        // Who claims to be of another server needs no look-up to be refused.
        if request.member.claimed().is_some_and(|claimed| claimed.server() != &request.openid.server) {
            return Err(Refusal::NotTheClaimed);
        }
        let started = tokio::time::Instant::now();
        let (server, token) = (&request.openid.server, &request.openid.token);
        let remembered = self.parts.openid.remembered(server, token);
        let is_asked = remembered.is_none();
        let user = match remembered {
            Some(user) => Ok(user),
            None => self.parts.openid.user(server, token).await,
        };
        let took = started.elapsed();
        self.metrics.looked_up(is_asked.then_some(took), &user);
        let took_ms = took.as_millis() as u64;
        let user = user.map_err(|error| {
            let server = names::shortened(request.openid.server.as_str());
            tracing::debug!(%server, reason = %error, took_ms, "nobody vouched for a user");
            Refusal::from(error)
        })?;
        tracing::debug!(server = %request.openid.server, took_ms, "a homeserver said whose a token is");
        if request.member.claimed().is_some_and(|claimed| *claimed != user) {
            return Err(Refusal::NotTheClaimed);
        }
        self.decide(user, &request.room_id, &request.slot_id, &request.member).await
    }

    /// What somebody may do whom their homeserver has vouched for.
    async fn decide(
        &self,
        user: UserId,
        room_id: &str,
        slot_id: &str,
        member: &Member,
    ) -> Result<Admission, Refusal> {
        let conference = names::conference(room_id, slot_id);
        let identity = member.identity(&user);
        let asker = Asker { user, room_id: room_id.to_owned(), slot_id: slot_id.to_owned() };
        match self.parts.policy.decide(&asker).await {
            Ok(grants) => Ok(Admission { asker, conference, identity, grants }),
            Err(denied) => {
                tracing::debug!(user = ?asker.user, ?denied, "the policy grants nothing");
                Err(Refusal::from(denied))
            }
        }
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

async fn handle(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let path = service.path(request.uri().path());
    match (path, request.method()) {
        (None, _) => next.run(request).await,
        (Some(Path::Health), &Method::GET | &Method::HEAD) => "OK".into_response(),
        (Some(Path::Health), _) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        (Some(Path::Asked(asked)), method) => {
            let mut response = match (asked, method) {
                (Asked::Here(_), &Method::OPTIONS) => StatusCode::OK.into_response(),
                (_, &Method::POST) => service.respond(asked, request).await,
                _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
            };
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            // The homeserver does so itself for what it passes on.
            if matches!(asked, Asked::Here(_)) {
                allow_origins(headers);
            }
            response
        }
    }
}

impl Service {
    async fn respond(&self, asked: Asked, request: Request) -> Response {
        let started = tokio::time::Instant::now();
        let answer = match (asked, &self.parts.through) {
            (Asked::Here(endpoint), _) => self.answer(endpoint, request.into_body()).await,
            (Asked::Through(endpoint), Some(through)) => {
                self.answer_vouched(through, endpoint, request).await
            }
            (Asked::Through(_), None) => Err(Refusal::NotHere),
        };
        let took = started.elapsed();
        self.metrics.answered(asked, &answer, took);
        tracing::debug!(?asked, took_ms = took.as_millis() as u64, "a request was answered");
        match answer {
            Ok(answer) => (StatusCode::OK, axum::Json(answer)).into_response(),
            Err(refusal) => {
                tracing::debug!(?asked, reason = %refusal, "a token was refused");
                refusal.into_response()
            }
        }
    }
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Refusal::TooLarge),
        Ok(Err(_)) | Err(_) => Err(Refusal::Unfinished),
    }
}

/// Any web page may ask: what counts is the token that it brings. As clients of existing deployments know it.
fn allow_origins(headers: &mut HeaderMap) {
    let allowed = "Accept, Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization";
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
}
