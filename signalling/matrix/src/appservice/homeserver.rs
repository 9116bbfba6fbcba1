//! What the application service asks its homeserver.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Registration;
use crate::leaves::Answer;
use crate::names::{ServerName, UserId};
use crate::openid::{Home, Http, OpenId};
use crate::rooms::{Members, MembersError};
use crate::service::{DelayedEvent, OwnHomeserver, Relayed, Unanswered};
use crate::uri::encoded;

/// Until an answer is there. A homeserver reads the members of a large room from its disk.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Bytes of an answer: 150 for each member with a name and a picture, and rooms have 100,000.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// Until another homeserver has answered ours. Ours tries several addresses, each for some seconds.
const RELAY_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of an answer of another homeserver, or of a delayed event, whose content may have 64 KiB.
const MAX_SMALL_ANSWER_BYTES: usize = 128 * 1024;
/// Where it is asked to send a request to another homeserver (MSC4512).
const FED_PROXY: &str = "/_matrix/client/unstable/io.element.msc4512/appservice/fed_proxy";
/// Where delayed events are (MSC4140): as deployed, and as accepted.
const DELAYED_EVENTS: [&str; 2] =
    ["/_matrix/client/unstable/org.matrix.msc4140/delayed_events", "/_matrix/client/v1/delayed_events"];

/// A homeserver, as its application service sees it.
#[derive(Clone)]
pub struct Homeserver {
    http: Http,
    home: Home,
    authorization: String,
    id: String,
}

#[derive(Deserialize)]
struct JoinedMembers {
    joined: HashMap<String, serde::de::IgnoredAny>,
}

/// What another homeserver answered, as ours tells it.
#[derive(Deserialize)]
struct FarAnswer {
    status: u16,
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
struct ScheduledEvent {
    room_id: String,
    delay_ms: Option<u64>,
    /// As it was called before.
    delay: Option<u64>,
}

/// What is asked, and how long and how much of an answer is waited for.
struct Question<'a> {
    method: Method,
    path: &'a str,
    body: String,
    timeout: Duration,
    most: usize,
}

impl<'a> Question<'a> {
    fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, body: String::new(), timeout: TIMEOUT, most: MAX_ANSWER_BYTES }
    }
}

impl Homeserver {
    /// Where `openid` asks it as well; `None` if that has no address for it.
    pub fn new(openid: &OpenId, registration: &Registration) -> Option<Self> {
        Some(Self {
            http: openid.http(),
            home: openid.home()?.clone(),
            authorization: format!("Bearer {}", registration.as_token),
            id: registration.id.clone(),
        })
    }

    /// Has the homeserver try whether it reaches us. If it does, it pushes at once what has waited.
    pub async fn ping(&self) -> Result<(), MembersError> {
        let path = format!("/_matrix/client/v1/appservice/{}/ping", encoded(&self.id));
        let question = Question { body: "{}".to_owned(), ..Question::new(Method::POST, &path) };
        let (status, body) = self.ask(question).await?;
        if status.is_success() { Ok(()) } else { Err(unexpected(status, &body)) }
    }

    async fn ask(&self, question: Question<'_>) -> Result<(StatusCode, Bytes), MembersError> {
        let Question { method, path, body, timeout, most } = question;
        let request = self
            .home
            .request(method, path)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(failed)?;
        let asking = self.home.send(&self.http, request, most);
        let answer = tokio::time::timeout(timeout, asking).await.map_err(|_| MembersError::TooLate)?;
        answer.map(|answer| (answer.status, answer.body)).map_err(failed)
    }
}

impl Members for Homeserver {
    fn members<'a>(
        &'a self,
        room_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<HashSet<UserId>>, MembersError>> {
        Box::pin(async move {
            let path = format!("/_matrix/client/v3/rooms/{}/joined_members", encoded(room_id));
            let (status, body) = self.ask(Question::new(Method::GET, &path)).await?;
            match status {
                StatusCode::OK => {
                    // A room of 100,000 takes a tenth of a second, in which nobody else would be served.
                    let reading = tokio::task::spawn_blocking(move || read_members(&body));
                    Ok(Some(reading.await.map_err(failed)?.map_err(failed)?))
                }
                // No user of this homeserver is in it, or there is no such room.
                StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(None),
                _ => Err(unexpected(status, &body)),
            }
        })
    }

    fn server(&self) -> Option<&ServerName> {
        Some(self.home.server())
    }
}

impl OwnHomeserver for Homeserver {
    fn relay<'a>(
        &'a self,
        to: &'a ServerName,
        path: &'static str,
        body: Value,
    ) -> BoxFuture<'a, Result<Relayed, Unanswered>> {
        Box::pin(async move {
            let body = json!({ "destination": to.as_str(), "method": "POST", "path": path, "body": body })
                .to_string();
            let (timeout, most) = (RELAY_TIMEOUT, MAX_SMALL_ANSWER_BYTES);
            let question = Question { body, timeout, most, ..Question::new(Method::POST, FED_PROXY) };
            let (status, body) = self.ask(question).await?;
            if status != StatusCode::OK {
                return Err(unexpected(status, &body).into());
            }
            let FarAnswer { status, content } = serde_json::from_slice(&body).map_err(failed)?;
            Ok((status, content))
        })
    }

    fn delayed_event<'a>(
        &'a self,
        user: &'a UserId,
        delay_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<DelayedEvent>, Unanswered>> {
        Box::pin(async move {
            let mut unknown = None;
            for base in DELAYED_EVENTS {
                let path = format!("{base}/{}?user_id={}", encoded(delay_id), encoded(user.as_str()));
                let most = MAX_SMALL_ANSWER_BYTES;
                let (status, body) = self.ask(Question { most, ..Question::new(Method::GET, &path) }).await?;
                match (status, Answer::read(status.as_u16(), None, &body)) {
                    (StatusCode::OK, _) => {
                        let event: ScheduledEvent = serde_json::from_slice(&body).map_err(failed)?;
                        let delay =
                            event.delay_ms.or(event.delay).ok_or_else(|| failed("it has no delay"))?;
                        let delay = Duration::from_millis(delay);
                        return Ok(Some(DelayedEvent { room_id: event.room_id, delay }));
                    }
                    (_, Answer::Gone) => return Ok(None),
                    (_, Answer::Unrecognised) => unknown = Some(unexpected(status, &body)),
                    _ => return Err(unexpected(status, &body).into()),
                }
            }
            unknown.map_or(Ok(None), |error| Err(error.into()))
        })
    }
}

impl From<MembersError> for Unanswered {
    fn from(error: MembersError) -> Self {
        Self(error.to_string())
    }
}

fn read_members(body: &[u8]) -> serde_json::Result<HashSet<UserId>> {
    let JoinedMembers { joined } = serde_json::from_slice(body)?;
    Ok(joined.keys().filter_map(|id| UserId::parse(id)).collect())
}

fn failed(error: impl std::fmt::Display) -> MembersError {
    MembersError::Failed(error.to_string())
}

fn unexpected(status: StatusCode, body: &[u8]) -> MembersError {
    /// Enough of an answer to find the cause by.
    const SHOWN: usize = 200;
    let body = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    MembersError::Failed(format!("it answered {status}: {body}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::names::ServerName;
    use crate::openid::{Dns, OpenIdConfig};

    fn at(url: &str) -> Homeserver {
        let server = ServerName::parse("lab.example").unwrap();
        let registration =
            Registration::new(&server, "http://127.0.0.1:1", ["as token".to_owned(), String::new()]);
        let config = OpenIdConfig { home: Home::new(server, url), ..OpenIdConfig::default() };
        let openid = OpenId::new(config, Dns::system().unwrap()).unwrap();
        Homeserver::new(&openid, &registration).unwrap()
    }

    /// Answers one request, and says what it was asked.
    async fn answering(answer: &'static str) -> (Homeserver, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let homeserver = at(&format!("http://{}/hs/", listener.local_addr().unwrap()));
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(head).unwrap()
        });
        (homeserver, asked)
    }

    #[tokio::test]
    async fn members_are_asked_for_by_the_room_whatever_its_name_says() {
        let body = r#"{"joined":{"@dana:lab.example":{"display_name":null},"nonsense":{}}}"#;
        let answer: &'static str =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak();
        let (homeserver, asked) = answering(answer).await;
        let members = homeserver.members("!a/../b?c#ü").await.unwrap().unwrap();
        assert_eq!(members, [UserId::parse("@dana:lab.example").unwrap()].into());
        let asked = asked.await.unwrap();
        let line = "GET /hs/_matrix/client/v3/rooms/%21a%2F..%2Fb%3Fc%23%C3%BC/joined_members HTTP/1.1\r\n";
        assert!(asked.starts_with(line), "{asked}");
        assert!(asked.contains("authorization: Bearer as token\r\n"), "{asked}");
    }

    fn ok(body: &str) -> &'static str {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak()
    }

    #[tokio::test]
    async fn what_another_homeserver_answered_is_told_apart_from_what_ours_says_itself() {
        let to = ServerName::parse("else.example").unwrap();
        let body = || json!({ "user_id": "@dana:lab.example" });
        let (homeserver, asked) =
            answering(ok(r#"{"status":403,"content":{"errcode":"M_FORBIDDEN"}}"#)).await;
        let answer = homeserver.relay(&to, "/path", body()).await;
        assert_eq!(answer, Ok((403, json!({ "errcode": "M_FORBIDDEN" }))));
        let asked = asked.await.unwrap();
        let line = "POST /hs/_matrix/client/unstable/io.element.msc4512/appservice/fed_proxy HTTP/1.1\r\n";
        assert!(asked.starts_with(line) && asked.contains("authorization: Bearer as token\r\n"), "{asked}");
        let (homeserver, _asked) = answering(ok(r#"{"status":502,"content":null}"#)).await;
        assert_eq!(homeserver.relay(&to, "/path", body()).await, Ok((502, Value::Null)));
        for answer in [ok("{}"), ok("[]"), "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\n{}"] {
            let (homeserver, _asked) = answering(answer).await;
            assert!(homeserver.relay(&to, "/path", body()).await.is_err(), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_delayed_event_is_asked_for_in_its_owners_name() {
        let dana = UserId::parse("@dana:lab.example").unwrap();
        for key in ["delay_ms", "delay"] {
            let body = format!(r#"{{"room_id":"!r","{key}":10000,"content":{{}},"new":1}}"#);
            let (homeserver, asked) = answering(ok(&body)).await;
            let event = homeserver.delayed_event(&dana, "syd/../1").await.unwrap().unwrap();
            assert_eq!(event, DelayedEvent { room_id: "!r".to_owned(), delay: Duration::from_secs(10) });
            let path = "org.matrix.msc4140/delayed_events/syd%2F..%2F1?user_id=%40dana%3Alab.example HTTP";
            let asked = asked.await.unwrap();
            assert!(asked.contains(path), "{asked}");
        }
        let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 25\r\n\r\n{\"errcode\":\"M_NOT_FOUND\"}";
        let (homeserver, _asked) = answering(gone).await;
        assert_eq!(homeserver.delayed_event(&dana, "syd_1").await, Ok(None));
        let (homeserver, _asked) = answering(ok("{}")).await;
        assert!(homeserver.delayed_event(&dana, "syd_1").await.is_err());
    }

    #[tokio::test]
    async fn a_room_that_is_not_ours_to_see_is_no_failure_and_a_fault_is() {
        for (status, expected) in
            [("403 Forbidden", true), ("404 Not Found", true), ("502 Bad Gateway", false)]
        {
            let answer: &'static str = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}").leak();
            let (homeserver, _asked) = answering(answer).await;
            assert_eq!(
                homeserver.members("!r").await.is_ok_and(|members| members.is_none()),
                expected,
                "{status}"
            );
        }
        let (homeserver, _asked) = answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{").await;
        assert!(homeserver.members("!r").await.is_err());
        let nowhere = at("http://127.0.0.1:1");
        assert!(matches!(nowhere.ping().await, Err(MembersError::Failed(_))));
    }
}
