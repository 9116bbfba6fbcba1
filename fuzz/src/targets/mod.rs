//! One module a target. Each begins with what its input means.

pub mod dependency_descriptor;
pub mod payload_descriptor;
pub mod rewrite;
pub mod rtcp;
pub mod rtp_packet;
