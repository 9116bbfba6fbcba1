//! Datagrams in batches: `recvmmsg` with coalescing (GRO), `sendmmsg` with segmentation (GSO), and sleeping on several
//! descriptors (`epoll`).
//!
//! The only crate with unsafe code: the system calls have no safe form that takes batches. Nothing allocates after
//! construction. The limit of open files is raised here as well, since that is such a call, too.

#![expect(unsafe_code, reason = "recvmmsg, sendmmsg and epoll have no safe form that takes batches")]

mod address;
mod control;
mod files;
mod receive;
mod segmentation;
mod send;
mod socket;
mod waker;

pub use files::raise_file_limit;
pub use receive::{MAX_MESSAGES, ReceiveBatch, Received};
pub use send::{Segments, SendBatch, SendReport};
pub use socket::{SocketOptions, UdpSocket};
pub use waker::{Poller, Waker};
