//! What the forwarding plane reports.

use livekit_protocol as proto;
use livekit_protocol::signal_response::Message as Response;
use weir_units::event::Event;
use weir_units::ids::{PeerId, SubscriptionId};
use weir_units::media::MediaKind;

use super::data::CHANNELS;
use super::participant::ParticipantId;
use super::{Now, Output, Room};

impl Room {
    /// Events about what is gone meanwhile name nothing, and are ignored.
    pub fn handle_event(&mut self, now: Now, event: Event) {
        match event {
            Event::PeerConnected { peer } => self.peer_connected(now, peer),
            Event::PeerLost { peer, reason } => {
                if let Some(&id) = self.by_peer.get(&peer) {
                    tracing::info!(participant = %self.participants[&id].sid, ?reason, "media lost");
                    self.handle_lost_peer(now, id);
                }
            }
            Event::ChannelOpen { peer, label } => self.channel_open(peer, label),
            Event::Data { peer, label, payload, .. } => {
                if let Some(&id) = self.by_peer.get(&peer) {
                    self.handle_data(now, id, &label, &payload);
                }
            }
            Event::PublicationStarted { publication, codec } => {
                if let Some(sid) = self.by_publication.get(&publication).cloned()
                    && let Some(track) = self.tracks.get_mut(&sid)
                {
                    track.flows_since = Some(now.at);
                    tracing::debug!(track = %sid, "first packet");
                    self.decide(now, &sid, vec![codec]);
                    self.confirm_layers(&sid);
                }
            }
            Event::SubscriptionStarted { subscription } => self.note_first_packet(now, subscription),
            Event::StreamState { subscription, paused } => self.stream_state(now, subscription, paused),
            Event::LayersWanted { publication, layers } => {
                if let Some(track) =
                    self.by_publication.get(&publication).and_then(|sid| self.tracks.get_mut(sid))
                {
                    track.dynacast.want(now.at, layers);
                }
                self.tell_layers_due(now);
            }
            Event::Speakers { speakers, .. } => {
                self.speakers = speakers;
                self.tell_who_speaks();
            }
            Event::Quality { peer, quality } => {
                if let Some(&id) = self.by_peer.get(&peer) {
                    self.tell_quality(id, peer, quality);
                }
            }
        }
        self.flush(now);
    }

    fn peer_connected(&mut self, now: Now, peer: PeerId) {
        let Some(&id) = self.by_peer.get(&peer) else { return };
        let primary = self.is_subscriber_primary(id);
        let participant = &mut self.participants[&id];
        let Some(connection) = participant.peer_connection(peer) else { return };
        connection.connected_at = Some(now.at);
        let is_subscriber = connection.target == proto::SignalTarget::Subscriber;
        if is_subscriber && primary {
            self.open_channels(peer, false);
        }
        if is_subscriber == primary {
            self.become_active(now, id);
        }
        self.tell_subscribed(id);
    }

    fn channel_open(&mut self, peer: PeerId, label: String) {
        let Some(&id) = self.by_peer.get(&peer) else { return };
        let participant = &mut self.participants[&id];
        if let Some(connection) = participant.peer_connection(peer)
            && CHANNELS.iter().any(|usual| usual.label == label)
            && !connection.open_channels.contains(&label)
        {
            connection.open_channels.push(label);
        }
        self.send_waiting_data(id);
    }

    /// How long it took from when all was there: the subscriber connected and asking, the publisher sending.
    fn note_first_packet(&mut self, now: Now, subscription: SubscriptionId) {
        let Some((subscriber, sid)) = self.by_subscription.get(&subscription) else { return };
        let (Some(participant), Some(track)) = (self.participants.get(subscriber), self.tracks.get(sid))
        else {
            return;
        };
        let asked = participant.subscriptions.get(sid).and_then(|entry| entry.asked_at);
        let connected = participant.downstream().connected_at;
        let (Some(asked), Some(connected), Some(flows)) = (asked, connected, track.flows_since) else {
            return;
        };
        let after = now.at.saturating_duration_since(asked.max(connected).max(flows));
        let kind = track.codecs.first().map_or(MediaKind::Audio, |codec| codec.kind());
        tracing::debug!(
            participant = %participant.sid, track = %sid, ?kind, after_ms = after.as_millis() as u64, "first packet to a subscriber"
        );
        self.out.push_back(Output::FirstPacket { kind, after });
    }

    fn stream_state(&mut self, now: Now, subscription: SubscriptionId, paused: bool) {
        let Some((subscriber, sid)) = self.by_subscription.get(&subscription).cloned() else { return };
        let Some(entry) = self.participants[&subscriber].subscriptions.get_mut(&sid) else { return };
        entry.paused = Some(paused);
        if !paused {
            entry.asked_at = Some(now.at);
        }
        let stream_states = self.stream_state_info(&sid, paused).into_iter().collect();
        self.send(subscriber, Response::StreamStateUpdate(proto::StreamStateUpdate { stream_states }));
    }

    /// For a client that may have missed what was told of them.
    pub(super) fn repeat_stream_states(&mut self, id: ParticipantId) {
        let subscriptions = &self.participants[&id].subscriptions;
        let told = subscriptions.iter().filter_map(|(sid, entry)| Some((sid, entry.paused?)));
        let stream_states: Vec<_> =
            told.filter_map(|(sid, paused)| self.stream_state_info(sid, paused)).collect();
        if !stream_states.is_empty() {
            self.send(id, Response::StreamStateUpdate(proto::StreamStateUpdate { stream_states }));
        }
    }

    fn stream_state_info(&self, sid: &str, paused: bool) -> Option<proto::StreamStateInfo> {
        let owner = self.participants.get(&self.tracks.get(sid)?.owner)?;
        let state = if paused { proto::StreamState::Paused } else { proto::StreamState::Active };
        Some(proto::StreamStateInfo {
            participant_sid: owner.sid.clone(),
            track_sid: sid.to_owned(),
            state: state as i32,
        })
    }
}
