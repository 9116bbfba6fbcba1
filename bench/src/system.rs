//! Socket options that the standard library does not know.

#![expect(unsafe_code, reason = "setsockopt has no safe form for these")]

use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Beyond the system's maximum if we may, which root may.
pub fn set_receive_buffer(socket: &UdpSocket, bytes: usize) {
    if set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes as i32) != 0 {
        set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes as i32);
    }
}

pub fn set_gro(socket: &UdpSocket) {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
}

fn set(socket: &UdpSocket, level: i32, option: i32, value: i32) -> i32 {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointer and length are those of a live integer.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) }
}
