//! One module a target. Each begins with what its input means.

pub mod dependency_descriptor;
pub mod join_request;
pub mod negotiation;
pub mod payload_descriptor;
pub mod rewrite;
pub mod room;
pub mod rtcp;
pub mod rtp_packet;
pub mod token;
