//! One peer connection's transport: ICE-lite, DTLS, SRTP and data channels. Sans-IO.
//!
//! Two halves. [`Transport`] is the slow one: it takes STUN and DTLS packets, validates addresses, does the handshake
//! and carries data channels. [`srtp`] is the fast one: contexts made from the handshake's keys, which the forwarding
//! plane owns and calls for every packet. The libraries behind this crate (`is`, `dimpl`, `sctp-proto`, `aws-lc-rs`)
//! appear nowhere else.
//!
//! Drive a [`Transport`] by one mutation ([`Transport::handle_packet`], [`Transport::handle_timeout`], a send), then
//! [`Transport::poll_output`] until it is empty, then [`Transport::poll_timeout`].

mod channels;
mod context;
mod dcep;
pub mod framing;
mod ice;
pub mod srtp;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;

pub use channels::{MAX_MESSAGE_BYTES, SendOutcome};
pub use context::{ContextError, TransportContext};
pub use transport::{Output, SetRemoteError, Transport};

use std::net::SocketAddr;

/// Where a packet came from and where its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    Udp {
        /// Which of the shell's sockets: an answer must leave from the address that was asked.
        socket: u8,
        remote: SocketAddr,
    },
    /// A framed TCP connection ([RFC 4571](https://www.rfc-editor.org/rfc/rfc4571)), numbered by the shell.
    Tcp { connection: u32, remote: SocketAddr },
}

impl Route {
    pub fn remote(self) -> SocketAddr {
        match self {
            Self::Udp { remote, .. } | Self::Tcp { remote, .. } => remote,
        }
    }
}
