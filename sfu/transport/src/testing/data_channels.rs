//! One end of the data channels without DTLS around it, so that a fuzzer reaches SCTP at once.

use std::time::Instant;

use bytes::Bytes;

use crate::channels::{ChannelEvent, Channels, SendOutcome};
use crate::dcep::{Message, Open, Reliability};

/// What an end notices.
#[derive(Debug, PartialEq, Eq)]
pub enum ChannelNotice {
    Open { label: String },
    Message { label: String, payload: Bytes },
}

/// Drive it like a [`crate::Transport`]; packets are what DTLS carries.
pub struct DataChannels(Channels);

impl DataChannels {
    /// `is_client` decides stream numbers; the end that is the client calls [`Self::associate`].
    pub fn new(is_client: bool, max_message: u32) -> Self {
        Self(Channels::new(is_client, max_message))
    }

    pub fn associate(&mut self, now: Instant) {
        self.0.associate(now);
    }

    pub fn open(&mut self, now: Instant, label: &str, ordered: bool, max_retransmits: Option<u16>) {
        let reliability =
            max_retransmits.map_or(Reliability::Reliable, |most| Reliability::Retransmits(most.into()));
        self.0.open(now, Open { label: label.to_owned(), ordered, reliability }, None);
    }

    pub fn send(&mut self, now: Instant, label: &str, payload: Bytes, binary: bool) -> SendOutcome {
        self.0.send(now, label, payload, binary)
    }

    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        self.0.handle_packet(now, packet);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    pub fn poll_packet(&mut self) -> Option<Bytes> {
        self.0.poll_transmit()
    }

    pub fn poll_event(&mut self) -> Option<ChannelNotice> {
        Some(match self.0.poll_event()? {
            ChannelEvent::Open { label } => ChannelNotice::Open { label },
            ChannelEvent::Message { label, payload, .. } => ChannelNotice::Message { label, payload },
        })
    }
}

/// A message of channel establishment as we would write what was read of it; `None` when it is none.
pub fn reread_establishment(bytes: &[u8]) -> Option<Vec<u8>> {
    Message::parse(bytes).map(|message| message.to_bytes())
}
