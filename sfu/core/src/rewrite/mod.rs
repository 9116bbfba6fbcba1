//! What turns ingress packets into one continuous egress stream: which packets go ([`select`]), and the numbers they
//! get ([`sequence`], [`timeline`], [`vp8`], [`frame_number`], [`markers`]).
//!
//! All of it belongs to one subscription and may cost 1 KiB. [`sequence::SequenceMap`] decides the egress number;
//! the others follow it, so that late packets and retransmissions get the numbers they had or would have had.

mod epochs;
pub mod frame_number;
pub mod markers;
pub mod select;
pub mod sequence;
mod skipped;
pub mod timeline;
pub mod vp8;
