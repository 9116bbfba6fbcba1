//! The room as clients see it: through inputs and outputs alone, in virtual time.

#![expect(deprecated, reason = "clients in the field still send and read the protocol's deprecated fields")]
#![expect(clippy::unwrap_used, reason = "what helps tests is test code as well")]

mod client;
mod harness;
mod sdp;
mod tracks;

mod codecs;
mod data;
mod dynacast;
mod hostile;
mod joins;
mod leave;
mod negotiation;
mod permissions;
mod presence;
mod publish;
mod resume;
mod subscribe;
