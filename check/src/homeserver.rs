//! From a server name to its homeserver, and to what that announces.

use hyper::StatusCode;
use serde_json::Value;

use crate::{Verdict, Walk};

const WELL_KNOWN: &str = "/.well-known/matrix/client";
const TRANSPORTS: &str = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports";
const CORS_REMEDY: &str = "let the server or the proxy in front add `Access-Control-Allow-Origin: *`";

/// Server discovery as clients do it (<https://spec.matrix.org/latest/client-server-api/#server-discovery>).
pub async fn find(walk: &mut Walk) -> Verdict {
    let server = walk.options.server.trim_end_matches('/').to_owned();
    let base = if server.contains("://") {
        server
    } else {
        match discover(walk, &server).await {
            Ok(base) => base,
            Err(verdict) => return verdict,
        }
    };
    let url = format!("{base}/_matrix/client/versions");
    let reply = match walk.web.get(&url, None).await {
        Ok(reply) => reply,
        Err(error) => return Verdict::failed(format!("{url}: {error}"), error.remedy()),
    };
    let Some(versions) =
        reply.json().filter(|json| reply.status == StatusCode::OK && json["versions"].is_array())
    else {
        return Verdict::failed(
            format!("{url}: {}, {:?} instead of a homeserver's versions", reply.status, reply.excerpt()),
            "let m.homeserver.base_url in .well-known/matrix/client point at the homeserver's client API",
        );
    };
    if !reply.is_shown_to_pages() {
        return Verdict::failed(format!("{url} is not shown to pages of other origins"), CORS_REMEDY);
    }
    walk.base = Some(base.clone());
    Verdict::Passed { detail: base, remarks: remarks(&versions["unstable_features"]) }
}

/// What a homeserver lacks without that a call would fail for it.
fn remarks(features: &Value) -> Vec<String> {
    let has = |feature: &str| features[feature].as_bool() == Some(true);
    let mut remarks = Vec::new();
    if !has("org.matrix.msc4140") {
        let remark = "it takes no delayed events, so whoever loses the line stays in the call for hours: set \
                      max_event_delay_duration in Synapse";
        remarks.push(remark.to_owned());
    }
    if !has("org.matrix.msc4354") {
        let remark = "it takes no sticky events, which clients in the mode matrix_2_0 need: set \
                      experimental_features.msc4354_enabled in Synapse";
        remarks.push(remark.to_owned());
    }
    remarks
}

async fn discover(walk: &mut Walk, server: &str) -> Result<String, Verdict> {
    // An IPv6 literal keeps its brackets.
    let host = match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => server,
    };
    let url = format!("https://{host}{WELL_KNOWN}");
    let reply = walk
        .web
        .get(&url, None)
        .await
        .map_err(|error| Verdict::failed(format!("{url}: {error}"), error.remedy()))?;
    if reply.status == StatusCode::NOT_FOUND {
        return Ok(format!("https://{host}"));
    }
    let serve = "let it answer with status 200 and JSON that has m.homeserver.base_url, or with 404";
    if reply.status != StatusCode::OK {
        return Err(Verdict::failed(format!("{url}: {}", reply.status), serve));
    }
    let Some(json) = reply.json() else {
        return Err(Verdict::failed(format!("{url}: {:?} is not JSON", reply.excerpt()), serve));
    };
    if !reply.is_shown_to_pages() {
        return Err(Verdict::failed(format!("{url} is not shown to pages of other origins"), CORS_REMEDY));
    }
    walk.announced_long_ago =
        Livekit::first(&json["org.matrix.msc4143.rtc_foci"]).and_then(|first| first.service);
    let base = json["m.homeserver"]["base_url"].as_str().map(|base| base.trim_end_matches('/').to_owned());
    base.ok_or_else(|| Verdict::failed(format!("{url} has no m.homeserver.base_url"), serve))
}

/// A transport that is LiveKit's.
struct Livekit {
    /// Where clients of today ask for tokens.
    service: Option<String>,
    /// The focus itself; clients that look for it ask their homeserver for tokens.
    url: Option<String>,
}

impl Livekit {
    /// The first: clients take that, too.
    fn first(transports: &Value) -> Option<Self> {
        let first =
            transports.as_array()?.iter().find(|transport| transport["type"].as_str() == Some("livekit"))?;
        let text = |key: &str| first[key].as_str().map(str::to_owned);
        let service = text("livekit_service_url").map(|url| url.trim_end_matches('/').to_owned());
        Some(Self { service, url: text("url") })
    }
}

/// What the homeserver tells clients to use.
pub async fn transports(walk: &mut Walk) -> Verdict {
    let Some(base) = &walk.base else { return unreached() };
    let url = format!("{base}{TRANSPORTS}");
    let token = walk.options.access_token.as_deref();
    let reply = match walk.web.get(&url, token).await {
        Ok(reply) => reply,
        Err(error) => return Verdict::failed(format!("{url}: {error}"), error.remedy()),
    };
    let announce = "set matrix_rtc.transports in Synapse to a transport of type livekit with the livekit_service_url \
                    of the focus, and experimental_features.msc4143_enabled";
    if reply.status == StatusCode::NOT_FOUND {
        return Verdict::failed(format!("{url}: the homeserver has no such endpoint"), announce);
    }
    if reply.status == StatusCode::UNAUTHORIZED && token.is_some() {
        return Verdict::failed(
            "the homeserver does not know the access token",
            "take one of a session that lives",
        );
    }
    if reply.status == StatusCode::UNAUTHORIZED {
        // It is there, but tells only its users.
        return match walk.announced_long_ago.clone() {
            Some(service) => {
                walk.service = Some(service.clone());
                let remarks = vec![
                    "what clients are told now cannot be seen without --access-token; this is what \
                     .well-known tells older ones"
                        .to_owned(),
                ];
                Verdict::Passed { detail: service, remarks }
            }
            None => Verdict::Unknown {
                why: "the homeserver tells only its users: give --access-token".to_owned(),
            },
        };
    }
    let Some(json) = reply.json().filter(|_| reply.status == StatusCode::OK) else {
        return Verdict::failed(format!("{url}: {}, {:?}", reply.status, reply.excerpt()), announce);
    };
    if !reply.is_shown_to_pages() {
        return Verdict::failed(format!("{url} is not shown to pages of other origins"), CORS_REMEDY);
    }
    let Some(Livekit { service: Some(service), url: focus }) = Livekit::first(&json["rtc_transports"]) else {
        return Verdict::failed(
            format!(
                "{url} names no transport of type livekit with a livekit_service_url: {}",
                reply.excerpt()
            ),
            announce,
        );
    };
    let mut remarks = Vec::new();
    if walk.announced_long_ago.as_ref().is_some_and(|long_ago| *long_ago != service) {
        let remark = ".well-known/matrix/client tells older clients another one (org.matrix.msc4143.rtc_foci): let them agree";
        remarks.push(remark.to_owned());
    }
    walk.service = Some(service.clone());
    walk.focus = focus;
    Verdict::Passed { detail: service, remarks }
}

/// A hop that comes without those before it.
pub fn unreached() -> Verdict {
    Verdict::Unknown { why: "the hops before it did not get there".to_owned() }
}
