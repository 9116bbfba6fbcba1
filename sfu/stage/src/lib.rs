//! A stage for whole behaviours: one shard, scripted clients on a simulated line, virtual time.
//!
//! The clients are real where the shard can see it: they check with STUN, shake hands with DTLS, seal and open SRTP,
//! answer NACKs and key-frame requests, report. What they publish is made up: every frame says in its payload which
//! frames it needs ([`body`]), so a subscriber can tell what it could decode without trusting any number the shard
//! rewrote.

#![expect(
    clippy::unwrap_used,
    reason = "nothing but tests and simulations runs this: what is wrong ends them"
)]

pub mod body;
pub mod bottleneck;
pub mod chance;
pub mod client;
pub mod codec;
pub mod link;
pub mod playback;
pub mod receiver;
pub mod screen;
pub mod source;
pub mod stage;

pub use source::Shape;
pub use stage::{Neck, Stage, ms, secs};
