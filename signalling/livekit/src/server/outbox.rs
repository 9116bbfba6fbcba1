//! What waits for a client's socket: bounded in number and in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Messages that wait at most. A client that takes no more is closed, and comes back to a fresh snapshot.
const MAX_MESSAGES: usize = 1_024;
/// Bytes of them: a snapshot of a thousand participants with some metadata, several times over.
const MAX_BYTES: usize = 8 * 1024 * 1024;

pub(super) fn channel() -> (Sender, Receiver) {
    let (messages_in, messages) = mpsc::channel(MAX_MESSAGES);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Sender { messages: messages_in, bytes: Arc::clone(&bytes) }, Receiver { messages, bytes })
}

pub(super) struct Sender {
    messages: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

impl Sender {
    /// Whether there was room. A single message is always taken, however large.
    pub fn send(&self, message: Bytes) -> bool {
        let len = message.len();
        let waiting = self.bytes.fetch_add(len, Ordering::Relaxed);
        let fits = waiting == 0 || waiting + len <= MAX_BYTES;
        if fits && self.messages.try_send(message).is_ok() {
            return true;
        }
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        false
    }
}

pub(super) struct Receiver {
    messages: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
}

impl Receiver {
    /// `None` when nothing more comes.
    pub async fn recv(&mut self) -> Option<Bytes> {
        let message = self.messages.recv().await?;
        self.bytes.fetch_sub(message.len(), Ordering::Relaxed);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_no_more_than_its_bound_in_number_or_in_bytes() {
        let (sender, _receiver) = channel();
        assert_eq!((0..10_000).filter(|_| sender.send(Bytes::from_static(b"x"))).count(), MAX_MESSAGES);
        let (sender, _receiver) = channel();
        let megabyte = Bytes::from(vec![0; 1024 * 1024]);
        assert_eq!((0..100).filter(|_| sender.send(megabyte.clone())).count(), 8);
    }

    #[tokio::test]
    async fn what_was_taken_out_makes_room() {
        let (sender, mut receiver) = channel();
        let large = Bytes::from(vec![0; MAX_BYTES + 1]);
        assert!(sender.send(large.clone()), "alone it fits, however large");
        assert!(!sender.send(Bytes::from_static(b"x")));
        receiver.recv().await.unwrap();
        assert!(sender.send(Bytes::from_static(b"x")));
    }
}
