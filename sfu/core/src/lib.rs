//! Conferences: publications, subscriptions, layers and forwarding.
//!
//! Sans-IO: no socket, clock, randomness or lock. A `Shard` takes `(now, datagram | command)` and yields
//! datagrams, events and the next timeout; a shell drives it.

pub mod ingress;
pub mod rewrite;
pub mod ring;
pub mod speakers;
#[cfg(test)]
mod testing;
