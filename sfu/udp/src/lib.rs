//! Datagrams in batches: `recvmmsg` with coalescing (GRO), `sendmmsg` with segmentation (GSO), and sleeping on several
//! descriptors (`epoll`).
//!
//! The only crate with unsafe code: the system calls have no safe form that takes batches. Nothing allocates after
//! construction.

#![expect(unsafe_code, reason = "recvmmsg, sendmmsg and epoll have no safe form that takes batches")]

mod address;
mod control;
mod receive;
mod send;
mod socket;
mod waker;

pub use receive::{MAX_MESSAGES, ReceiveBatch, Received};
pub use send::{Segments, SendBatch, SendReport};
pub use socket::{SocketOptions, UdpSocket};
pub use waker::{Poller, Waker};
