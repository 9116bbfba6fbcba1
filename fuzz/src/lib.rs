//! Fuzz targets: what anybody may send us, and what must hold then.
//!
//! A [`Target`] is a plain function of some bytes that panics when an invariant is broken. `cargo test` replays the
//! inputs in `seeds/` through all of them; `cargo xtask fuzz` lets libFuzzer look for others. README.md says how.

mod clock;
mod input;
mod targets;

use std::sync::OnceLock;

use weir_transport::TransportContext;

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
    Target { name: "stun", run: targets::stun::run },
    Target { name: "srtp", run: targets::srtp::run },
    Target { name: "ice_tcp", run: targets::ice_tcp::run },
    Target { name: "data_channels", run: targets::data_channels::run },
    Target { name: "transport", run: targets::transport::run },
    Target { name: "negotiation", run: targets::negotiation::run },
    Target { name: "join_request", run: targets::join_request::run },
    Target { name: "token", run: targets::token::run },
    Target { name: "token_request", run: targets::token_request::run },
    Target { name: "vouched_request", run: targets::vouched_request::run },
    Target { name: "transaction", run: targets::transaction::run },
    Target { name: "room", run: targets::room::run },
    Target { name: "shard", run: targets::shard::run },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}

/// Our certificate, made once: making one takes longer than most inputs.
fn context() -> &'static TransportContext {
    static CONTEXT: OnceLock<TransportContext> = OnceLock::new();
    CONTEXT.get_or_init(|| TransportContext::generate().expect("a certificate"))
}

/// A client's.
fn client_context() -> &'static TransportContext {
    static CONTEXT: OnceLock<TransportContext> = OnceLock::new();
    CONTEXT.get_or_init(|| TransportContext::generate().expect("a certificate"))
}
