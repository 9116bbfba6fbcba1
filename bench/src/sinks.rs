//! Where packets end: loopback sockets in place of subscribers.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use socket2::SockRef;

use crate::system;

/// Bytes each roomy sink holds: what a run sends to one subscriber, with the kernel's accounting around it.
const ROOMY: usize = 64 << 20;

/// What becomes of a packet at its sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// Dropped at a socket whose queue is full. The receiver's stack cuts up what left as one run, in the sender's
    /// time: that hides most of what a run saves.
    Full,
    /// Queued whole, as it left (UDP_GRO), and emptied off the clock.
    Queued,
}

impl SinkKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Queued => "queued",
        }
    }
}

pub struct Sinks {
    kind: SinkKind,
    sockets: Vec<UdpSocket>,
    pub addresses: Vec<SocketAddr>,
    buffer: Vec<u8>,
}

impl Sinks {
    pub fn new(kind: SinkKind, count: usize) -> Self {
        let sockets: Vec<UdpSocket> = (0..count).map(|_| socket()).collect();
        let room = if kind == SinkKind::Full { 1 } else { ROOMY };
        for socket in &sockets {
            system::set_receive_buffer(socket, room);
            if kind == SinkKind::Queued {
                system::set_gro(socket);
            }
        }
        let addresses = sockets.iter().map(|socket| socket.local_addr().expect("it is bound")).collect();
        Self { kind, sockets, addresses, buffer: vec![0; 65_536] }
    }

    /// Empties the queues, unless they are meant to be full.
    pub fn drain(&mut self) {
        if self.kind == SinkKind::Queued {
            for socket in &self.sockets {
                while socket.recv(&mut self.buffer).is_ok() {}
            }
        }
    }
}

/// A non-blocking socket on loopback with room for a batch.
pub fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    socket.set_nonblocking(true).expect("a socket can be non-blocking");
    SockRef::from(&socket).set_recv_buffer_size(4 << 20).expect("a buffer can be asked for");
    socket
}
