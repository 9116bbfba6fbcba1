//! What all transports of a process share.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

/// Made once: a certificate and checked cryptography. Making them for every peer would cost a join more than the
/// handshake does.
#[derive(Clone)]
pub struct TransportContext {
    pub(crate) dtls: Arc<dimpl::Config>,
    pub(crate) certificate: dimpl::DtlsCertificate,
    fingerprint: [u8; 32],
}

/// Bytes of a DTLS datagram: with IP and UDP headers around it, below what any path carries unfragmented.
pub(crate) const DTLS_MTU: usize = 1_200;
/// The first repetition of a flight that is not answered: above most round trips. The library's second would make
/// one lost packet a second of waiting for a picture.
const FLIGHT_TIMEOUT: Duration = Duration::from_millis(250);
/// Repetitions of a flight: with each timeout twice the last, more than [`HANDSHAKE_TIMEOUT`] allows.
const FLIGHT_RETRIES: usize = 7;
/// From the ClientHello. Clients give up on a connection after 15 s and begin again.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

impl TransportContext {
    /// A new self-signed ECDSA P-256 certificate, as browsers use.
    pub fn generate() -> Result<Self, ContextError> {
        let certificate = dimpl::certificate::generate_self_signed_certificate()
            .map_err(|error| ContextError::Certificate(error.to_string()))?;
        // ICE has shown that the peer is where it says, so a cookie would only cost a round trip.
        let dtls = dimpl::Config::builder()
            .use_server_cookie(false)
            .mtu(DTLS_MTU)
            .flight_start_rto(FLIGHT_TIMEOUT)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            .build()
            .map_err(|error| ContextError::Dtls(error.to_string()))?;
        let mut fingerprint = [0; 32];
        let digest = digest::digest(&digest::SHA256, &certificate.certificate);
        fingerprint.copy_from_slice(digest.as_ref());
        Ok(Self { dtls: Arc::new(dtls), certificate, fingerprint })
    }

    /// SHA-256 of the certificate, for `a=fingerprint`.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

/// The process cannot make what every handshake needs.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error("no certificate could be made: {0}")]
    Certificate(String),
    #[error("the DTLS library refused its configuration: {0}")]
    Dtls(String),
}
