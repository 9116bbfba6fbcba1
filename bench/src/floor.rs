//! The floor: receive, open once, then for each subscriber write a header, seal straight from the received packet,
//! and send. Nothing else: no replay window, no ring, no numbers but an offset, no reports.
//!
//! It uses the system calls themselves rather than our own batches, so that these are measured too.

#![expect(unsafe_code, reason = "recvmmsg and sendmmsg have no safe form that takes batches")]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use weir_udp::SocketOptions;

use crate::publisher::HEADER;

const TAG: usize = 16;
const FIXED_HEADER: usize = 12;
/// Packets that one call sends.
const BATCH: usize = 64;
/// Room for a received packet.
const ROOM: usize = 2_048;

/// A key and what goes with it.
struct Srtp {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Srtp {
    fn new(key_len: usize, number: usize) -> Self {
        let algorithm = if key_len == 32 { &AES_256_GCM } else { &AES_128_GCM };
        let byte = |at: usize| (number * 31 + at * 7) as u8;
        let key: [u8; 32] = std::array::from_fn(byte);
        let key = UnboundKey::new(algorithm, &key[..key_len]).expect("the algorithm's length");
        Self { key: LessSafeKey::new(key), salt: std::array::from_fn(byte) }
    }

    fn nonce(&self, header: &[u8]) -> Nonce {
        let mut nonce = [0; 12];
        nonce[2..6].copy_from_slice(&header[8..12]);
        nonce[10..12].copy_from_slice(&header[2..4]);
        Nonce::assume_unique_for_key(std::array::from_fn(|at| nonce[at] ^ self.salt[at]))
    }

    fn open(&self, packet: &mut [u8]) {
        let (header, body) = packet.split_at_mut(HEADER);
        self.key.open_in_place(self.nonce(header), Aad::from(&*header), body).expect("it is authentic");
    }

    /// Seals into `out`, which is as long as the result and begins with the header.
    fn seal(&self, payload: &[u8], out: &mut [u8]) {
        let (header, body) = out.split_at_mut(FIXED_HEADER);
        let (body, tag) = body.split_at_mut(payload.len());
        let sealed = self.key.seal_out_of_place_scatter(
            self.nonce(header),
            Aad::from(&*header),
            payload,
            body,
            &[],
            tag,
        );
        sealed.expect("a packet is short");
    }
}

struct Subscriber {
    srtp: Srtp,
    address: libc::sockaddr_in,
    ssrc: u32,
    sequence_offset: u16,
    timestamp_offset: u32,
}

impl Subscriber {
    fn write(&self, packet: &[u8], out: &mut [u8]) {
        let sequence = u16::from_be_bytes([packet[2], packet[3]]).wrapping_add(self.sequence_offset);
        let timestamp = u32::from_be_bytes(*packet[4..].first_chunk().expect("a header"));
        out[0] = 0x80;
        out[1] = packet[1];
        out[2..4].copy_from_slice(&sequence.to_be_bytes());
        out[4..8].copy_from_slice(&timestamp.wrapping_add(self.timestamp_offset).to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        self.srtp.seal(&packet[HEADER..packet.len() - TAG], out);
    }
}

/// Where packets come from and go to.
enum Wire {
    Memory,
    Sockets { focus: weir_udp::UdpSocket, feeder: UdpSocket, to: SocketAddr },
}

pub struct Floor {
    publisher: Srtp,
    subscribers: Vec<Subscriber>,
    arrivals: usize,
    /// Protected packets as the publisher sends them.
    feed: Vec<Vec<u8>>,
    wire: Wire,
    inbox: Inbox,
    outbox: Outbox,
}

impl Floor {
    /// `arrivals` packets of `size` bytes come together and leave towards each subscriber as one run; without
    /// `sinks`, in memory.
    pub fn new(
        key_len: usize,
        subscribers: usize,
        arrivals: usize,
        size: usize,
        sinks: Option<&[SocketAddr]>,
    ) -> Self {
        let publisher = Srtp::new(key_len, 1_000_000);
        let feed = (0..arrivals)
            .map(|sequence| {
                let mut packet = vec![0x55; size];
                packet[..2].copy_from_slice(&[0x90, 96]);
                packet[2..4].copy_from_slice(&(sequence as u16).to_be_bytes());
                packet[12..16].copy_from_slice(&[0xbe, 0xde, 0, 2]);
                let (header, body) = packet.split_at_mut(HEADER);
                let nonce = publisher.nonce(header);
                let tag = publisher.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body);
                let tag = tag.expect("a packet is short");
                packet.extend(tag.as_ref());
                packet
            })
            .collect();
        let subscribers = (0..subscribers)
            .map(|at| Subscriber {
                srtp: Srtp::new(key_len, at),
                address: raw(sinks.map_or(([127, 0, 0, 1], 9).into(), |sinks| sinks[at])),
                ssrc: 0x1000_0000 + at as u32,
                sequence_offset: (at as u16).wrapping_mul(7_919),
                timestamp_offset: (at as u32).wrapping_mul(90_001),
            })
            .collect();
        let wire = match sinks {
            None => Wire::Memory,
            Some(_) => {
                let address = "127.0.0.1:0".parse().expect("an address");
                let options = SocketOptions { receive_buffer: Some(4 << 20), ..SocketOptions::default() };
                let focus = weir_udp::UdpSocket::bind(address, options).expect("a port is free");
                let to = focus.local_addr().expect("it is bound");
                Wire::Sockets { focus, feeder: crate::sinks::socket(), to }
            }
        };
        let segment = size - HEADER + FIXED_HEADER + TAG;
        Self {
            publisher,
            subscribers,
            arrivals,
            feed,
            wire,
            inbox: Inbox::new(arrivals),
            outbox: Outbox::new((BATCH / arrivals).max(1), arrivals, segment),
        }
    }

    /// Off the clock: the next packets arrive.
    pub fn refill(&mut self) {
        match &self.wire {
            Wire::Memory => {
                for (at, packet) in self.feed.iter().enumerate() {
                    self.inbox.fill(at, packet);
                }
            }
            Wire::Sockets { feeder, to, .. } => {
                for packet in &self.feed {
                    feeder.send_to(packet, *to).expect("sent");
                }
            }
        }
    }

    /// Forwards what arrived, if all did. Says how many packets left.
    pub fn turn(&mut self) -> u64 {
        if let Wire::Sockets { focus, .. } = &self.wire
            && !self.inbox.receive(focus.as_raw_fd())
        {
            return 0;
        }
        for at in 0..self.arrivals {
            self.publisher.open(self.inbox.packet(at));
        }
        let socket = match &self.wire {
            Wire::Memory => None,
            Wire::Sockets { focus, .. } => Some(focus.as_raw_fd()),
        };
        for subscriber in &self.subscribers {
            let message = self.outbox.next(socket, &subscriber.address);
            for at in 0..self.arrivals {
                subscriber.write(self.inbox.packet(at), self.outbox.packet(message, at));
            }
        }
        self.outbox.flush(socket);
        (self.arrivals * self.subscribers.len()) as u64
    }
}

fn raw(address: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(address) = address else { unreachable!("sinks are IPv4") };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

/// Buffers for one call that receives.
struct Inbox {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    /// How many of the messages that are to come together have come.
    received: usize,
    headers: Vec<libc::mmsghdr>,
    // The headers point into these and into `bytes`; a vector's contents stay where they are.
    _parts: Vec<libc::iovec>,
    _names: Vec<libc::sockaddr_in>,
    _controls: Vec<[u64; 4]>,
}

impl Inbox {
    fn new(messages: usize) -> Self {
        let mut bytes = vec![0; messages * ROOM];
        // SAFETY: all zeroes is a valid sockaddr_in.
        let mut names: Vec<libc::sockaddr_in> = vec![unsafe { std::mem::zeroed() }; messages];
        let mut controls = vec![[0; 4]; messages];
        let mut parts: Vec<libc::iovec> = bytes
            .chunks_mut(ROOM)
            .map(|room| libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: ROOM })
            .collect();
        let headers = (0..messages)
            .map(|at| {
                // SAFETY: all zeroes is a valid mmsghdr.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_name = std::ptr::from_mut(&mut names[at]).cast();
                header.msg_hdr.msg_iov = &raw mut parts[at];
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = std::ptr::from_mut(&mut controls[at]).cast();
                header
            })
            .collect();
        Self {
            bytes,
            lengths: vec![0; messages],
            received: 0,
            headers,
            _parts: parts,
            _names: names,
            _controls: controls,
        }
    }

    /// Whether all buffers are full now; else there is more to come.
    fn receive(&mut self, socket: RawFd) -> bool {
        let headers = &mut self.headers[self.received..];
        for header in headers.iter_mut() {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = size_of::<[u64; 4]>();
        }
        // SAFETY: the headers point into this struct's buffers.
        let came = unsafe {
            match headers {
                [only] => {
                    let len = libc::recvmsg(socket, &raw mut only.msg_hdr, libc::MSG_DONTWAIT);
                    only.msg_len = len.max(0) as u32;
                    i32::from(len >= 0)
                }
                headers => libc::recvmmsg(
                    socket,
                    headers.as_mut_ptr(),
                    headers.len() as u32,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                ),
            }
        };
        self.received += came.max(0) as usize;
        if self.received < self.headers.len() {
            return false;
        }
        self.received = 0;
        for (length, header) in self.lengths.iter_mut().zip(&self.headers) {
            *length = header.msg_len as usize;
        }
        true
    }

    fn fill(&mut self, message: usize, packet: &[u8]) {
        self.lengths[message] = packet.len();
        self.packet(message).copy_from_slice(packet);
    }

    fn packet(&mut self, message: usize) -> &mut [u8] {
        &mut self.bytes[message * ROOM..][..self.lengths[message]]
    }
}

/// UDP_SEGMENT for one message.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct SegmentControl {
    header: libc::cmsghdr,
    bytes: u16,
}

/// Messages of several equal packets, for one call that sends.
struct Outbox {
    segment: usize,
    message_bytes: usize,
    filled: usize,
    bytes: Vec<u8>,
    names: Vec<libc::sockaddr_in>,
    headers: Vec<libc::mmsghdr>,
    // As in `Inbox`.
    _parts: Vec<libc::iovec>,
    _controls: Vec<SegmentControl>,
}

impl Outbox {
    fn new(messages: usize, segments: usize, segment: usize) -> Self {
        let message_bytes = segments * segment;
        let mut bytes = vec![0; messages * message_bytes];
        // SAFETY: all zeroes is a valid sockaddr_in.
        let mut names: Vec<libc::sockaddr_in> = vec![unsafe { std::mem::zeroed() }; messages];
        let mut parts: Vec<libc::iovec> = bytes
            .chunks_mut(message_bytes)
            .map(|message| libc::iovec { iov_base: message.as_mut_ptr().cast(), iov_len: message_bytes })
            .collect();
        let header = libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + size_of::<u16>(),
            cmsg_level: libc::SOL_UDP,
            cmsg_type: libc::UDP_SEGMENT,
        };
        let mut controls = vec![SegmentControl { header, bytes: segment as u16 }; messages];
        let headers = (0..messages)
            .map(|at| {
                // SAFETY: all zeroes is a valid mmsghdr.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_name = std::ptr::from_mut(&mut names[at]).cast();
                header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
                header.msg_hdr.msg_iov = &raw mut parts[at];
                header.msg_hdr.msg_iovlen = 1;
                if segments > 1 {
                    header.msg_hdr.msg_control = std::ptr::from_mut(&mut controls[at]).cast();
                    header.msg_hdr.msg_controllen = size_of::<SegmentControl>();
                }
                header
            })
            .collect();
        Self { segment, message_bytes, filled: 0, bytes, names, headers, _parts: parts, _controls: controls }
    }

    /// The message to write for this address.
    fn next(&mut self, socket: Option<RawFd>, address: &libc::sockaddr_in) -> usize {
        if self.filled == self.headers.len() {
            self.flush(socket);
        }
        self.names[self.filled] = *address;
        self.filled += 1;
        self.filled - 1
    }

    fn packet(&mut self, message: usize, segment: usize) -> &mut [u8] {
        &mut self.bytes[message * self.message_bytes + segment * self.segment..][..self.segment]
    }

    fn flush(&mut self, socket: Option<RawFd>) {
        let filled = std::mem::take(&mut self.filled);
        let Some(socket) = socket.filter(|_| filled > 0) else { return };
        // SAFETY: the headers point into this struct's buffers.
        let sent = unsafe { libc::sendmmsg(socket, self.headers.as_mut_ptr(), filled as u32, 0) };
        assert_eq!(sent, filled as i32, "{}", io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subscriber_could_open_what_it_is_sent() {
        for key_len in [16, 32] {
            let mut floor = Floor::new(key_len, 3, 2, 100, None);
            floor.refill();
            assert_eq!(floor.turn(), 6);
            for (message, subscriber) in floor.subscribers.iter().enumerate() {
                for segment in 0..2 {
                    let packet = floor.outbox.packet(message, segment);
                    let (header, body) = packet.split_at_mut(FIXED_HEADER);
                    let nonce = subscriber.srtp.nonce(header);
                    let plain = subscriber.srtp.key.open_in_place(nonce, Aad::from(&*header), body).unwrap();
                    assert_eq!(plain, vec![0x55; 100 - HEADER]);
                }
            }
        }
    }
}
