//! The WebSocket: it opens, and the focus answers an offer.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Ask;
use proto::signal_response::Message as Answer;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::homeserver::unreached;
use crate::web::Stream;
use crate::{Verdict, Walk};

/// The last whose messages the web clients of today know.
const PROTOCOL: i32 = 17;
/// A focus that has opened the WebSocket answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A focus may send its candidates after its answer, for about this long.
const TRICKLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Nobody announces more; each is tried.
const MAX_CANDIDATES: usize = 32;
/// Our user fragment: checks of one connection need not be told apart.
pub const UFRAG: &str = "wchk";

const UPGRADES: &str =
    "let the reverse proxy pass WebSocket upgrades on: headers Upgrade and Connection, HTTP/1.1";

/// A data channel and nothing else. Nobody gets as far as its certificate.
const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:wchk\r\n\
    a=ice-pwd:weirCheckWeirCheckWeirCheck\r\na=ice-options:trickle\r\na=fingerprint:sha-256 \
    00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
    a=setup:actpass\r\na=mid:0\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";

/// A place where media are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub is_tcp: bool,
    pub address: IpAddr,
    pub port: u16,
}

/// A join, and what it told us.
pub struct Session {
    socket: WebSocketStream<Box<dyn Stream>>,
    pub ufrag: String,
    pub password: String,
    pub candidates: Vec<Candidate>,
}

impl Session {
    pub async fn leave(mut self) {
        let leave = proto::SignalRequest { message: Some(Ask::Leave(proto::LeaveRequest::default())) };
        // It ends anyway.
        let _ = self.socket.send(Message::binary(leave.encode_to_vec())).await;
        let _ = self.socket.close(None).await;
    }
}

pub async fn join(walk: &mut Walk) -> Verdict {
    let Some(grant) = &walk.grant else { return unreached() };
    if grant.url.starts_with("ws://") && walk.base.as_deref().is_some_and(|base| base.starts_with("https://"))
    {
        return Verdict::failed(
            format!("{} has no TLS, and browsers let no page go there", grant.url),
            "let matrix.url begin with wss://, behind a reverse proxy that adds TLS",
        );
    }
    let stream = match walk.web.connect(&grant.url).await {
        Ok(stream) => stream,
        Err(error) => return Verdict::failed(format!("{}: {error}", grant.url), error.remedy()),
    };
    let url = format!("{}/rtc/v1?access_token={}&join_request={}", grant.url, grant.jwt, join_request());
    let opening = tokio_tungstenite::client_async(url, stream);
    let socket = match tokio::time::timeout(ANSWER_TIMEOUT, opening).await {
        Ok(Ok((socket, _))) => socket,
        Ok(Err(error)) => return refused(&grant.url, error),
        Err(_) => {
            return Verdict::failed(
                format!("{}: no answer to the upgrade", grant.url),
                "let the reverse proxy pass WebSocket upgrades on at once, without buffering",
            );
        }
    };
    match tokio::time::timeout(ANSWER_TIMEOUT + TRICKLE_TIMEOUT, listen(socket)).await {
        Ok(Some((session, server))) => {
            walk.session = Some(session);
            Verdict::passed(format!("joined at {server}"))
        }
        Ok(None) | Err(_) => Verdict::failed(
            format!("{}: the WebSocket opens, but the join is not answered", grant.url),
            "let the reverse proxy pass WebSocket messages on at once, without buffering",
        ),
    }
}

fn join_request() -> String {
    let request = proto::JoinRequest {
        client_info: Some(proto::ClientInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            ..proto::ClientInfo::default()
        }),
        connection_settings: Some(proto::ConnectionSettings::default()),
        publisher_offer: Some(proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp: OFFER.to_owned(),
            id: 1,
            ..proto::SessionDescription::default()
        }),
        ..proto::JoinRequest::default()
    };
    let wrapped = proto::WrappedJoinRequest { join_request: request.encode_to_vec(), ..Default::default() };
    BASE64_URL_SAFE_NO_PAD.encode(wrapped.encode_to_vec())
}

fn refused(url: &str, error: tungstenite::Error) -> Verdict {
    let tungstenite::Error::Http(response) = error else {
        return Verdict::failed(format!("{url}: {error}"), UPGRADES);
    };
    let status = response.status();
    let said = response.body().as_ref().map(|body| String::from_utf8_lossy(body).trim().to_owned());
    let said = said.unwrap_or_default();
    let remedy = remedy(status.as_u16(), &said);
    Verdict::failed(format!("{url}: refused with status {status} {said}"), remedy)
}

/// By the words where the status has several reasons. A focus or a proxy that says none of them is judged by the status.
fn remedy(status: u16, said: &str) -> &'static str {
    const REASONS: [(u16, &str, &str); 8] = [
        (
            404,
            "room does not exist",
            "let matrix.creators hold the user's server, or have somebody of it begin the call first",
        ),
        (404, "WebSocket connections only", UPGRADES),
        (503, "the room is full", "raise limits.participants_per_room, or choose another --room"),
        (503, "no more rooms", "wait until calls have ended, or add a focus"),
        (
            503,
            "just started",
            "check again half a minute after its start; nobody has begun the call yet, and this user may not: let \
             matrix.creators hold the user's server",
        ),
        (503, "shutting down", "start it again, or wait until it is back"),
        (
            503,
            "cannot be found out",
            "let the focus reach the homeserver at matrix.homeserver_url or matrix.user.homeserver_url, and read its log",
        ),
        (401, "no longer good", "give a room with --room that the user is in"),
    ];
    let reason = REASONS.iter().find(|(known, words, _)| *known == status && said.contains(words));
    match (reason, status) {
        (Some((.., remedy)), _) => remedy,
        (None, 401 | 403) => "let the service and the focus have the same key, and their clocks agree",
        (None, 404) => {
            "let the reverse proxy pass the path of matrix.url, with /rtc/v1 behind it, to the focus"
        }
        (None, 502..=504) => "start the focus, and let the reverse proxy pass matrix.url to http.bind",
        _ => UPGRADES,
    }
}

/// Until there is an answer with candidates; with what the focus calls itself.
async fn listen(mut socket: WebSocketStream<Box<dyn Stream>>) -> Option<(Session, String)> {
    let mut server = None;
    let mut description = None;
    let mut candidates = Vec::new();
    let patience = tokio::time::sleep(ANSWER_TIMEOUT);
    tokio::pin!(patience);
    loop {
        let message = tokio::select! {
            message = socket.next() => message?.ok()?,
            () = &mut patience => break,
        };
        let Message::Binary(bytes) = message else { continue };
        match proto::SignalResponse::decode(bytes).ok()?.message? {
            Answer::Join(join) => {
                let info = join.server_info.unwrap_or_default();
                server = Some(format!("{} {}", info.node_id, info.version));
            }
            Answer::Answer(answer) => {
                candidates.extend(parse_candidates(&answer.sdp));
                description = Some(answer.sdp);
                if !candidates.is_empty() {
                    break;
                }
                patience.as_mut().reset(tokio::time::Instant::now() + TRICKLE_TIMEOUT);
            }
            Answer::Trickle(trickle) => candidates.extend(parse_candidates(&trickle.candidate_init)),
            Answer::Leave(_) => return None,
            _ => {}
        }
    }
    candidates.truncate(MAX_CANDIDATES);
    let description = description?;
    let attribute = |name: &str| {
        description.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let session =
        Session { ufrag: attribute("a=ice-ufrag:")?, password: attribute("a=ice-pwd:")?, socket, candidates };
    Some((session, server?))
}

/// From lines of SDP, or from JSON that holds one. Names that hide addresses lead nowhere from here.
fn parse_candidates(text: &str) -> impl Iterator<Item = Candidate> {
    text.split("candidate:").skip(1).filter_map(|candidate| {
        let mut fields = candidate.split([' ', '\r', '\n', '"']);
        let protocol = fields.nth(2)?.to_ascii_lowercase();
        let address = fields.nth(1)?.parse().ok()?;
        let port = fields.next()?.parse().ok()?;
        Some(Candidate { is_tcp: protocol == "tcp", address, port })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_with_several_reasons_is_told_by_its_words() {
        for (status, said, expected) in [
            (404, "requested room does not exist", "matrix.creators"),
            (404, "this path takes WebSocket connections only\n", "Upgrade"),
            (404, "there is nothing here\n", "the path of matrix.url"),
            (503, "the room is full", "limits.participants_per_room"),
            (503, "the focus takes no more rooms", "add a focus"),
            (503, "the focus has just started, and nobody has opened the room yet", "half a minute"),
            (503, "the focus is shutting down", "start it again"),
            (503, "whether the token is still good cannot be found out at present", "homeserver_url"),
            (503, "", "http.bind"),
            (502, "<html>Bad Gateway</html>", "http.bind"),
            (401, "the token is no longer good: ask for a new one", "--room"),
            (401, "the token is not valid yet", "clocks"),
            (400, "", "Upgrade"),
        ] {
            assert!(remedy(status, said).contains(expected), "{status} {said}: {}", remedy(status, said));
        }
    }

    #[test]
    fn candidates_are_read_from_descriptions_and_from_what_trickles() {
        let sdp = "a=candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host\r\na=candidate:2 1 TCP 1 2001:db8::1 7881 typ host \
                   tcptype passive\r\na=candidate:3 1 udp 1 host.local 9 typ host\r\n";
        let found: Vec<_> = parse_candidates(sdp).collect();
        let expected = [("192.0.2.1", 7882, false), ("2001:db8::1", 7881, true)]
            .map(|(address, port, is_tcp)| Candidate { is_tcp, address: address.parse().unwrap(), port });
        assert_eq!(found, expected);
        let json = "{\"candidate\":\"candidate:1 1 udp 1 192.0.2.1 7882 typ host\",\"sdpMid\":\"0\"}";
        assert_eq!(parse_candidates(json).collect::<Vec<_>>(), expected[..1]);
    }
}
