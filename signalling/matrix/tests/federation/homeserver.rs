//! A homeserver over TLS that does what a test tells it, and an authority that vouches for its name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use weir_matrix::names::ServerName;
use weir_matrix::openid::{Dns, OpenId, OpenIdConfig, Ports, Reach, read_authorities};

use crate::dns::Zone;

/// Requests that are remembered.
const MAX_HEADS: usize = 100;

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// For host names and addresses.
    fn certify(&self, names: &[&str]) -> ServerConfig {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(certificate.der().to_vec())], key)
            .unwrap()
    }

    /// What an operator who trusts this authority has, with loopback allowed.
    pub fn config(&self) -> OpenIdConfig {
        OpenIdConfig {
            reach: Reach::new(vec!["127.0.0.0/8".parse().unwrap()]),
            authorities: read_authorities(self.0.pem().as_bytes()).unwrap(),
            timeout: Duration::from_secs(20),
            ..OpenIdConfig::default()
        }
    }
}

/// What a homeserver does with a request.
#[derive(Clone, Debug)]
pub enum Does {
    /// Status line without the version, header lines, body.
    Answers(&'static str, String, String),
    /// Reads and says nothing.
    Stalls,
    /// A head, and then body without end.
    Floods,
    /// Header lines without end.
    FloodsHead,
    /// Ends the connection in the middle of the body.
    BreaksOff,
    /// Something that is not HTTP.
    Babbles,
}

impl Does {
    /// Vouches for a user. SELF is the server's own name, by address and port.
    pub fn vouch(user: &str) -> Self {
        Self::json("200 OK", &format!("{{\"sub\":\"{user}\",\"new\":true}}"))
    }

    pub fn json(status: &'static str, body: &str) -> Self {
        Self::Answers(status, "content-type: application/json\r\n".to_owned(), body.to_owned())
    }

    pub fn redirect(to: &str) -> Self {
        Self::Answers("302 Found", format!("location: {to}\r\n"), String::new())
    }

    pub fn nothing_here() -> Self {
        Self::json("404 Not Found", "{\"errcode\":\"M_UNRECOGNIZED\"}")
    }
}

/// A server that runs until the test's runtime ends.
#[derive(Clone)]
pub struct Homeserver {
    pub at: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Homeserver {
    /// `does` is asked with the path of each request.
    pub async fn start(
        authority: &Authority,
        names: &[&str],
        does: impl Fn(&str) -> Does + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(authority, names, "127.0.0.1:0".parse().unwrap(), does).await
    }

    pub async fn start_at(
        authority: &Authority,
        names: &[&str],
        at: SocketAddr,
        does: impl Fn(&str) -> Does + Send + Sync + 'static,
    ) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(authority.certify(names)));
        let listener = TcpListener::bind(at).await.unwrap();
        let server =
            Self { at: listener.local_addr().unwrap(), heads: Arc::default(), connections: Arc::default() };
        let (accepting, does) = (server.clone(), Arc::new(does));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, server, does) = (acceptor.clone(), accepting.clone(), Arc::clone(&does));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        server.serve(stream, &*does).await;
                    }
                });
            }
        });
        server
    }

    /// A name for it that says the port.
    pub fn name(&self) -> ServerName {
        ServerName::parse(&self.at.to_string()).unwrap()
    }

    /// Lines of the requests that came, without their ends.
    pub fn requests(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, does: &impl Fn(&str) -> Does) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < 8_192 {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        {
            let mut heads = self.heads.lock().unwrap();
            heads.push(head);
            heads.truncate(MAX_HEADS);
        }
        let does = match does(&path) {
            Does::Answers(status, headers, body) => {
                Does::Answers(status, headers, body.replace("SELF", &self.at.to_string()))
            }
            other => other,
        };
        let _ = act(&mut stream, does).await;
        let _ = stream.shutdown().await;
    }
}

async fn act(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), does: Does) -> std::io::Result<()> {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    /// More than any limit, and less than what would hurt the machine if there were none.
    const MUCH: usize = 4_096;
    match does {
        Does::Answers(status, headers, body) => {
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await
        }
        Does::Stalls => {
            while stream.read_u8().await.is_ok() {} // until the other side has had enough
            Ok(())
        }
        Does::Floods => {
            stream.write_all(HEAD).await?;
            stream.write_all(b"\r\n{\"sub\":\"").await?;
            for _ in 0..MUCH {
                stream.write_all(&[b'x'; 16 * 1024]).await?;
            }
            Ok(())
        }
        Does::FloodsHead => {
            stream.write_all(HEAD).await?;
            for n in 0..MUCH {
                stream.write_all(format!("x-{n}: {}\r\n", "x".repeat(1_000)).as_bytes()).await?;
            }
            Ok(())
        }
        Does::BreaksOff => {
            stream.write_all(HEAD).await?;
            stream.write_all(b"content-length: 100\r\n\r\n{\"sub\":\"@d").await
        }
        Does::Babbles => stream.write_all(b"220 mail.example ESMTP\r\n").await,
    }
}

/// The client, with a name server of its own.
pub async fn client(config: OpenIdConfig, zone: Zone) -> Arc<OpenId> {
    OpenId::new(config, Dns::at(zone.serve().await).unwrap()).unwrap()
}

/// Both ports that the specification fixes, at the one server.
pub fn both_at(server: &Homeserver) -> Ports {
    Ports { https: server.at.port(), federation: server.at.port() }
}

pub const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Another loopback address, for another server.
pub fn loopback(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}
