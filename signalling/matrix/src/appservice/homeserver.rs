//! What the application service asks its homeserver.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName as TlsName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::Registration;
use crate::names::UserId;
use crate::rooms::{Members, MembersError};

/// Until an answer is there. A homeserver reads the members of a large room from its disk.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Bytes of an answer: 150 for each member with a name and a picture, and rooms have 100,000.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// Why an address cannot be that of a homeserver.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HomeserverError {
    #[error("it is no URL that begins with http:// or https://")]
    Scheme,
    #[error("it names no host")]
    Host,
    #[error("TLS cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// A homeserver, as its application service sees it.
#[derive(Clone)]
pub struct Homeserver {
    tls: Option<TlsConnector>,
    host: String,
    port: u16,
    /// As the `Host` header says.
    authority: String,
    /// What stands before `/_matrix`.
    prefix: String,
    authorization: String,
    id: String,
}

#[derive(Deserialize)]
struct JoinedMembers {
    joined: HashMap<String, serde::de::IgnoredAny>,
}

impl Homeserver {
    /// `url` is where its client-server API is served. `authorities` are trusted there beside the public ones.
    pub fn new(
        url: &str,
        authorities: Vec<CertificateDer<'static>>,
        registration: &Registration,
    ) -> Result<Self, HomeserverError> {
        let url: Uri = url.parse().map_err(|_| HomeserverError::Scheme)?;
        let (tls, standard_port) = match url.scheme_str() {
            Some("https") => (Some(connector(authorities)?), 443),
            Some("http") => (None, 80),
            _ => return Err(HomeserverError::Scheme),
        };
        let authority = url.authority().ok_or(HomeserverError::Host)?;
        Ok(Self {
            tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(standard_port),
            authority: authority.as_str().to_owned(),
            prefix: url.path().trim_end_matches('/').to_owned(),
            authorization: format!("Bearer {}", registration.as_token),
            id: registration.id.clone(),
        })
    }

    /// Has the homeserver try whether it reaches us. If it does, it pushes at once what has waited.
    pub async fn ping(&self) -> Result<(), MembersError> {
        let path = format!("/_matrix/client/v1/appservice/{}/ping", escaped(&self.id));
        let (status, body) = self.ask(Method::POST, &path, "{}").await?;
        if status.is_success() { Ok(()) } else { Err(unexpected(status, &body)) }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: &'static str,
    ) -> Result<(StatusCode, Bytes), MembersError> {
        let asking = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
            match &self.tls {
                None => self.exchange(stream, method, path, body).await,
                Some(tls) => {
                    let name = TlsName::try_from(self.host.clone()).map_err(failed)?;
                    let stream = tls.connect(name, stream).await.map_err(failed)?;
                    self.exchange(stream, method, path, body).await
                }
            }
        };
        tokio::time::timeout(TIMEOUT, asking).await.unwrap_or(Err(MembersError::TooLate))
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        method: Method,
        path: &str,
        body: &'static str,
    ) -> Result<(StatusCode, Bytes), MembersError> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let mut connections = JoinSet::new(); // ends with this question
        connections.spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Body::from(body))
            .map_err(failed)?;
        let (parts, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        Ok((parts.status, body.map_err(|error| MembersError::Failed(error.to_string()))?.to_bytes()))
    }
}

impl Members for Homeserver {
    fn members<'a>(
        &'a self,
        room_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<HashSet<UserId>>, MembersError>> {
        Box::pin(async move {
            let path = format!("/_matrix/client/v3/rooms/{}/joined_members", escaped(room_id));
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
}

fn read_members(body: &[u8]) -> serde_json::Result<HashSet<UserId>> {
    let JoinedMembers { joined } = serde_json::from_slice(body)?;
    Ok(joined.keys().filter_map(|id| UserId::parse(id)).collect())
}

fn connector(authorities: Vec<CertificateDer<'static>>) -> Result<TlsConnector, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for authority in authorities {
        roots.add(authority)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
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

/// As one segment of a path.
fn escaped(segment: &str) -> String {
    let mut path = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                path.push(char::from(byte))
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::names::ServerName;

    fn at(url: &str) -> Result<Homeserver, HomeserverError> {
        let server = ServerName::parse("lab.example").unwrap();
        let registration =
            Registration::new(&server, "http://127.0.0.1:1", ["as token".to_owned(), String::new()]);
        Homeserver::new(url, Vec::new(), &registration)
    }

    /// Answers one request, and says what it was asked.
    async fn answering(answer: &'static str) -> (Homeserver, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let homeserver = at(&format!("http://{}/hs/", listener.local_addr().unwrap())).unwrap();
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

    #[test]
    fn an_address_says_how_and_whom_to_ask() {
        let of = |url| at(url).map(|server| (server.host, server.port, server.prefix, server.tls.is_some()));
        assert_eq!(of("http://127.0.0.1:8008"), Ok(("127.0.0.1".to_owned(), 8008, String::new(), false)));
        assert_eq!(of("https://[::1]/x/"), Ok(("::1".to_owned(), 443, "/x".to_owned(), true)));
        for (url, error) in [
            ("ftp://x", HomeserverError::Scheme),
            ("x", HomeserverError::Scheme),
            ("", HomeserverError::Scheme),
            ("http:///x", HomeserverError::Scheme),
        ] {
            assert_eq!(of(url), Err(error), "{url}");
        }
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
        let nowhere = at("http://127.0.0.1:1").unwrap();
        assert!(matches!(nowhere.ping().await, Err(MembersError::Failed(_))));
    }
}
