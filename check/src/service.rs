//! The authorisation service: it answers, lets pages ask, and gives a token.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use hyper::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::homeserver::unreached;
use crate::{Verdict, Walk};

/// The device that asks. It has none of its own, and nobody waits for it.
const DEVICE: &str = "WEIRCHECK";
/// The room-wide call.
const SLOT: &str = "m.call#ROOM";
/// Where a homeserver passes requests for tokens on (MSC4195).
const THROUGH_HOMESERVER: &str = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token";
/// What clients post to: the present endpoint, and the one before.
const ENDPOINTS: [&str; 2] = ["get_token", "sfu/get"];

/// Where to connect, and by what right.
pub struct Grant {
    pub url: String,
    pub jwt: String,
}

pub async fn answers(walk: &mut Walk) -> Verdict {
    let Some(service) = &walk.service else { return unreached() };
    if service.starts_with("http://") && !is_this_machine(service) {
        return Verdict::failed(
            format!("{service} has no TLS, and browsers let no page go there"),
            "announce it with https://, behind a reverse proxy that adds TLS",
        );
    }
    let url = format!("{service}/healthz");
    match walk.web.get(&url, None).await {
        Err(error) => Verdict::failed(format!("{url}: {error}"), error.remedy()),
        Ok(reply) if reply.status.is_success() => Verdict::passed(url),
        Ok(reply) => Verdict::failed(
            format!("{url}: {}, {:?}", reply.status, reply.excerpt()),
            "let the reverse proxy pass this path to the focus, whose matrix.prefix is the path that the proxy sends",
        ),
    }
}

fn is_this_machine(url: &str) -> bool {
    let host = url.split("://").nth(1).unwrap_or(url);
    host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]")
}

pub async fn lets_pages_ask(walk: &mut Walk) -> Verdict {
    let Some(service) = &walk.service else { return unreached() };
    for endpoint in ENDPOINTS {
        let url = format!("{service}/{endpoint}");
        let reply = match walk.web.preflight(&url).await {
            Ok(reply) => reply,
            Err(error) => return Verdict::failed(format!("OPTIONS {url}: {error}"), error.remedy()),
        };
        let lacks = if !reply.status.is_success() {
            format!("the status is {}", reply.status)
        } else if !reply.is_shown_to_pages() {
            "it lets in no page of another origin".to_owned()
        } else if !reply.lets_json_through() {
            "it lets no page send JSON".to_owned()
        } else {
            continue;
        };
        return Verdict::failed(
            format!("OPTIONS {url}: {lacks}"),
            "let the reverse proxy pass OPTIONS on, and neither answer it nor take the focus's CORS headers off",
        );
    }
    Verdict::passed(ENDPOINTS.map(|endpoint| format!("/{endpoint}")).join(" and "))
}

pub async fn gives_a_token(walk: &mut Walk) -> Verdict {
    let (Some(base), Some(service)) = (&walk.base, &walk.service) else { return unreached() };
    let Some(token) = walk.options.access_token.as_deref() else {
        return Verdict::Unknown {
            why: "only a user of the homeserver gets one: give --access-token".to_owned(),
        };
    };
    let (user, open_id) = match identify(walk, base, token).await {
        Ok(identity) => identity,
        Err(verdict) => return verdict,
    };
    let room = walk.options.room.clone().unwrap_or_else(|| {
        let server = user.split_once(':').map_or("", |(_, server)| server);
        format!("!weir-check:{server}")
    });
    let url = format!("{service}/get_token");
    let body = json!({
        "room_id": room, "slot_id": SLOT, "openid_token": open_id,
        "member": { "id": DEVICE, "claimed_user_id": user, "claimed_device_id": DEVICE },
    });
    let reply = match walk.web.post(&url, None, &body).await {
        Ok(reply) => reply,
        Err(error) => return Verdict::failed(format!("{url}: {error}"), error.remedy()),
    };
    let json = reply.json().unwrap_or_default();
    if reply.status != StatusCode::OK {
        return Verdict::failed(
            format!("{url}: {}, {}", reply.status, reply.excerpt()),
            refusal(reply.status),
        );
    }
    if !reply.is_shown_to_pages() {
        return Verdict::failed(
            format!("{url} is not shown to pages of other origins"),
            "let the reverse proxy keep the focus's CORS headers",
        );
    }
    let (Some(address), Some(jwt)) = (json["url"].as_str(), json["jwt"].as_str()) else {
        return Verdict::failed(
            format!("{url}: the answer has no url and jwt"),
            "look for what answers in the place of the service",
        );
    };
    if !is_readable(jwt) {
        return Verdict::failed(
            "clients cannot read the token: its claims are not ASCII that atob takes",
            "choose names of keys and conferences without ?, >, ~ and other than ASCII characters",
        );
    }
    let grant = Grant { url: address.trim_end_matches('/').to_owned(), jwt: jwt.to_owned() };
    let detail = match &walk.focus {
        None => format!("for {address}"),
        Some(focus) => match asks_the_homeserver(walk, base, token, &room, focus).await {
            Ok(()) => format!("for {address}, also through the homeserver"),
            Err(verdict) => return verdict,
        },
    };
    walk.grant = Some(grant);
    Verdict::passed(detail)
}

/// As clients do that find the focus itself announced. They do not fall back to the service where they send themselves.
async fn asks_the_homeserver(
    walk: &Walk,
    base: &str,
    token: &str,
    room: &str,
    focus: &str,
) -> Result<(), Verdict> {
    let url = format!("{base}{THROUGH_HOMESERVER}");
    let body = json!({ "url": focus, "room_id": room, "slot_id": SLOT, "member_id": DEVICE });
    let reply = walk.web.post(&url, Some(token), &body).await;
    let reply = reply.map_err(|error| Verdict::failed(format!("{url}: {error}"), error.remedy()))?;
    if reply.status != StatusCode::OK {
        let remedy = match reply.status {
            StatusCode::NOT_FOUND => {
                "let the homeserver pass requests for tokens on (matrix.appservice.tokens in Weir, with a registration \
                 of `weir appservice generate --tokens`, and experimental_features.msc4512_enabled in Synapse), or \
                 announce no url"
            }
            StatusCode::BAD_REQUEST => "announce as url what matrix.url of Weir says",
            StatusCode::FORBIDDEN => refusal(StatusCode::FORBIDDEN),
            StatusCode::UNAUTHORIZED => {
                "let homeserver and focus read the same registration, and restart both"
            }
            _ => {
                "read the logs of the homeserver and of the focus: the one must reach the other at the \
                 io.element.msc4512.proxy_url of the registration"
            }
        };
        return Err(Verdict::failed(
            format!(
                "{url}: {}, {}: clients ask there, since the transport has a url",
                reply.status,
                reply.excerpt()
            ),
            remedy,
        ));
    }
    let jwt = reply.json().unwrap_or_default();
    if !jwt["jwt"].as_str().is_some_and(is_readable) {
        return Err(Verdict::failed(
            format!("{url}: the answer has no token that clients can read"),
            "look for what answers in the place of the focus",
        ));
    }
    Ok(())
}

/// Who the access token is of, and the token by which others may ask the homeserver.
async fn identify(walk: &Walk, base: &str, token: &str) -> Result<(String, Value), Verdict> {
    let ask = |url: String, posts: bool| async move {
        let reply = match posts {
            true => walk.web.post(&url, Some(token), &json!({})).await,
            false => walk.web.get(&url, Some(token)).await,
        };
        let reply = reply.map_err(|error| Verdict::failed(format!("{url}: {error}"), error.remedy()))?;
        reply.json().filter(|_| reply.status == StatusCode::OK).ok_or_else(|| {
            Verdict::failed(
                format!("the homeserver refuses the access token: {}, {}", reply.status, reply.excerpt()),
                "take one of a session that lives",
            )
        })
    };
    let who = ask(format!("{base}/_matrix/client/v3/account/whoami"), false).await?;
    let user = who["user_id"].as_str().unwrap_or_default().to_owned();
    let path = utf8_percent_encode(&user, NON_ALPHANUMERIC);
    let open_id = ask(format!("{base}/_matrix/client/v3/user/{path}/openid/request_token"), true).await?;
    Ok((user, open_id))
}

/// What a refusal wants changed.
fn refusal(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => {
            "let the focus reach the homeserver's federation API (/_matrix/federation/v1/openid/userinfo): at \
             matrix.homeserver_url, where Synapse's listener needs the resource \"openid\" or \"federation\", or \
             without that by federation; and let the user be of the server that matrix.server_name says"
        }
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            "give a room of the user with --room, and let matrix.creators hold the user's server"
        }
        StatusCode::TOO_MANY_REQUESTS => {
            "wait and check again: this user has asked for more than a hundred new conferences in five minutes, or the \
             user's server for more than matrix.openid.lookups_per_second"
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            "wait and check again: the focus takes no more conferences, or cannot ask the homeserver at \
             matrix.homeserver_url"
        }
        _ => "read the log of the focus: it says why",
    }
}

/// Clients decode the claims by `atob`, which knows the standard alphabet alone.
fn is_readable(jwt: &str) -> bool {
    let claims = jwt.split('.').nth(1).unwrap_or_default();
    let decoded = BASE64_STANDARD_NO_PAD.decode(claims).ok();
    let claims: Option<Value> = decoded.and_then(|claims| serde_json::from_slice(&claims).ok());
    claims.is_some_and(|claims| claims["sub"].is_string() && claims["video"]["room"].is_string())
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn a_token_that_atob_refuses_is_noticed() {
        let jwt = |room: &str| {
            let claims = json!({ "sub": "alice", "video": { "room": room } }).to_string();
            format!("e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(claims))
        };
        assert!(is_readable(&jwt("plain")));
        assert!(["?", "??", "???"].iter().any(|room| !is_readable(&jwt(room))));
        assert!(!is_readable("e30.e30.x") && !is_readable(""));
    }

    #[test]
    fn only_this_machine_needs_no_tls() {
        assert!(is_this_machine("http://127.0.0.1:7880/livekit/jwt"));
        assert!(!is_this_machine("http://192.0.2.1/livekit/jwt"));
    }
}
