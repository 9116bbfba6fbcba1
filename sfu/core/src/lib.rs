//! Conferences: publications, subscriptions, layers and forwarding.
//!
//! Sans-IO: no socket, clock, randomness or lock. A [`shard::Shard`] takes `(now, datagram | command)` and yields
//! datagrams, events and the next timeout; a shell drives it. Begin reading there.

mod allocation;
mod conference;
mod downlink;
pub mod egress;
mod floor;
pub mod ingress;
mod key_frames;
mod offer;
mod peer;
mod publication;
mod resends;
pub mod rewrite;
pub mod ring;
mod sent;
pub mod shard;
pub mod speakers;
mod standstill;
pub mod stats;
mod subscription;
#[cfg(test)]
mod testing;
mod timers;

pub use peer::PEER_TIMEOUT;
pub use weir_transport::{Route, TransportContext};
