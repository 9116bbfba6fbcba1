//! What the planes say to each other, as plain values.
//!
//! The control plane (signalling, cascade) sends [`command::Command`]s to a shard of the forwarding plane and gets
//! [`event::Event`]s back; both name things by [`ids`] and describe m-lines by [`media`]. This crate knows nobody:
//! neither plane imports the other, both import this.

pub mod command;
pub mod event;
pub mod ids;
pub mod media;
