//! HTTP as a page in a browser would do it: with an origin, and refused what CORS refuses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Where a page would come from. It is nowhere: servers let in every page or their own.
pub const ORIGIN: &str = "https://weir-check.invalid";
/// Clients give up on a join at about this.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Nothing that is asked for here is larger.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    #[error("{0:?} is not a URL")]
    Url(String),
    #[error("{host} has no address: {reason}")]
    Name { host: String, reason: String },
    #[error("{address} cannot be connected to: {reason}")]
    Connect { address: SocketAddr, reason: String },
    #[error("the certificate of {host} does not hold: {reason}")]
    Certificate { host: String, reason: String },
    #[error("{host} does not speak TLS: {reason}")]
    Tls { host: String, reason: String },
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Late,
    #[error("the answer breaks off or is no HTTP: {0}")]
    Broken(String),
}

impl WebError {
    /// What an operator does about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Url(_) => "write it with its scheme, such as https://example.org",
            Self::Name { .. } => "give the name an address in DNS, or mend the name where it is announced",
            Self::Connect { .. } => "start what should listen there, and open the port in the firewall",
            Self::Certificate { .. } => {
                "let the reverse proxy present a certificate for this name that browsers trust, with its whole chain"
            }
            Self::Tls { .. } => "let a reverse proxy add TLS on this port",
            Self::Late => {
                "look for what holds it up: the service behind the proxy, or a firewall that drops packets"
            }
            Self::Broken(_) => "look for what answers on this port in its place",
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether a browser shows a page this answer.
    pub fn is_shown_to_pages(&self) -> bool {
        let origin = self.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        origin.is_some_and(|origin| origin == "*" || origin == ORIGIN)
    }

    /// Whether a browser, having asked, lets a page send JSON.
    pub fn lets_json_through(&self) -> bool {
        let allowed = self.headers.get_all(header::ACCESS_CONTROL_ALLOW_HEADERS);
        let mut words =
            allowed.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        words.any(|word| word.trim() == "*" || word.trim().eq_ignore_ascii_case("content-type"))
    }

    /// Its first words, for a message.
    pub fn excerpt(&self) -> String {
        const CHARACTERS: usize = 160;
        let text = String::from_utf8_lossy(&self.body);
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(CHARACTERS).collect()
    }
}

/// The TLS side of it.
#[derive(Clone)]
pub struct Web {
    tls: TlsConnector,
}

/// TLS or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Web {
    /// Trusts the public authorities, and those whose certificates (PEM) are given.
    pub fn new(authorities: &[u8]) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            let certificate = certificate
                .map_err(|_| rustls::Error::General("the file holds something other than PEM".to_owned()))?;
            roots.add(certificate)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    pub async fn get(&self, url: &str, access_token: Option<&str>) -> Result<Reply, WebError> {
        self.send(Method::GET, url, access_token, None).await
    }

    pub async fn post(&self, url: &str, access_token: Option<&str>, body: &Value) -> Result<Reply, WebError> {
        self.send(Method::POST, url, access_token, Some(body)).await
    }

    /// What a browser asks before it posts JSON for a page.
    pub async fn preflight(&self, url: &str) -> Result<Reply, WebError> {
        self.send(Method::OPTIONS, url, None, None).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        access_token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Reply, WebError> {
        let place = Place::parse(url)?;
        let mut request = Request::builder()
            .method(&method)
            .uri(place.path.as_str())
            .header(header::HOST, &place.authority)
            .header(header::ORIGIN, ORIGIN)
            .header(header::USER_AGENT, concat!("weir-check/", env!("CARGO_PKG_VERSION")));
        if method == Method::OPTIONS {
            request = request
                .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
                .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "content-type");
        }
        if let Some(token) = access_token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| WebError::Url("the access token".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request =
            request.body(Full::new(Bytes::from(body))).map_err(|_| WebError::Url(url.to_owned()))?;
        let exchange = async {
            let stream = self.connect_to(&place).await?;
            exchange(stream, request).await
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err(WebError::Late))
    }

    /// A connection to where this URL points, with TLS if its scheme says so.
    pub async fn connect(&self, url: &str) -> Result<Box<dyn Stream>, WebError> {
        let place = Place::parse(url)?;
        tokio::time::timeout(TIMEOUT, self.connect_to(&place)).await.unwrap_or(Err(WebError::Late))
    }

    async fn connect_to(&self, place: &Place) -> Result<Box<dyn Stream>, WebError> {
        let stream = connect_tcp(&place.host, place.port).await?;
        if !place.is_tls {
            return Ok(Box::new(stream));
        }
        let host = place.host.clone();
        let name = ServerName::try_from(host.clone()).map_err(|_| WebError::Url(host.clone()))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| {
            let inner = error.get_ref().and_then(|error| error.downcast_ref());
            match inner {
                Some(rustls::Error::InvalidCertificate(reason)) => {
                    WebError::Certificate { host, reason: reason.to_string() }
                }
                _ => WebError::Tls { host, reason: error.to_string() },
            }
        })?;
        Ok(Box::new(stream))
    }
}

/// Where a URL points.
struct Place {
    is_tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Place {
    fn parse(url: &str) -> Result<Self, WebError> {
        let wrong = || WebError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let is_tls = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        Ok(Self {
            is_tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

/// The first of a name's addresses that takes the connection.
async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, WebError> {
    let nameless = |reason: String| WebError::Name { host: host.to_owned(), reason };
    let addresses =
        tokio::net::lookup_host((host, port)).await.map_err(|error| nameless(error.to_string()))?;
    let mut failure = nameless("none is listed".to_owned());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = WebError::Connect { address, reason: error.to_string() },
        }
    }
    Err(failure)
}

async fn exchange(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> Result<Reply, WebError> {
    let broken = |error: hyper::Error| WebError::Broken(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let asking = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|error| WebError::Broken(error.to_string()))?.to_bytes();
        Ok(Reply { status: head.status, headers: head.headers, body })
    };
    tokio::pin!(asking);
    tokio::select! {
        reply = &mut asking => reply,
        // The connection may be over before its last answer has been read.
        _ = connection => asking.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_scheme_host_port_and_path() {
        let place = Place::parse("wss://[::1]:7880/livekit/sfu?a=b").unwrap();
        assert_eq!((place.is_tls, place.host.as_str(), place.port), (true, "::1", 7880));
        assert_eq!((place.authority.as_str(), place.path.as_str()), ("[::1]:7880", "/livekit/sfu?a=b"));
        assert_eq!(Place::parse("https://example.org").unwrap().port, 443);
        for wrong in ["example.org", "ftp://example.org", "https://", ""] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pages_see_answers_that_name_them_or_everybody() {
        let reply = |name: header::HeaderName, value: &'static str| Reply {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(name, HeaderValue::from_static(value))]),
            body: Bytes::new(),
        };
        assert!(reply(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*").is_shown_to_pages());
        assert!(!reply(header::ACCESS_CONTROL_ALLOW_ORIGIN, "https://example.org").is_shown_to_pages());
        assert!(reply(header::ACCESS_CONTROL_ALLOW_HEADERS, "X-A, Content-Type").lets_json_through());
        assert!(!reply(header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization").lets_json_through());
    }
}
