//! What tests share.

use std::time::Instant;

/// An origin for virtual time. Its value does not matter; only differences do.
#[expect(
    clippy::disallowed_methods,
    reason = "std offers no other way to make an Instant; tests only add to it"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}
