//! Sleeping until a descriptor is readable, another thread calls, or it is time.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Wakes a [`Poller`] from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight live bytes, as an eventfd wants. It fails only when 2^64 wakes are pending, which is awake.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    fn reset(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight live bytes; the descriptor does not block.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

/// What epoll says of the waker's event; of the others it says nothing.
const WOKEN: u64 = 1;

/// Watches descriptors for readability, level-triggered.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    waker: Waker,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; what comes back is a new descriptor that nobody else owns, or an error.
        let (epoll, event) = unsafe {
            let epoll = owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            let event = owned(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?;
            (epoll, event)
        };
        let poller = Self { epoll, waker: Waker(Arc::new(event)) };
        poller.add(poller.waker.0.as_raw_fd(), WOKEN)?;
        Ok(poller)
    }

    /// The descriptor must stay open as long as the poller.
    pub fn watch(&self, descriptor: RawFd) -> io::Result<()> {
        self.add(descriptor, 0)
    }

    fn add(&self, descriptor: RawFd, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: data };
        // SAFETY: the event is live for the call.
        let result = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &raw mut event)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Sleeps until something is readable, somebody woke us, or `timeout` has passed; never longer.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
        // Rounded up: waking a little late costs less than spinning through the last millisecond.
        let millis = timeout.as_micros().div_ceil(1_000).min(60_000) as libc::c_int;
        // SAFETY: room for as many events as is said.
        let result = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as libc::c_int, millis)
        };
        if let Ok(ready) = usize::try_from(result) {
            // Nearly every wake-up is a datagram's: it need not pay for a read of the waker.
            if events.iter().take(ready).any(|event| event.u64 == WOKEN) {
                self.waker.reset();
            }
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        }
    }
}

/// # Safety
///
/// `descriptor` must be new and owned by nobody, or negative for an error in `errno`.
unsafe fn owned(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as promised by the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SocketOptions, UdpSocket};

    #[test]
    fn another_thread_ends_the_sleep() {
        let poller = Poller::new().unwrap();
        let waker = poller.waker();
        let thread = std::thread::spawn(move || waker.wake());
        poller.wait(Duration::from_secs(60)).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn a_datagram_ends_the_sleep() {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), SocketOptions::default()).unwrap();
        let poller = Poller::new().unwrap();
        poller.watch(socket.as_raw_fd()).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
        poller.wait(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn without_anything_it_is_the_timeout() {
        Poller::new().unwrap().wait(Duration::from_millis(1)).unwrap();
    }
}
