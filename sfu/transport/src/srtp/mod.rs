//! SRTP and SRTCP ([RFC 3711](https://www.rfc-editor.org/rfc/rfc3711),
//! [RFC 7714](https://www.rfc-editor.org/rfc/rfc7714)): one context a direction, no allocation per packet.

mod cipher;
mod egress;
mod ingress;
mod keys;
mod replay;

pub use egress::{Plain, SrtpEgress};
pub use ingress::{MAX_SSRCS, Opened, SrtpError, SrtpIngress};
pub use keys::{Profile, SrtpKeys};
