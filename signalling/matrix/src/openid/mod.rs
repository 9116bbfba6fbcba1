//! Who somebody is, by their homeserver's word.
//!
//! A client presents a token that its homeserver made, and [`OpenId`] asks that homeserver whose it is
//! (<https://spec.matrix.org/latest/server-server-api/#openid>). The asker chose the server that is asked, so everything
//! about the answer is suspect: it counts for users of that server alone, and it may cost neither much time nor much
//! memory.

mod address;
mod cache;
mod dns;
mod http;
mod limits;
mod route;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header, request};
use serde_json::Value;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::names::{ServerName, UserId};
use crate::uri::{Place, encoded};
use cache::Vouched;
pub(crate) use http::{Answer, Guard, Http, Target};
pub(crate) use limits::Limits;
use limits::Places;
use route::Routes;

pub use address::Reach;
pub use dns::{Dns, DnsError};
pub use http::HttpError;
pub use limits::Busy;
pub use route::Ports;

/// A certificate, ready to be trusted.
pub type Certificate = tokio_rustls::rustls::pki_types::CertificateDer<'static>;

/// `{"sub": …}`, with what a newer server may add.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
const USER_INFO: &str = "/_matrix/federation/v1/openid/userinfo?access_token=";

/// What an operator chose.
#[derive(Clone, Debug)]
pub struct OpenIdConfig {
    /// Networks that may be reached although they are not the public internet.
    pub reach: Reach,
    /// Authorities that are trusted beside the public ones.
    pub authorities: Vec<Certificate>,
    /// The time of one look-up, all its waiting included.
    pub timeout: Duration,
    /// Look-ups a second at one origin.
    pub per_second: u32,
    /// The server whose look-ups share their places with nobody's, however it is asked.
    pub own: Option<ServerName>,
    /// A homeserver that is asked at an address of its own instead of by federation.
    pub home: Option<Home>,
    pub ports: Ports,
}

impl Default for OpenIdConfig {
    fn default() -> Self {
        Self {
            reach: Reach::default(),
            authorities: Vec::new(),
            timeout: Duration::from_secs(10),
            per_second: 200,
            own: None,
            home: None,
            ports: Ports::default(),
        }
    }
}

/// The homeserver beside this focus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    server: ServerName,
    target: Target,
    is_tls: bool,
    host: String,
    /// What stands before the path of a request.
    base: String,
}

impl Home {
    /// `url` is the base URL of its client-server or federation API: `http` or `https`, with perhaps a port and a path.
    pub fn new(server: ServerName, url: &str) -> Option<Self> {
        let Place { is_tls, host, port, authority, path } = Place::parse(url)?;
        if path.contains('?') {
            return None;
        }
        let base = path.trim_end_matches('/').to_owned();
        Some(Self { server, target: Target { host, port }, is_tls, host: authority, base })
    }

    pub(crate) fn server(&self) -> &ServerName {
        &self.server
    }

    /// The beginning of a request to it.
    pub(crate) fn request(&self, method: Method, path: &str) -> request::Builder {
        let uri = format!("{}{path}", self.base);
        Request::builder().method(method).uri(uri).header(header::HOST, &self.host)
    }

    /// Sends one to it, whatever its address, since the operator has named it; and without TLS if so named.
    pub(crate) async fn send(
        &self,
        http: &Http,
        request: Request<Body>,
        most: usize,
    ) -> Result<Answer, HttpError> {
        http.send(&self.target, Guard { is_tls: self.is_tls, is_trusted: true }, request, most).await
    }
}

/// Certificates in a file as operators have it (PEM); none is an error as well.
pub fn read_authorities(pem: &[u8]) -> Option<Vec<Certificate>> {
    let certificates: Vec<Certificate> = Certificate::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    let mut store = tokio_rustls::rustls::RootCertStore::empty();
    for certificate in &certificates {
        store.add(certificate.clone()).ok()?;
    }
    Some(certificates).filter(|certificates| !certificates.is_empty())
}

/// Why somebody is not who they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenIdError {
    #[error("too many look-ups are under way: {0:?}")]
    Busy(Busy),
    #[error("the homeserver did not answer in time")]
    TimedOut,
    #[error("the homeserver was not reached: {0}")]
    Http(#[from] HttpError),
    #[error("the homeserver does not know the token")]
    UnknownToken,
    #[error("the homeserver answered with a failure")]
    Failed,
    #[error("the homeserver's answer names no user")]
    Malformed,
    #[error("the homeserver vouched for a user of another server")]
    ForeignUser,
}

/// Asks homeservers.
pub struct OpenId {
    config: OpenIdConfig,
    http: Http,
    routes: Routes,
    limits: Limits,
    vouched: Vouched,
}

impl OpenId {
    /// An error means that an authority's certificate cannot be used.
    pub fn new(config: OpenIdConfig, dns: Dns) -> Result<Arc<Self>, tokio_rustls::rustls::Error> {
        let http = Http::new(dns, config.reach.clone(), config.authorities.clone())?;
        Ok(Arc::new(Self {
            routes: Routes::new(http.clone(), config.ports, config.timeout / 2),
            limits: Limits::new(config.per_second),
            vouched: Vouched::default(),
            http,
            config,
        }))
    }

    /// What asks servers that strangers name, for whoever else has to.
    pub(crate) fn http(&self) -> Http {
        self.http.clone()
    }

    /// The homeserver that is asked at an address of its own.
    pub(crate) fn home(&self) -> Option<&Home> {
        self.config.home.as_ref()
    }

    /// Whose token it is, if a homeserver has said so a moment ago.
    pub fn remembered(&self, server: &ServerName, token: &str) -> Option<UserId> {
        self.vouched.get(server, token, now())
    }

    /// Whose token it is.
    pub async fn user(&self, server: &ServerName, token: &str) -> Result<UserId, OpenIdError> {
        if let Some(user) = self.remembered(server, token) {
            return Ok(user);
        }
        let home = self.config.home.as_ref().filter(|home| home.server == *server);
        let places = self.enter(server).map_err(OpenIdError::Busy)?;
        let look_up = async {
            let _turn = places.turn().await;
            self.ask(server, home, token).await
        };
        let answer = tokio::time::timeout(self.config.timeout, look_up).await;
        let user = read(server, answer.map_err(|_| OpenIdError::TimedOut)??)?;
        self.limits.note_answer(server.as_str());
        self.vouched.put(server, token, user.clone(), now());
        Ok(user)
    }

    fn enter(&self, server: &ServerName) -> Result<Places, Busy> {
        let OpenIdConfig { own, home, .. } = &self.config;
        let is_own = own.as_ref() == Some(server) || home.as_ref().is_some_and(|home| home.server == *server);
        if is_own { self.limits.enter_home() } else { self.limits.enter(server.as_str(), now()) }
    }

    async fn ask(&self, server: &ServerName, home: Option<&Home>, token: &str) -> Result<Answer, HttpError> {
        let path = format!("{USER_INFO}{}", encoded(token));
        match home {
            Some(home) => {
                let request = home.request(Method::GET, &path).body(Body::empty());
                home.send(&self.http, request.map_err(|_| HttpError::Broken)?, MAX_ANSWER_BYTES).await
            }
            None => {
                let route = self.routes.find(server).await;
                self.http.get(&route.targets, &route.identity, &route.host, &path, MAX_ANSWER_BYTES).await
            }
        }
    }
}

/// A user of the server that was asked, or nobody: else any server could vouch for anybody.
fn read(server: &ServerName, answer: Answer) -> Result<UserId, OpenIdError> {
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(OpenIdError::UnknownToken),
        _ => return Err(OpenIdError::Failed), // redirects among them: nobody else may answer
    }
    let json: Value = serde_json::from_slice(&answer.body).map_err(|_| OpenIdError::Malformed)?;
    let user =
        json.get("sub").and_then(Value::as_str).and_then(UserId::parse).ok_or(OpenIdError::Malformed)?;
    if user.server() != server {
        return Err(OpenIdError::ForeignUser);
    }
    Ok(user)
}

/// The runtime's clock, by which time-outs are slept as well.
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Host;

    #[test]
    fn the_own_homeserver_is_named_by_a_base_url() {
        let server = ServerName::parse("lab.example").unwrap();
        let home = |url| Home::new(server.clone(), url);
        let plain = home("http://127.0.0.1:8008").unwrap();
        assert_eq!((plain.is_tls, plain.target.port, plain.base.as_str()), (false, 8008, ""));
        let behind = home("https://matrix.lab.example/hs/").unwrap();
        assert_eq!((behind.is_tls, behind.target.port, behind.base.as_str()), (true, 443, "/hs"));
        assert_eq!(behind.target.host, Host::Name("matrix.lab.example".to_owned()));
        for url in [
            "",
            "127.0.0.1:8008",
            "ftp://lab.example",
            "http://",
            "/x",
            "http://a.example/?x",
            "http://u@a.example",
        ] {
            assert_eq!(home(url), None, "{url}");
        }
    }

    #[tokio::test]
    async fn the_own_homeserver_has_places_of_its_own_also_if_it_is_found_like_any_other() {
        let name = |name| ServerName::parse(name).unwrap();
        let config =
            OpenIdConfig { own: Some(name("lab.example")), per_second: 1, ..OpenIdConfig::default() };
        let openid = OpenId::new(config, Dns::at("127.0.0.1:1".parse().unwrap()).unwrap()).unwrap();
        let many = |server| (0..100).map(|_| openid.enter(&server)).collect::<Result<Vec<_>, _>>();
        assert!(many(name("lab.example")).is_ok());
        assert_eq!(many(name("else.example")).unwrap_err(), Busy::Rate);
    }

    #[test]
    fn a_file_without_certificates_has_no_authorities() {
        assert!(read_authorities(b"").is_none());
        assert!(
            read_authorities(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_none()
        );
    }
}
