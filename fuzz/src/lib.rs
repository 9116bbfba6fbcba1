//! Fuzz targets: what anybody may send us, and what must hold then.
//!
//! A [`Target`] is a plain function of some bytes that panics when an invariant is broken. `cargo test` replays the
//! inputs in `seeds/` through all of them; `cargo xtask fuzz` lets libFuzzer look for others. README.md says how.

mod clock;
mod input;
mod targets;

pub use input::Input;

/// Something that takes bytes from outside.
#[derive(Clone, Copy)]
pub struct Target {
    /// Also the name of its folder of seeds.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All targets, the innermost parsers first.
pub const TARGETS: &[Target] = &[
    Target { name: "rtp_packet", run: targets::rtp_packet::run },
    Target { name: "payload_descriptor", run: targets::payload_descriptor::run },
    Target { name: "dependency_descriptor", run: targets::dependency_descriptor::run },
    Target { name: "rtcp", run: targets::rtcp::run },
    Target { name: "rewrite", run: targets::rewrite::run },
    Target { name: "negotiation", run: targets::negotiation::run },
    Target { name: "join_request", run: targets::join_request::run },
    Target { name: "token", run: targets::token::run },
    Target { name: "room", run: targets::room::run },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}
