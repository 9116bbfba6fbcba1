//! Data packets from one participant to others. Their content is theirs; who sent it and who gets it is ours.

use std::collections::VecDeque;

use bytes::Bytes;
use livekit_protocol as proto;
use livekit_protocol::data_packet::{Kind, Value};
use prost::Message;
use weir_units::command::Command;

use super::Room;
use super::participant::{Participant, ParticipantId};

/// Ordered, reliable.
pub(crate) const RELIABLE: &str = "_reliable";
/// Unordered, sent once.
pub(crate) const LOSSY: &str = "_lossy";
/// As [`LOSSY`], for data tracks.
pub(crate) const DATA_TRACK: &str = "_data_track";

/// Reliable packets kept for a participant whose channel is not open yet, in bytes and in number.
const MAX_WAITING_BYTES: usize = 256 * 1024;
const MAX_WAITING: usize = 1_024;

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
    pub(super) fn handle_data(&mut self, id: ParticipantId, label: &str, payload: &Bytes) {
        if !self.participants[&id].claims.video.may_publish_data() {
            self.counters.data_dropped += 1;
            return;
        }
        match label {
            RELIABLE => self.forward_packet(id, Kind::Reliable, payload),
            LOSSY => self.forward_packet(id, Kind::Lossy, payload),
            DATA_TRACK => self.forward_data_track(id, payload),
            _ => self.counters.data_dropped += 1,
        }
    }

    fn forward_packet(&mut self, id: ParticipantId, kind: Kind, payload: &Bytes) {
        let Ok(mut packet) = proto::DataPacket::decode(payload.as_ref()) else {
            self.counters.data_dropped += 1;
            return;
        };
        let sender = &mut self.participants[&id];
        // Who speaks is ours to say; an empty packet says nothing.
        if matches!(packet.value, None | Some(Value::Speaker(_))) {
            self.counters.data_dropped += 1;
            return;
        }
        if kind == Kind::Reliable && packet.sequence != 0 {
            if packet.sequence <= sender.data.last_sequence {
                return; // said before the connection was resumed, and heard
            }
            sender.data.last_sequence = packet.sequence;
        }
        let hidden = sender.is_hidden();
        let (sid, identity) = (sender.sid.clone(), sender.identity.clone());
        let (sid, identity) = if hidden { Default::default() } else { (sid, identity) };
        packet.kind = kind as i32;
        packet.participant_sid = sid.clone();
        packet.participant_identity = identity.clone();
        let mut sids = Vec::new();
        if let Some(Value::User(user)) = &mut packet.value {
            user.participant_sid = sid;
            user.participant_identity = identity;
            packet.destination_identities.append(&mut user.destination_identities.clone());
            sids.clone_from(&user.destination_sids);
        }
        let everybody = packet.destination_identities.is_empty() && sids.is_empty();
        let is_meant = |other: &Participant| {
            everybody || packet.destination_identities.contains(&other.identity) || sids.contains(&other.sid)
        };
        let receivers: Vec<ParticipantId> = self
            .participants
            .values()
            .filter(|other| other.id != id && is_meant(other))
            .map(|other| other.id)
            .collect();
        let label = if kind == Kind::Reliable { RELIABLE } else { LOSSY };
        let bytes: Bytes = packet.encode_to_vec().into();
        for receiver in receivers {
            self.deliver(receiver, label, bytes.clone());
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
