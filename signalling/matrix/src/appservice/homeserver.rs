//! What the application service asks its homeserver.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::Registration;
use crate::names::{ServerName, UserId};
use crate::openid::{Home, Http, OpenId};
use crate::rooms::{Members, MembersError};
use crate::uri::encoded;

/// Until an answer is there. A homeserver reads the members of a large room from its disk.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Bytes of an answer: 150 for each member with a name and a picture, and rooms have 100,000.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

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
        let (status, body) = self.ask(Method::POST, &path, "{}").await?;
        if status.is_success() { Ok(()) } else { Err(unexpected(status, &body)) }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: &'static str,
    ) -> Result<(StatusCode, Bytes), MembersError> {
        let request = self
            .home
            .request(method, path)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(failed)?;
        let asking = self.home.send(&self.http, request, MAX_ANSWER_BYTES);
        let answer = tokio::time::timeout(TIMEOUT, asking).await.map_err(|_| MembersError::TooLate)?;
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
            let (status, body) = self.ask(Method::GET, &path, "").await?;
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
