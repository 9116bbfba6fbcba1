//! The Matrix side of a focus: who a person is, what they may do, and what their homeserver is told.
//!
//! This crate must not know `weir-core` nor `weir-livekit`: it says who may do what as plain values, and the focus
//! turns them into tokens, admissions and evictions of the protocol that clients speak.

mod allowance;
pub mod appservice;
pub mod keys;
pub mod leaves;
pub mod names;
pub mod openid;
pub mod policy;
pub mod request;
pub mod rooms;
pub mod service;
pub mod store;
mod uri;
