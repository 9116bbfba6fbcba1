//! Sending a batch.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use crate::address::{self, Storage};
use crate::control::Control;
use crate::socket::UdpSocket;

/// Messages of one system call.
const MAX_MESSAGES: usize = 64;
/// A full device queue is given this many chances; media that still finds no place is better lost than late.
const MAX_RETRIES: usize = 3;

/// Datagrams to one address: all of one size but the last, which may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    pub to: SocketAddr,
    pub bytes: &'a [u8],
    pub segment: usize,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Messages given to the kernel, and the datagrams in them.
    pub messages: u64,
    pub datagrams: u64,
    /// Datagrams the kernel did not take.
    pub dropped: u64,
}

/// Headers for a batch, used over and over.
pub struct SendBatch {
    addresses: Box<[Storage; MAX_MESSAGES]>,
    controls: Box<[Control; MAX_MESSAGES]>,
    vectors: Box<[libc::iovec; MAX_MESSAGES]>,
    headers: Box<[libc::mmsghdr; MAX_MESSAGES]>,
    datagrams: [u64; MAX_MESSAGES],
    filled: usize,
}

// SAFETY: between calls the raw pointers are not followed; within one they are set anew.
unsafe impl Send for SendBatch {}

impl Default for SendBatch {
    fn default() -> Self {
        // SAFETY: all zeroes is a valid iovec and a valid mmsghdr: null pointers and no lengths.
        let (vectors, headers) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            addresses: Box::new([address::empty(); MAX_MESSAGES]),
            controls: Box::new([Control::EMPTY; MAX_MESSAGES]),
            vectors: Box::new(vectors),
            headers: Box::new(headers),
            datagrams: [0; MAX_MESSAGES],
            filled: 0,
        }
    }
}

impl SendBatch {
    /// Sends runs, each as one message that the kernel cuts apart, or where it cannot, datagram by datagram.
    pub fn send<'a>(
        &mut self,
        socket: &UdpSocket,
        runs: impl IntoIterator<Item = Segments<'a>>,
    ) -> SendReport {
        let mut report = SendReport::default();
        for run in runs {
            if run.bytes.is_empty() || run.segment == 0 {
                continue;
            }
            if run.bytes.len() <= run.segment || socket.segmentation.takes_next() {
                self.push(socket, run, &mut report);
            } else {
                for datagram in run.bytes.chunks(run.segment) {
                    let single = Segments { bytes: datagram, segment: datagram.len(), ..run };
                    self.push(socket, single, &mut report);
                }
            }
        }
        self.flush(socket, &mut report);
        report
    }

    fn push<'a>(&mut self, socket: &UdpSocket, run: Segments<'a>, report: &mut SendReport) {
        let index = self.filled;
        self.vectors[index] =
            libc::iovec { iov_base: run.bytes.as_ptr().cast_mut().cast(), iov_len: run.bytes.len() };
        let header = &mut self.headers[index].msg_hdr;
        header.msg_namelen = address::write(run.to, socket.is_v6, &mut self.addresses[index]);
        header.msg_name = std::ptr::from_mut(&mut self.addresses[index]).cast();
        header.msg_iov = &raw mut self.vectors[index];
        header.msg_iovlen = 1;
        if run.bytes.len() > run.segment {
            let (control, len) = Control::segment(run.segment as u16);
            self.controls[index] = control;
            header.msg_control = std::ptr::from_mut(&mut self.controls[index]).cast();
            header.msg_controllen = len as _;
        } else {
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
        }
        self.datagrams[index] = run.bytes.len().div_ceil(run.segment) as u64;
        self.filled += 1;
        if self.filled == MAX_MESSAGES {
            self.flush(socket, report);
        }
    }

    fn flush(&mut self, socket: &UdpSocket, report: &mut SendReport) {
        let filled = std::mem::take(&mut self.filled);
        let mut next = 0;
        let mut retries = 0;
        while next < filled {
            // SAFETY: headers up to `filled` point to addresses, vectors and controls of this batch, and to bytes
            // borrowed by the caller of `send` for as long as it runs.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers[next..filled].as_mut_ptr(),
                    (filled - next) as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            if sent > 0 {
                let sent = next..next + sent as usize;
                let messages = sent.len() as u64;
                let datagrams = self.datagrams[sent.clone()].iter().sum::<u64>();
                if datagrams > messages {
                    socket.segmentation.on_cut();
                }
                report.messages += messages;
                report.datagrams += datagrams;
                next = sent.end;
                continue;
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::ENOBUFS) if retries < MAX_RETRIES => retries += 1,
                // The device or the kernel cannot segment, or the destination is at fault; then it takes nothing at all.
                Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP) if self.datagrams[next] > 1 => {
                    if self.send_apart(socket, next, report)
                        && let Some(to) = address::read(&self.addresses[next])
                    {
                        socket.segmentation.on_refused(to);
                    }
                    next += 1;
                }
                _ => {
                    report.dropped += self.datagrams[next];
                    next += 1;
                }
            }
        }
    }

    /// One message's datagrams by themselves. Says whether the kernel took any.
    fn send_apart(&mut self, socket: &UdpSocket, index: usize, report: &mut SendReport) -> bool {
        let before = report.messages;
        let vector = self.vectors[index];
        let count = self.datagrams[index] as usize;
        // SAFETY: the vector still describes bytes borrowed by the caller of `send`.
        let bytes = unsafe { std::slice::from_raw_parts(vector.iov_base.cast::<u8>(), vector.iov_len) };
        let control = &self.controls[index];
        let segment = control.segment_size().unwrap_or(bytes.len().div_ceil(count)).max(1);
        let header = &self.headers[index].msg_hdr;
        for datagram in bytes.chunks(segment) {
            // SAFETY: the name is the header's own; the bytes are a live slice.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    datagram.as_ptr().cast(),
                    datagram.len(),
                    libc::MSG_DONTWAIT,
                    header.msg_name.cast(),
                    header.msg_namelen,
                )
            };
            if sent < 0 {
                report.dropped += 1;
            } else {
                report.messages += 1;
                report.datagrams += 1;
            }
        }
        report.messages > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::ReceiveBatch;
    use crate::segmentation::ASK_AGAIN_AFTER;
    use crate::socket::SocketOptions;

    fn pair(address: &str) -> (UdpSocket, UdpSocket) {
        let bind = || UdpSocket::bind(address.parse().unwrap(), SocketOptions::default()).unwrap();
        (bind(), bind())
    }

    /// Everything that arrives, in order. Loopback delivers before the sender's call returns.
    fn drain(socket: &UdpSocket) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut batch = ReceiveBatch::default();
        let mut all = Vec::new();
        while batch.receive(socket).unwrap() > 0 {
            for message in batch.messages() {
                let from = message.from;
                all.extend(message.datagrams().map(|datagram| (from, datagram.to_vec())));
            }
        }
        all
    }

    fn numbered(count: usize, size: usize) -> Vec<u8> {
        (0..count).flat_map(|number| std::iter::repeat_n(number as u8, size)).collect()
    }

    #[test]
    fn a_run_arrives_as_the_datagrams_it_was_made_of() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (from, to) = pair(address);
            let mut bytes = numbered(20, 1_200);
            bytes.extend([99; 700]);
            let run = Segments { to: to.local_addr().unwrap(), bytes: &bytes, segment: 1_200 };
            let report = SendBatch::default().send(&from, [run]);
            assert_eq!(report, SendReport { messages: 1, datagrams: 21, dropped: 0 });
            let received = drain(&to);
            assert_eq!(received.len(), 21);
            for (number, (sender, datagram)) in received.iter().enumerate().take(20) {
                assert_eq!(*sender, from.local_addr().unwrap());
                assert_eq!(*datagram, vec![number as u8; 1_200]);
            }
            assert_eq!(received[20].1, vec![99; 700]);
        }
    }

    #[test]
    fn runs_of_several_receivers_leave_in_one_batch() {
        let (from, first) = pair("127.0.0.1:0");
        let (_, second) = pair("127.0.0.1:0");
        let bytes = numbered(3, 500);
        let run = |to: &UdpSocket| Segments { to: to.local_addr().unwrap(), bytes: &bytes, segment: 500 };
        let runs: Vec<_> = (0..100).map(|index| run(if index % 2 == 0 { &first } else { &second })).collect();
        let report = SendBatch::default().send(&from, runs);
        assert_eq!(report, SendReport { messages: 100, datagrams: 300, dropped: 0 });
        assert_eq!((drain(&first).len(), drain(&second).len()), (150, 150));
    }

    #[test]
    fn without_segmentation_the_same_datagrams_arrive() {
        let (from, to) = pair("127.0.0.1:0");
        from.segmentation.give_up();
        let bytes = numbered(5, 300);
        let run = Segments { to: to.local_addr().unwrap(), bytes: &bytes, segment: 300 };
        let report = SendBatch::default().send(&from, [run]);
        assert_eq!(report, SendReport { messages: 5, datagrams: 5, dropped: 0 });
        let sizes: Vec<usize> = drain(&to).iter().map(|(_, datagram)| datagram.len()).collect();
        assert_eq!(sizes, [300; 5]);
    }

    #[test]
    fn a_segment_too_large_for_the_kernel_is_sent_apart() {
        // More segments than any kernel takes in one message (128 since Linux 6.9, 64 before).
        let (from, to) = pair("127.0.0.1:0");
        let bytes = numbered(200, 10);
        let run = Segments { to: to.local_addr().unwrap(), bytes: &bytes, segment: 10 };
        let report = SendBatch::default().send(&from, [run]);
        assert_eq!((report.datagrams, report.dropped), (200, 0));
        assert!(from.segments(), "which says nothing of other runs");
        let received = drain(&to);
        assert_eq!(received.len(), 200);
        assert!(received.iter().enumerate().all(|(number, (_, datagram))| *datagram == [number as u8; 10]));
    }

    /// It turned segmentation off for everybody, for good.
    #[test]
    fn a_destination_that_takes_nothing_costs_others_nothing() {
        let (from, to) = pair("127.0.0.1:0");
        let bytes = numbered(5, 300);
        let to_port_0 = |host| Segments { to: ([127, 0, 0, host], 0).into(), bytes: &bytes, segment: 300 };
        let bad = SendBatch::default().send(&from, (1..100).map(to_port_0));
        assert_eq!(bad, SendReport { messages: 0, datagrams: 0, dropped: 99 * 5 });
        let run = Segments { to: to.local_addr().unwrap(), bytes: &bytes, segment: 300 };
        let good = SendBatch::default().send(&from, [run]);
        assert_eq!(good, SendReport { messages: 1, datagrams: 5, dropped: 0 });
    }

    #[test]
    fn what_the_kernel_cuts_for_nobody_is_cut_by_us_for_a_while() {
        let (from, to) = pair("127.0.0.1:0");
        let (port, bytes) = (to.local_addr().unwrap().port(), numbered(200, 10));
        // Nobody listens at the others, and loopback takes it.
        for host in 1..=4 {
            assert!(from.segments());
            let run = Segments { to: ([127, 0, 0, host], port).into(), bytes: &bytes, segment: 10 };
            SendBatch::default().send(&from, [run]);
        }
        assert!(!from.segments());
        let run = Segments { to: to.local_addr().unwrap(), bytes: &bytes[..20], segment: 10 };
        let mut batch = SendBatch::default();
        assert_eq!(batch.send(&from, [run]), SendReport { messages: 2, datagrams: 2, dropped: 0 });
        batch.send(&from, std::iter::repeat_n(run, ASK_AGAIN_AFTER as usize));
        assert_eq!(batch.send(&from, [run]), SendReport { messages: 1, datagrams: 2, dropped: 0 });
    }

    #[test]
    fn what_the_kernel_refuses_is_counted_and_the_rest_goes_on() {
        let (from, to) = pair("127.0.0.1:0");
        let good = [1; 100];
        let too_large = [2; 65_530];
        let address = to.local_addr().unwrap();
        let runs = [
            Segments { to: address, bytes: &too_large, segment: 65_530 },
            Segments { to: address, bytes: &good, segment: 100 },
        ];
        let report = SendBatch::default().send(&from, runs);
        assert_eq!(report, SendReport { messages: 1, datagrams: 1, dropped: 1 });
        assert_eq!(drain(&to).len(), 1);
    }

    #[test]
    fn two_sockets_share_a_port() {
        let options = SocketOptions { reuse_port: true, ..SocketOptions::default() };
        let first = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
        let second = UdpSocket::bind(first.local_addr().unwrap(), options).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
        let alone = UdpSocket::bind(first.local_addr().unwrap(), SocketOptions::default());
        assert!(alone.is_err());
    }
}
