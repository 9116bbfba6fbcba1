//! One module a target. Each begins with what its input means.

pub mod data_channels;
pub mod dependency_descriptor;
pub mod ice_tcp;
pub mod join_request;
pub mod negotiation;
pub mod payload_descriptor;
pub mod rewrite;
pub mod room;
pub mod rtcp;
pub mod rtp_packet;
pub mod shard;
pub mod srtp;
pub mod stun;
pub mod token;
pub mod token_request;
pub mod transaction;
pub mod transport;
pub mod vouched_request;
