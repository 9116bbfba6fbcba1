//! Conferences: publications, subscriptions, layers and forwarding.
//!
//! Sans-IO: no socket, clock, randomness or lock. A `Shard` takes `(now, datagram | command)` and yields
//! datagrams, events and the next timeout; a shell drives it.

pub mod command;
pub mod event;

pub mod shard {
    /// A peer that sent nothing valid for this long is lost.
    pub const PEER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);
}
