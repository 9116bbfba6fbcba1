//! Rate control in virtual time, in flows and in calls.
//!
//! A flow is the real estimator and pacer, a receiver that reports as libwebrtc does, and between them a line that has a
//! rate, a queue, jitter, losses and moods. A call ([`call`]) is the whole forwarding plane between scripted clients on
//! such a line. Everything follows from a scenario and a seed: the same two give the same packets on every machine.
//!
//! Of flows [`world::play`] plays, [`figures::Recording`] says what came of it, [`scenario::all`] is what is played. Of
//! calls [`call::play::play`], [`call::recording::Recording`] and [`call::scenario::all`].

pub mod agenda;
pub mod call;
pub mod chart;
pub mod encoder;
pub mod figures;
pub mod plot;
pub mod receiver;
pub mod scenario;
pub mod sender;
pub mod tcp;
pub mod world;
