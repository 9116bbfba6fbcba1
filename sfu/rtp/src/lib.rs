//! RTP and its companions as values: bytes in, values out, and back.
//!
//! Nothing here does I/O, keeps time or allocates. Parsers take a slice and return borrowed views or small `Copy`
//! values; builders write into a buffer their caller owns. Every parser is total: whatever a peer sends, the
//! answer is a value or `None`/an error, never a panic, and no loop runs longer than the bytes that were sent
//! allow.
//!
//! A packet's way in: [`header::classify`] the datagram, [`header::RtpHeader::parse`] it,
//! [`extension::IngressExtensions::read`] what the header says, and after decryption
//! [`payload::PayloadInfo::read`] what the payload's clear part says. [`rtcp::Compound`] iterates RTCP, [`rtcp::RtcpWriter`]
//! builds it.

pub mod av1;
mod bits;
mod bytes;
pub mod dependency_descriptor;
pub mod extension;
pub mod h264;
pub mod header;
pub mod payload;
pub mod red;
pub mod rtcp;
pub mod rtx;
pub mod sequence;
pub mod stun;
pub mod vp8;
pub mod vp9;
