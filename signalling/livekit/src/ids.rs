//! Identifiers: numbers for the forwarding plane, short random names for clients.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng;
use weir_units::media::IceCredentials;

/// Hands out the numbers that name things to the forwarding plane. One for the whole process: they are never reused.
#[derive(Debug, Default)]
pub struct IdSource(AtomicU64);

impl IdSource {
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A WebSocket, as the server numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

const ALPHANUMERIC: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// `PA_`, `TR_`, `RM_` and such, followed by 71 random bits.
pub(crate) fn sid(prefix: &str, rng: &mut impl Rng) -> String {
    format!("{prefix}{}", random_text(12, rng))
}

pub(crate) fn random_text(len: usize, rng: &mut impl Rng) -> String {
    (0..len).map(|_| char::from(ALPHANUMERIC[rng.random_range(0..ALPHANUMERIC.len())])).collect()
}

/// RFC 8445 §5.3 wants 24 bits of randomness in the user fragment and 128 in the password.
pub(crate) fn ice_credentials(prefix: char, rng: &mut impl Rng) -> IceCredentials {
    IceCredentials { ufrag: format!("{prefix}{}", random_text(9, rng)), password: random_text(24, rng) }
}

/// A user's name for logs: enough to follow one session, not enough to know whom.
pub(crate) fn shortened(identity: &str) -> String {
    match identity.char_indices().nth(6) {
        Some((end, _)) => format!("{}…", &identity[..end]),
        None => identity.to_owned(),
    }
}
