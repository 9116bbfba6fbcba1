//! Rate control in virtual time.
//!
//! Senders with the real estimator and pacer, receivers that report as libwebrtc does, and a line between them that has
//! a rate, a queue, jitter, losses and moods. Everything follows from a scenario and a seed: the same two give the same
//! packets on every machine. [`world::play`] plays, [`figures::Recording`] says what came of it, [`scenario::all`] is
//! what is played.

pub mod agenda;
pub mod encoder;
pub mod figures;
pub mod plot;
pub mod receiver;
pub mod scenario;
pub mod sender;
pub mod tcp;
pub mod world;
