//! One request to one server that nobody trusts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName as TlsName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::address::Reach;
use super::dns::Dns;
use crate::names::Host;

/// Until a connection stands, TLS included. A server may have several addresses, and each gets this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that are tried for one request. A stranger's zone says where to: the product of its services and their
/// addresses would make each request many knocks at somebody else's door.
const MAX_ATTEMPTS: usize = 8;
/// Bytes of a response's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Header lines of a response.
const MAX_HEADERS: usize = 64;

/// Why a server gave no answer. None of it is told to clients: they could map a network by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    #[error("it has no address")]
    NoAddress,
    #[error("its address is not on the public internet")]
    AddressNotAllowed,
    #[error("no connection could be made")]
    Unreachable,
    #[error("its certificate is not valid for it")]
    Certificate,
    #[error("its answer is no HTTP, or breaks off")]
    Broken,
    #[error("its answer is too large")]
    TooLarge,
}

/// A place to connect to, and who must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: Host,
    pub port: u16,
}

/// How a place is connected to.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    pub is_tls: bool,
    /// The operator named it, so it may be a private address.
    pub is_trusted: bool,
}

/// An answer whose size is within bounds.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What it takes to ask.
#[derive(Clone)]
pub struct Http {
    pub dns: Dns,
    pub reach: Reach,
    tls: TlsConnector,
}

impl Http {
    /// `extra` are certificates of authorities that are trusted beside the public ones.
    pub fn new(
        dns: Dns,
        reach: Reach,
        extra: Vec<CertificateDer<'static>>,
    ) -> Result<Self, tokio_rustls::rustls::Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in extra {
            roots.add(certificate)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { dns, reach, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Asks over TLS the first target that a connection can be made to. Its certificate must be for `identity`.
    pub async fn get(
        &self,
        targets: &[Target],
        identity: &Host,
        host: &str,
        path: &str,
        most: usize,
    ) -> Result<Answer, HttpError> {
        let (mut failure, mut attempts) = (HttpError::NoAddress, 0);
        for target in targets {
            for address in self.addresses(&target.host).await {
                if !self.reach.permits(address) {
                    failure = HttpError::AddressNotAllowed;
                    continue;
                }
                if attempts == MAX_ATTEMPTS {
                    return Err(failure);
                }
                attempts += 1;
                match self.connect_tls(SocketAddr::new(address, target.port), identity).await {
                    Ok(stream) => return exchange(stream, get_request(host, path)?, most).await,
                    Err(error) => failure = error,
                }
            }
        }
        Err(failure)
    }

    /// Sends a request to one place, to the first of its addresses that a connection can be made to.
    pub async fn send(
        &self,
        target: &Target,
        guard: Guard,
        request: Request<Body>,
        most: usize,
    ) -> Result<Answer, HttpError> {
        let mut failure = HttpError::NoAddress;
        for address in self.addresses(&target.host).await {
            // Without TLS anybody on the way would read and answer: only within networks that the operator named.
            let is_permitted = match guard.is_tls {
                true => self.reach.permits(address),
                false => self.reach.allows(address),
            };
            if !guard.is_trusted && !is_permitted {
                failure = HttpError::AddressNotAllowed;
                continue;
            }
            let address = SocketAddr::new(address, target.port);
            if guard.is_tls {
                match self.connect_tls(address, &target.host).await {
                    Ok(stream) => return exchange(stream, request, most).await,
                    Err(error) => failure = error,
                }
            } else {
                match in_time(connect(address)).await {
                    Ok(stream) => return exchange(stream, request, most).await,
                    Err(error) => failure = error,
                }
            }
        }
        Err(failure)
    }

    async fn connect_tls(
        &self,
        address: SocketAddr,
        identity: &Host,
    ) -> Result<TlsStream<TcpStream>, HttpError> {
        let name = match identity {
            Host::Address(address) => TlsName::IpAddress((*address).into()),
            Host::Name(name) => {
                let name = name.trim_end_matches('.').to_owned();
                TlsName::try_from(name).map_err(|_| HttpError::NoAddress)?
            }
        };
        in_time(async {
            let stream = connect(address).await?;
            self.tls.connect(name, stream).await.map_err(|error| why(&error))
        })
        .await
    }

    /// Whether this host, as it resolves now, is within networks that the operator allowed.
    pub async fn is_allowed(&self, host: &Host) -> bool {
        let addresses = self.addresses(host).await;
        !addresses.is_empty() && addresses.into_iter().all(|address| self.reach.allows(address))
    }

    async fn addresses(&self, host: &Host) -> Vec<IpAddr> {
        match host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.dns.addresses(name).await,
        }
    }
}

async fn in_time<T>(connecting: impl Future<Output = Result<T, HttpError>>) -> Result<T, HttpError> {
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(HttpError::Unreachable))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, HttpError> {
    let stream = TcpStream::connect(address).await.map_err(|_| HttpError::Unreachable)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn why(error: &std::io::Error) -> HttpError {
    let inner = error.get_ref().and_then(|error| error.downcast_ref());
    match inner {
        Some(tokio_rustls::rustls::Error::InvalidCertificate(_)) => HttpError::Certificate,
        _ => HttpError::Unreachable,
    }
}

fn get_request(host: &str, path: &str) -> Result<Request<Body>, HttpError> {
    Request::get(path).header(header::HOST, host).body(Body::empty()).map_err(|_| HttpError::Broken)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: Request<Body>,
    most: usize,
) -> Result<Answer, HttpError> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| HttpError::Broken)?;
    // The connection ends with this look-up, however that ends.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("weir/", env!("CARGO_PKG_VERSION"))));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let (parts, body) = sender.send_request(request).await.map_err(|_| HttpError::Broken)?.into_parts();
    let body = Limited::new(body, most).collect().await.map_err(|error| {
        let is_large = error.is::<http_body_util::LengthLimitError>();
        if is_large { HttpError::TooLarge } else { HttpError::Broken }
    })?;
    Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
}
