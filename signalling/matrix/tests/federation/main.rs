//! Homeservers over sockets: honest ones, and those that lie, stall, flood, redirect and hide.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod dns;
mod homeserver;
mod load;
mod lookups;
mod requests;
mod resolution;
mod through;
