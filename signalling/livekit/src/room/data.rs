//! Data packets from one participant to others. Their content is theirs; who sent it and who gets it is ours.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use livekit_protocol as proto;
use livekit_protocol::data_packet::Kind;
use weir_units::command::Command;
use weir_units::ids::PeerId;

use super::data_packet::{self, Address};
use super::participant::ParticipantId;
use super::{Now, Room};

/// Ordered, reliable.
pub(crate) const RELIABLE: &str = "_reliable";
/// Unordered, sent once.
pub(crate) const LOSSY: &str = "_lossy";
/// As [`LOSSY`], for data tracks.
pub(crate) const DATA_TRACK: &str = "_data_track";

/// A channel that every client has.
pub(crate) struct Channel {
    pub label: &'static str,
    pub ordered: bool,
    pub max_retransmits: Option<u16>,
    /// Where clients on one peer connection have it since
    /// [`PROTOCOL_AGREED_CHANNELS`](super::participant::PROTOCOL_AGREED_CHANNELS), without opening it.
    stream: u16,
}

pub(crate) const CHANNELS: [Channel; 3] = [
    Channel { label: RELIABLE, ordered: true, max_retransmits: None, stream: 100 },
    Channel { label: LOSSY, ordered: false, max_retransmits: Some(0), stream: 101 },
    Channel { label: DATA_TRACK, ordered: false, max_retransmits: Some(0), stream: 102 },
];

/// Reliable packets kept for a participant whose channel is not open yet, in bytes and in number.
const MAX_WAITING_BYTES: usize = 256 * 1024;
const MAX_WAITING: usize = 1_024;

/// Reliable packets kept for clients that come back, by age and in bytes. Their data channels outlive the WebSocket,
/// so this is for what a full queue or a broken association swallowed.
const SAID_KEPT_FOR: Duration = Duration::from_secs(10);
const MAX_SAID_BYTES: usize = 256 * 1024;
/// What a kept packet costs beside its bytes.
const ENTRY_BYTES: usize = 128;
/// Publishers of whom a client that comes back may say what it has.
const MAX_RECEIVE_STATES: usize = 1_024;

/// Reliable packets of late.
#[derive(Default)]
pub(crate) struct RecentlySaid {
    entries: VecDeque<Said>,
    bytes: usize,
}

struct Said {
    at: Instant,
    /// Its sid.
    publisher: String,
    address: Address,
    bytes: Bytes,
}

impl RecentlySaid {
    fn keep(&mut self, now: Instant, publisher: String, address: Address, bytes: Bytes) {
        self.bytes += bytes.len() + ENTRY_BYTES;
        self.entries.push_back(Said { at: now, publisher, address, bytes });
        while let Some(first) = self.entries.front()
            && (self.bytes > MAX_SAID_BYTES || first.at + SAID_KEPT_FOR < now)
        {
            self.bytes -= first.bytes.len() + ENTRY_BYTES;
            self.entries.pop_front();
        }
    }
}

/// What is kept of a participant's data.
#[derive(Default)]
pub(crate) struct DataState {
    /// Of its last reliable packet; clients number from 1. They repeat packets after a resume.
    pub last_sequence: u32,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
}

impl Room {
    /// A message from a participant's data channel.
    pub(super) fn handle_data(&mut self, now: Now, id: ParticipantId, label: &str, payload: &Bytes) {
        if !self.participants[&id].claims.video.may_publish_data() {
            self.counters.data_dropped += 1;
            return;
        }
        match label {
            RELIABLE => self.forward_packet(now, id, Kind::Reliable, payload),
            LOSSY => self.forward_packet(now, id, Kind::Lossy, payload),
            DATA_TRACK => self.forward_data_track(id, payload),
            _ => self.counters.data_dropped += 1,
        }
    }

    fn forward_packet(&mut self, now: Now, id: ParticipantId, kind: Kind, payload: &Bytes) {
        let sender = &mut self.participants[&id];
        let (sid, identity) =
            if sender.is_hidden() { ("", "") } else { (sender.sid.as_str(), sender.identity.as_str()) };
        let Some((address, bytes)) = data_packet::address(payload, kind, sid, identity) else {
            self.counters.data_dropped += 1;
            return;
        };
        if kind == Kind::Reliable && address.sequence != 0 {
            if address.sequence <= sender.data.last_sequence {
                return; // said before the connection was resumed, and heard
            }
            sender.data.last_sequence = address.sequence;
        }
        let publisher = sender.sid.clone();
        let receivers: Vec<ParticipantId> = self
            .participants
            .values()
            .filter(|other| other.id != id && address.names(&other.identity, &other.sid))
            .map(|other| other.id)
            .collect();
        let label = if kind == Kind::Reliable { RELIABLE } else { LOSSY };
        for receiver in receivers {
            self.deliver(receiver, label, bytes.clone());
        }
        if kind == Kind::Reliable && address.sequence != 0 {
            self.said.keep(now.at, publisher, address, bytes);
        }
    }

    /// A client came back and says what it has of whom. What it lacks is said again, if it is still known.
    pub(super) fn replay_data(&mut self, id: ParticipantId, states: &[proto::DataChannelReceiveState]) {
        let participant = &self.participants[&id];
        let lacks = |said: &&Said| {
            said.address.names(&participant.identity, &participant.sid)
                && states.iter().take(MAX_RECEIVE_STATES).any(|state| {
                    state.publisher_sid == said.publisher && state.last_seq < said.address.sequence
                })
        };
        let missed: Vec<Bytes> =
            self.said.entries.iter().filter(lacks).map(|said| said.bytes.clone()).collect();
        for bytes in missed {
            self.deliver(id, RELIABLE, bytes);
        }
    }

    /// Opens the usual channels: by agreement, which the other side has made as well, or by telling it.
    pub(super) fn open_channels(&mut self, peer: PeerId, agreed: bool) {
        for Channel { label, ordered, max_retransmits, stream } in CHANNELS {
            let (label, stream) = (label.to_owned(), agreed.then_some(stream));
            self.command(Command::OpenChannel { peer, label, ordered, max_retransmits, stream });
        }
    }

    /// Sends on the open channel of that label. What is reliable waits for the channel to open.
    pub(super) fn deliver(&mut self, to: ParticipantId, label: &str, payload: Bytes) {
        let Some(participant) = self.participants.get_mut(&to) else { return };
        let connection = participant.downstream();
        // A client whose own connection is primary gets data on the channels it opened.
        let connection = [connection, &participant.publisher]
            .into_iter()
            .find(|connection| connection.open_channels.iter().any(|open| open == label));
        if let Some(connection) = connection {
            let command =
                Command::SendData { peer: connection.id, label: label.to_owned(), payload, binary: true };
            self.counters.data_forwarded += 1;
            self.command(command);
            return;
        }
        let data = &mut participant.data;
        if label == RELIABLE
            && data.waiting.len() < MAX_WAITING
            && data.waiting_bytes + payload.len() <= MAX_WAITING_BYTES
        {
            data.waiting_bytes += payload.len();
            data.waiting.push_back(payload);
        } else {
            self.counters.data_dropped += 1;
        }
    }

    pub(super) fn send_waiting_data(&mut self, id: ParticipantId) {
        let participant = &mut self.participants[&id];
        let open = |connection: &super::participant::PeerConnection| {
            connection.open_channels.iter().any(|label| label == RELIABLE)
        };
        if !open(participant.downstream()) && !open(&participant.publisher) {
            return;
        }
        participant.data.waiting_bytes = 0;
        for payload in std::mem::take(&mut participant.data.waiting) {
            self.deliver(id, RELIABLE, payload);
        }
    }
}
