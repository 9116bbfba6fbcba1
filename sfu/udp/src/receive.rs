//! Receiving a batch.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use crate::address::{self, Storage};
use crate::control::Control;
use crate::socket::UdpSocket;

/// Messages of one system call; each may hold many datagrams of one sender.
pub const MAX_MESSAGES: usize = 64;
/// The most the kernel coalesces into one message.
const MESSAGE_BYTES: usize = 65_536;

/// Buffers for a batch, used over and over. 4 MiB, of which only what is used becomes resident.
pub struct ReceiveBatch {
    buffer: Vec<u8>,
    addresses: Box<[Storage; MAX_MESSAGES]>,
    controls: Box<[Control; MAX_MESSAGES]>,
    vectors: Box<[libc::iovec; MAX_MESSAGES]>,
    headers: Box<[libc::mmsghdr; MAX_MESSAGES]>,
    received: usize,
    /// So many headers are not as the kernel must find them: it has overwritten lengths and flags.
    used: usize,
}

// SAFETY: the raw pointers point into the boxes and the vector next to them, which move along.
unsafe impl Send for ReceiveBatch {}

/// A datagram, or several equal ones of one sender in a row.
pub struct Received<'a> {
    pub from: SocketAddr,
    pub bytes: &'a mut [u8],
    /// Size of each datagram but the last.
    pub segment: usize,
}

impl<'a> Received<'a> {
    pub fn datagrams(self) -> impl Iterator<Item = &'a mut [u8]> {
        self.bytes.chunks_mut(self.segment.max(1))
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        // SAFETY: all zeroes is a valid iovec and a valid mmsghdr: null pointers and no lengths.
        let (vectors, headers) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            buffer: vec![0; MAX_MESSAGES * MESSAGE_BYTES],
            addresses: Box::new([address::empty(); MAX_MESSAGES]),
            controls: Box::new([Control::EMPTY; MAX_MESSAGES]),
            vectors: Box::new(vectors),
            headers: Box::new(headers),
            received: 0,
            used: MAX_MESSAGES,
        }
    }
}

impl ReceiveBatch {
    /// Takes what is there, up to [`MAX_MESSAGES`], without waiting. Says how many messages came; 0 is none.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for index in 0..self.used {
            self.vectors[index] = libc::iovec {
                iov_base: self.buffer[index * MESSAGE_BYTES..].as_mut_ptr().cast(),
                iov_len: MESSAGE_BYTES,
            };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = std::ptr::from_mut(&mut self.addresses[index]).cast();
            header.msg_namelen = std::mem::size_of::<Storage>() as libc::socklen_t;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = std::ptr::from_mut(&mut self.controls[index]).cast();
            header.msg_controllen = Control::BYTES as _;
            header.msg_flags = 0;
        }
        self.received = 0;
        // SAFETY: every pointer in the headers is to memory this batch owns, of the length that stands beside it.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                MAX_MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        self.used = usize::try_from(result).unwrap_or(1).max(1);
        if result < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                // Interrupted: there is time to come back. Refused: an earlier datagram of ours found nobody.
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused => {
                    Ok(0)
                }
                _ => Err(error),
            };
        }
        self.received = result as usize;
        Ok(self.received)
    }

    /// What came, in the order of arrival. Messages of unknown families or cut short are left out.
    pub fn messages(&mut self) -> impl Iterator<Item = Received<'_>> {
        let received = self.received;
        let headers = self.headers.iter().zip(self.addresses.iter()).take(received);
        headers.zip(self.buffer.chunks_mut(MESSAGE_BYTES)).filter_map(|((header, from), buffer)| {
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                return None;
            }
            let bytes = &mut buffer[..header.msg_len as usize];
            let segment = Control::received_segment(&header.msg_hdr).unwrap_or(bytes.len());
            Some(Received { from: address::read(from)?, bytes, segment })
        })
    }
}
