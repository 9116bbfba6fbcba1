//! By what the homeserver is known.

use aws_lc_rs::{constant_time, digest};
use axum::http::{HeaderMap, header};

/// The `hs_token` of a registration, as its hash: all hashes have one length, so that a comparison tells nothing of the
/// token's either.
#[derive(Clone)]
pub struct HsToken(digest::Digest);

/// What a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Right,
    Wrong,
    Nothing,
}

impl HsToken {
    pub fn new(token: &str) -> Self {
        Self(digest::digest(&digest::SHA256, token.as_bytes()))
    }

    pub fn shown(&self, headers: &HeaderMap) -> Shown {
        let token =
            headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let Some(token) = token else { return Shown::Nothing };
        let presented = digest::digest(&digest::SHA256, token);
        match constant_time::verify_slices_are_equal(presented.as_ref(), self.0.as_ref()) {
            Ok(()) => Shown::Right,
            Err(_) => Shown::Wrong,
        }
    }
}
