//! Offers and answers, and when to begin a round.
//!
//! With one peer connection the client always offers; we ask it to by `media_sections_requirement`, of which (0, 0)
//! means "offer again". With two, ours is the offer for what it receives.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message as Response;
use weir_negotiation::Outcome;
use weir_units::command::Command;

use super::participant::{PROTOCOL_AGREED_CHANNELS, ParticipantId, Round};
use super::{Now, Room};
use crate::ids::ice_credentials;

/// Changes this close together share a round.
const GATHER: Duration = Duration::from_millis(10);
/// Rounds of one client are at least this far apart: clients take tens of milliseconds for each.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// A client that has not answered by then has lost our message, or its mind. Clients give up after 15 s themselves.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Rounds in a row that bring nothing, until something changes.
const MAX_FRUITLESS: u8 = 3;

impl Round {
    pub fn next(&self) -> Option<Instant> {
        match self.begun {
            Some(begun) => Some(begun + ANSWER_TIMEOUT),
            None => self.due,
        }
    }
}

impl Room {
    /// Something changed for this participant that only a round of negotiation can carry out.
    pub(super) fn schedule_round(&mut self, now: Now, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let round = &mut participant.downstream_mut().round;
        round.attempts = 0;
        let earliest = round.last.map_or(now.at, |last| last + MIN_INTERVAL);
        let due = (now.at + GATHER).max(earliest);
        round.due = Some(round.due.map_or(due, |known| known.min(due)));
    }

    pub(super) fn handle_round_timeout(&mut self, now: Now, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if participant.connection.is_none() {
            return;
        }
        let round = &participant.downstream_mut().round;
        match (round.begun, round.due) {
            (Some(begun), _) if begun + ANSWER_TIMEOUT <= now.at => {
                self.counters.failed_negotiations += 1;
                tracing::info!(participant = %participant.sid, "no answer to a negotiation; the client is to start over");
                self.dismiss(now, id, DisconnectReason::StateMismatch, Action::Reconnect);
            }
            (None, Some(due)) if due <= now.at => self.begin_round(now, id),
            _ => {}
        }
    }

    /// Offers, or asks for an offer, unless nothing would come of it.
    pub(super) fn begin_round(&mut self, now: Now, id: ParticipantId) {
        let primary = self.is_subscriber_primary(id);
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let dual = participant.subscriber.is_some();
        if participant.connection.is_none() {
            return; // coming back begins a round
        }
        let connection = participant.downstream_mut();
        connection.round.due = None;
        if connection.round.begun.is_some() {
            return; // what is new waits for the answer
        }
        if dual {
            let first = !connection.added && primary;
            let restarts = connection
                .transport
                .as_ref()
                .is_some_and(|(local, _)| *local != connection.negotiator.local().ice);
            if !first && !restarts && !connection.negotiator.wants_round() {
                return;
            }
            let Ok(sdp) = connection.negotiator.create_offer(primary) else { return };
            connection.round.begun = Some(now.at);
            connection.round.last = Some(now.at);
            connection.round.offer_id += 1;
            let offer = proto::SessionDescription {
                r#type: "offer".to_owned(),
                sdp,
                id: connection.round.offer_id,
                ..Default::default()
            };
            // Checks may come before the answer.
            self.add_peer(id, true);
            self.send(id, Response::Offer(offer));
        } else {
            // Before the client's first offer there is nothing to ask for: it comes by itself.
            if connection.transport.is_none() || !connection.negotiator.wants_round() {
                return;
            }
            let (audios, videos) = connection.negotiator.missing_media();
            connection.round.begun = Some(now.at);
            connection.round.last = Some(now.at);
            let requirement =
                proto::MediaSectionsRequirement { num_audios: audios as u32, num_videos: videos as u32 };
            self.send(id, Response::MediaSectionsRequirement(requirement));
        }
    }

    /// The client offers: what it publishes, or with one peer connection everything.
    pub(super) fn handle_offer(&mut self, now: Now, id: ParticipantId, offer: &proto::SessionDescription) {
        let participant = &mut self.participants[&id];
        let connection = &mut participant.publisher;
        let waiting = connection.negotiator.missing_media();
        let taken = match connection.negotiator.handle_offer(&offer.sdp) {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(participant = %participant.sid, %error, "an offer was refused");
                self.counters.failed_negotiations += 1;
                self.dismiss(now, id, DisconnectReason::StateMismatch, Action::Reconnect);
                return;
            }
        };
        if taken.ice_restarted {
            let ice = ice_credentials(self.media.ufrag_prefix, &mut self.rng);
            self.participants[&id].publisher.negotiator.restart_ice(ice);
        }
        self.participants[&id].publisher.offered = taken.media;
        let mut matched = self.match_offered(now, id);
        let connection = &mut self.participants[&id].publisher;
        let description = connection
            .negotiator
            .create_answer()
            .expect("an offer has just been taken and none answered since");
        let is_new = self.add_peer(id, false);
        let outcome = description.outcome;
        let mid_to_track_id =
            outcome.mid_to_track.iter().map(|(mid, track)| (mid.to_string(), track.clone())).collect();
        self.set_transport(id, false, &outcome);
        let participant = &self.participants[&id];
        if is_new
            && participant.subscriber.is_none()
            && participant.client.protocol >= PROTOCOL_AGREED_CHANNELS
        {
            self.open_channels(participant.publisher.id, true);
        }
        self.participants[&id].publisher.ingress = outcome.ingress.clone();
        for media in outcome.ingress.iter() {
            if let Some(pending) = matched.remove(&media.mid) {
                self.publish(now, id, pending, media.clone());
            }
        }
        for pending in matched.into_values() {
            let request = Some(proto::request_response::Request::AddTrack(pending.request));
            let reason = proto::request_response::Reason::UnsupportedType;
            self.refuse(id, reason, "the track's codec is not forwarded here", request);
        }
        let mut began = 0;
        if self.participants[&id].subscriber.is_none() {
            began = self.take_subscriptions(now, id, &outcome);
        }
        // The others' names come before their tracks.
        self.flush_presence();
        let answer = proto::SessionDescription {
            r#type: "answer".to_owned(),
            sdp: description.sdp,
            id: offer.id,
            mid_to_track_id,
        };
        self.send(id, Response::Answer(answer));
        let participant = &mut self.participants[&id];
        if participant.subscriber.is_none() {
            let connection = &mut participant.publisher;
            connection.round.begun = None;
            let fruitless = connection.negotiator.wants_round()
                && connection.negotiator.missing_media() == waiting
                && began == 0;
            let attempts = if fruitless { connection.round.attempts + 1 } else { 0 };
            if connection.negotiator.wants_round() && attempts < MAX_FRUITLESS {
                self.schedule_round(now, id);
                self.participants[&id].publisher.round.attempts = attempts;
            }
        }
    }

    /// The client answers our offer.
    pub(super) fn handle_answer(&mut self, now: Now, id: ParticipantId, answer: &proto::SessionDescription) {
        let participant = &mut self.participants[&id];
        let Some(connection) = &mut participant.subscriber else { return };
        // 0 is from clients that do not number; another number is an answer to an offer that was given up.
        if answer.id != 0 && answer.id != connection.round.offer_id {
            return;
        }
        let outcome = match connection.negotiator.handle_answer(&answer.sdp) {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::warn!(participant = %participant.sid, %error, "an answer was refused");
                self.counters.failed_negotiations += 1;
                self.dismiss(now, id, DisconnectReason::StateMismatch, Action::Reconnect);
                return;
            }
        };
        connection.round.begun = None;
        self.set_transport(id, true, &outcome);
        self.take_subscriptions(now, id, &outcome);
        if self.participants[&id].downstream().negotiator.wants_round() {
            self.schedule_round(now, id);
        }
    }

    /// Says whether it was news.
    fn add_peer(&mut self, id: ParticipantId, subscriber: bool) -> bool {
        let conference = self.conference;
        let participant = &mut self.participants[&id];
        let connection = if subscriber { participant.downstream_mut() } else { &mut participant.publisher };
        let is_new = !std::mem::replace(&mut connection.added, true);
        if is_new {
            let local = connection.negotiator.local().ice.clone();
            let peer = connection.id;
            self.command(Command::AddPeer { peer, conference, local });
        }
        is_new
    }

    /// Passes the client's ICE and DTLS parameters on, if they are news.
    fn set_transport(&mut self, id: ParticipantId, subscriber: bool, outcome: &Outcome) {
        let participant = &mut self.participants[&id];
        let connection = if subscriber { participant.downstream_mut() } else { &mut participant.publisher };
        let Some(remote) = outcome.remote.clone() else { return };
        let local = connection.negotiator.local().ice.clone();
        let transport = Some((local.clone(), remote.clone()));
        if connection.transport != transport {
            connection.transport = transport;
            let peer = connection.id;
            self.command(Command::SetRemoteTransport { peer, local, remote });
        }
    }

    /// Starts the subscriptions that now have an m-line, and says how many.
    fn take_subscriptions(&mut self, now: Now, id: ParticipantId, outcome: &Outcome) -> usize {
        for subscription in &outcome.refused {
            self.refuse_subscription(*subscription);
        }
        let peer = self.participants[&id].downstream().id;
        let mut began = 0;
        let mut owners = BTreeSet::new();
        for (subscription, media) in &outcome.egress {
            let Some((_, sid)) = self.by_subscription.get(subscription).cloned() else { continue };
            let wish = self.wish(id, &sid);
            let Some(owner) = self.tracks.get(&sid).map(|track| track.owner) else { continue };
            let Some(entry) = self.participants[&id].subscriptions.get_mut(&sid) else { continue };
            if !std::mem::replace(&mut entry.live, true) {
                entry.asked_at = Some(now.at);
                let publication = entry.publication;
                self.command(Command::Subscribe {
                    subscription: *subscription,
                    publication,
                    peer,
                    media: media.clone(),
                    wish,
                });
                began += 1;
                owners.insert(owner);
            }
        }
        for owner in owners {
            self.tell_known_quality(id, owner);
        }
        self.tell_subscribed(id);
        // What lost its m-line waits for another.
        let displaced: Vec<_> = self.participants[&id]
            .subscriptions
            .values_mut()
            .filter(|entry| {
                entry.live && !outcome.egress.iter().any(|(subscription, _)| *subscription == entry.id)
            })
            .map(|entry| {
                entry.live = false;
                entry.id
            })
            .collect();
        for subscription in displaced {
            self.command(Command::Unsubscribe { subscription });
        }
        began
    }
}
