//! Virtual time.

use std::time::Instant;

/// An origin for virtual time. Its value does not matter; only differences do.
#[expect(
    clippy::disallowed_methods,
    reason = "std offers no other way to make an Instant; targets only add to it"
)]
pub fn start() -> Instant {
    Instant::now()
}
