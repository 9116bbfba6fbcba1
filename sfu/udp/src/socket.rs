//! A non-blocking UDP socket, set up for a server.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::segmentation::Segmentation;

/// What can be chosen.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// Several sockets share the port; the kernel spreads flows among them by address.
    pub reuse_port: bool,
    /// Bytes the kernel holds for us; `None` leaves the system's default. The kernel doubles and caps it.
    pub receive_buffer: Option<usize>,
    pub send_buffer: Option<usize>,
}

/// See the module's description.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    pub(crate) is_v6: bool,
    pub(crate) segmentation: Segmentation,
}

impl UdpSocket {
    pub fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?; // IPv4 has sockets of its own
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if let Some(bytes) = options.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = options.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let bound = Self { socket, is_v6: address.is_ipv6(), segmentation: Segmentation::default() };
        // Never fragment, and never believe a forged "too big": datagrams are below any path's MTU.
        let (level, name, value) = if bound.is_v6 {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
        } else {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
        };
        bound.set_option(level, name, value)?;
        // Kernels before 5.0 lack it; then every datagram comes alone.
        let _ = bound.set_option(libc::SOL_UDP, libc::UDP_GRO, 1);
        Ok(bound)
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP socket"))
    }

    /// What the kernel holds for us, to receive and to send, as [`SocketOptions`] counts it.
    pub fn buffers(&self) -> io::Result<(usize, usize)> {
        Ok((self.socket.recv_buffer_size()? / 2, self.socket.send_buffer_size()? / 2))
    }

    /// Whether runs leave as one message each at present.
    pub fn segments(&self) -> bool {
        self.segmentation.is_on()
    }

    fn set_option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: the pointer and length are those of a live c_int.
        let result = unsafe {
            libc::setsockopt(
                self.as_raw_fd(),
                level,
                name,
                std::ptr::from_ref(&value).cast(),
                std::mem::size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
