//! Paths, tokens and status codes. Clients decide by the code whether to try again, try the older protocol, or give up.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{AdmissionError, OpenSocket, Server, now, websocket};
use crate::join::JoinParameters;
use crate::room::JoinError;
use crate::supervision::{Barred, Bearer};
use crate::token::{self, Claims, TokenError};

pub(super) fn router(server: Arc<Server>) -> Router {
    // One handler for all paths: deployments put a prefix before ours, and some clients double slashes.
    Router::new().fallback(handle).with_state(server)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Health,
    Join { v1: bool },
    Validate { v1: bool },
}

fn endpoint(path: &str) -> Option<Endpoint> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments[..] {
        [] => Some(Endpoint::Health),
        [.., "rtc", "v1", "validate"] => Some(Endpoint::Validate { v1: true }),
        [.., "rtc", "validate"] => Some(Endpoint::Validate { v1: false }),
        [.., "rtc", "v1"] => Some(Endpoint::Join { v1: true }),
        [.., "rtc"] => Some(Endpoint::Join { v1: false }),
        _ => None,
    }
}

async fn handle(State(server): State<Arc<Server>>, request: Request) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let is_preflight = request.method() == Method::OPTIONS;
    let endpoint = endpoint(request.uri().path());
    let is_validate = matches!(endpoint, Some(Endpoint::Validate { .. }));
    let method = request.method().clone();
    let mut response = match (&method, endpoint) {
        (&Method::OPTIONS, _) => StatusCode::NO_CONTENT.into_response(),
        (&Method::GET, Some(Endpoint::Health)) => "OK".into_response(),
        // Back online, web clients ask whether their base URL answers, under whichever prefix it is.
        (&Method::HEAD, Some(Endpoint::Health) | None) => "OK".into_response(),
        (_, None) => (StatusCode::NOT_FOUND, "there is nothing here\n").into_response(),
        (&Method::GET, Some(Endpoint::Join { v1 })) => join(server, request, v1).await,
        (&Method::GET, Some(Endpoint::Validate { v1 })) => match validate(server, request, v1).await {
            Ok(()) => "success".into_response(),
            Err(refusal) => refusal.into_response(),
        },
        (_, Some(_)) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    allow_origins(response.headers_mut(), origin, asked, is_validate, is_preflight);
    response
}

/// Any web page may use a focus: what counts is the token. Without these headers a browser hides even the status.
fn allow_origins(
    headers: &mut HeaderMap,
    origin: Option<HeaderValue>,
    asked: Option<HeaderValue>,
    any: bool,
    is_preflight: bool,
) {
    let any_origin = HeaderValue::from_static("*");
    let allowed = if any { any_origin } else { origin.unwrap_or(any_origin) };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if is_preflight {
        if let Some(asked) = asked {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
        }
        let methods = HeaderValue::from_static("OPTIONS, HEAD, GET, POST");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    }
}

/// Status and text of a request that is not served.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        Self(StatusCode::UNAUTHORIZED, error.to_string())
    }
}

impl From<AdmissionError> for Refusal {
    fn from(error: AdmissionError) -> Self {
        let status = match error {
            AdmissionError::Refused(JoinError::MetadataNotAllowed | JoinError::VoidToken) => {
                StatusCode::UNAUTHORIZED
            }
            AdmissionError::Refused(JoinError::TooLong) => StatusCode::BAD_REQUEST,
            AdmissionError::NoSuchRoom => StatusCode::NOT_FOUND,
            AdmissionError::Refused(JoinError::RoomFull)
            | AdmissionError::NotYet
            | AdmissionError::Full
            | AdmissionError::Closing => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

impl From<Barred> for Refusal {
    fn from(barred: Barred) -> Self {
        let status = match barred {
            Barred::Void => StatusCode::UNAUTHORIZED, // which clients take as final
            Barred::Unknown => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, barred.to_string())
    }
}

/// Everything that can be judged of the request without asking anybody.
fn admit(server: &Server, request: &Request, v1: bool) -> Result<(Claims, JoinParameters), Refusal> {
    let bad = |message: String| Refusal(StatusCode::BAD_REQUEST, message);
    let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
        .map_err(|error| bad(format!("the query is malformed: {error}")))?;
    let token = find_token(request.headers(), &query)?;
    let unix = (now().unix_ms / 1000).max(0) as u64;
    let claims = token::verify(&server.room_config.keys, token, unix)?;
    if !claims.video.room_join {
        let message = "the token does not grant roomJoin".to_owned();
        return Err(Refusal(StatusCode::UNAUTHORIZED, message));
    }
    let limit = server.room_config.limits.identity;
    for (what, text) in [("identity", claims.identity()), ("room name", claims.video.room.as_str())] {
        if text.is_empty() || text.chars().count() > limit {
            return Err(bad(format!("the token's {what} must have from 1 to {limit} characters")));
        }
    }
    let parameters = if v1 { JoinParameters::from_v1(&query) } else { JoinParameters::from_v0(&query) };
    let parameters = parameters.map_err(|error| bad(error.to_string()))?;
    server.check_admission(&claims, &parameters)?;
    Ok((claims, parameters))
}

/// Clients ask when their WebSocket failed, to learn why: what only the room could say is said here as well.
async fn validate(server: Arc<Server>, request: Request, v1: bool) -> Result<(), Refusal> {
    let (claims, parameters) = admit(&server, &request, v1)?;
    drop(request);
    server.supervision.gate.admit(&Bearer::new(&claims)).await?;
    if parameters.resume.is_none() && server.is_full(&claims.video.room) {
        return Err(AdmissionError::Refused(JoinError::RoomFull).into());
    }
    Ok(())
}

/// The header wins over the query.
fn find_token<'a>(headers: &'a HeaderMap, query: &'a [(String, String)]) -> Result<&'a str, TokenError> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        return value.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).ok_or(TokenError::Header);
    }
    let token = query.iter().find(|(key, _)| key == "access_token").map(|(_, token)| token.as_str());
    token.filter(|token| !token.is_empty()).ok_or(TokenError::Missing)
}

/// The room is entered before the upgrade is granted, so that a refusal is a status code.
async fn join(server: Arc<Server>, request: Request, v1: bool) -> Response {
    server.metrics.join_requests.inc();
    let asked_at = tokio::time::Instant::now();
    let is_upgrade = request.headers().get(header::UPGRADE).is_some();
    if !is_upgrade {
        return (StatusCode::NOT_FOUND, "this path takes WebSocket connections only\n").into_response();
    }
    let refuse = |refusal: Refusal| {
        tracing::info!(status = refusal.0.as_u16(), reason = %refusal.1, "a join was refused");
        server.metrics.join_refusals.inc();
        refusal.into_response()
    };
    let (claims, parameters) = match admit(&server, &request, v1) {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(refusal),
    };
    if let Err(barred) = server.supervision.gate.admit(&Bearer::new(&claims)).await {
        return refuse(barred.into());
    }
    let (mut parts, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response().map(Body::new),
    };
    let joined = match server.join(asked_at, claims, parameters).await {
        Ok(joined) => joined,
        Err(error) => return refuse(error.into()),
    };
    let upgrade = upgrade
        .max_message_size(websocket::MAX_MESSAGE_BYTES)
        .max_frame_size(websocket::MAX_MESSAGE_BYTES)
        .read_buffer_size(websocket::READ_BUFFER_BYTES);
    let (connection, inputs) = (joined.connection, joined.room.clone());
    let failed = move |_| {
        if let Some(inputs) = inputs {
            let _ = inputs.try_send(super::Input::Closed { connection });
        }
    };
    let open = OpenSocket::new(Arc::clone(&server));
    upgrade.on_failed_upgrade(failed).on_upgrade(move |socket| async move {
        websocket::serve(server, socket, joined).await;
        drop(open);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_behind_prefixes_and_doubled_slashes() {
        assert_eq!(endpoint("/"), Some(Endpoint::Health));
        assert_eq!(endpoint("/rtc"), Some(Endpoint::Join { v1: false }));
        assert_eq!(endpoint("//rtc/v1"), Some(Endpoint::Join { v1: true }));
        assert_eq!(endpoint("/livekit/sfu/rtc/v1/validate"), Some(Endpoint::Validate { v1: true }));
        assert_eq!(endpoint("/rtc/validate"), Some(Endpoint::Validate { v1: false }));
        assert_eq!(endpoint("/rtc/v2"), None);
        assert_eq!(endpoint("/metrics"), None);
    }

    #[test]
    fn refusals_have_the_status_that_clients_act_on() {
        let status = |error: AdmissionError| Refusal::from(error).0.as_u16();
        assert_eq!(status(AdmissionError::Refused(JoinError::RoomFull)), 503);
        assert_eq!(status(AdmissionError::NoSuchRoom), 404);
        assert_eq!(status(AdmissionError::Refused(JoinError::MetadataNotAllowed)), 401);
        assert_eq!(AdmissionError::NoSuchRoom.to_string(), "requested room does not exist");
    }
}
