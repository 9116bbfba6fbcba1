//! Who is here, who speaks, whose line is good: what everybody is told of everybody.

use std::time::Duration;

use indexmap::IndexMap;
use livekit_protocol as proto;
use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_response::Message as Response;
use weir_units::event::{LineQuality, Shortage};
use weir_units::ids::{PeerId, PublicationId};

use super::participant::{Participant, ParticipantId};
use super::publish::Track;
use super::{Now, Output, Room, encode};
use crate::supervision::ParticipantEvent;

/// How long changes of the room's counts wait for more of them. Everybody is told of each, and nobody is in a hurry.
const COUNTS_DELAY: Duration = Duration::from_secs(5);
/// Levels are told in eighths: a flicker is no news.
const LEVEL_STEPS: f32 = 8.0;

impl Room {
    pub(super) fn participant_info(&self, participant: &Participant) -> proto::ParticipantInfo {
        participant.info(self.known_tracks(participant).map(|(_, track)| track.info.clone()).collect())
    }

    /// The participant's tracks, but for those of which nobody hears yet.
    pub(super) fn known_tracks(&self, participant: &Participant) -> impl Iterator<Item = (&String, &Track)> {
        let tracks = participant.tracks.iter().filter_map(|sid| self.tracks.get_key_value(sid));
        tracks.filter(|(_, track)| track.is_decided())
    }

    /// One update for all that changed: at once, and before anything that builds on it.
    pub(super) fn flush_presence(&mut self) {
        let mut public = std::mem::take(&mut self.departed);
        let mut private = Vec::new();
        let changed: Vec<ParticipantId> = self
            .participants
            .values_mut()
            .filter_map(|participant| std::mem::take(&mut participant.changed).then_some(participant.id))
            .collect();
        for id in changed {
            self.participants[&id].version += 1;
            let participant = &self.participants[&id];
            let info = self.participant_info(participant);
            if participant.is_hidden() {
                private.push((id, info));
            } else {
                public.push(info);
            }
        }
        if !public.is_empty() {
            let message = encode(Response::Update(proto::ParticipantUpdate { participants: public.clone() }));
            for participant in self.participants.values() {
                let Some(connection) = participant.connection else { continue };
                // Of its own identity's earlier session a client would believe that it is about itself.
                let is_of_itself = |info: &proto::ParticipantInfo| {
                    info.identity == participant.identity && info.sid != participant.sid
                };
                let message = if public.iter().any(is_of_itself) {
                    let participants = public.iter().filter(|info| !is_of_itself(info)).cloned().collect();
                    encode(Response::Update(proto::ParticipantUpdate { participants }))
                } else {
                    message.clone()
                };
                self.out.push_back(Output::Send { connection, message });
            }
        }
        for (id, info) in private {
            self.send(id, Response::Update(proto::ParticipantUpdate { participants: vec![info] }));
        }
    }

    pub(super) fn room_info(&self) -> proto::Room {
        let (num_participants, num_publishers) = self.counts();
        proto::Room { num_participants, num_publishers, ..self.info.clone() }
    }

    fn counts(&self) -> (u32, u32) {
        let visible = self.participants.values().filter(|participant| !participant.is_hidden());
        visible.fold((0, 0), |(count, publishers), participant| {
            (count + 1, publishers + u32::from(self.known_tracks(participant).next().is_some()))
        })
    }

    /// If they changed, everybody is told a while later; what changes until then is told with it.
    pub(super) fn note_counts(&mut self, now: Now) {
        let counts = self.counts();
        if std::mem::replace(&mut self.counts, counts) != counts {
            self.room_told_at.get_or_insert(now.at + COUNTS_DELAY);
        }
    }

    /// Tells everybody of the room, if that is due.
    pub(super) fn tell_room_due(&mut self, now: Now) {
        if self.room_told_at.take_if(|at| *at <= now.at).is_none() {
            return;
        }
        let message = encode(Response::RoomUpdate(proto::RoomUpdate { room: Some(self.room_info()) }));
        for connection in self.participants.values().filter_map(|participant| participant.connection) {
            self.out.push_back(Output::Send { connection, message: message.clone() });
        }
    }

    pub(super) fn mark_changed(&mut self, id: ParticipantId) {
        if let Some(participant) = self.participants.get_mut(&id) {
            participant.changed = true;
        }
    }

    /// The client renames itself or changes its metadata. Empty means unchanged; an empty attribute is removed.
    pub(super) fn update_metadata(
        &mut self,
        now: Now,
        id: ParticipantId,
        request: proto::UpdateParticipantMetadata,
    ) {
        let limits = self.config.limits.clone();
        let participant = &mut self.participants[&id];
        let mut attributes = participant.attributes.clone();
        attributes.extend(request.attributes.clone());
        attributes.retain(|_, value| !value.is_empty());
        let bytes: usize = attributes.values().chain(attributes.keys()).map(String::len).sum();
        let (reason, message) = if !participant.claims.video.may_update_own_metadata() {
            (Reason::NotAllowed, "the token lacks canUpdateOwnMetadata")
        } else if request.name.chars().count() > limits.name {
            (Reason::LimitExceeded, "the name is too long")
        } else if request.metadata.len() > limits.metadata {
            (Reason::LimitExceeded, "the metadata is too long")
        } else if bytes > limits.attributes {
            (Reason::LimitExceeded, "the attributes are too long")
        } else {
            participant.attributes = attributes;
            if !request.metadata.is_empty() {
                participant.metadata = request.metadata.clone();
            }
            if !request.name.is_empty() {
                participant.name = request.name.clone();
            }
            participant.changed = true;
            (Reason::Ok, "")
        };
        if reason != Reason::Ok {
            self.counters.refused_requests += 1;
        }
        // The snapshot first: clients look for their value in it when the answer comes.
        self.flush_presence();
        let request_id = request.request_id;
        self.respond(id, request_id, reason, message, Some(Request::UpdateMetadata(request)));
        if reason == Reason::Ok {
            // The token holds the name and the rest as well: a client that starts over keeps them.
            self.send_refresh_token(now, id);
        }
    }

    /// Everybody hears of those it subscribes to, and of itself; only what changed since it was last told.
    pub(super) fn tell_who_speaks(&mut self) {
        let mut speaking: IndexMap<&str, (ParticipantId, &str, f32)> = IndexMap::new();
        // By no track, so that everybody hears it.
        let simulated = self.participants.values().filter(|participant| participant.speaks_until.is_some());
        speaking.extend(simulated.map(|participant| (participant.sid.as_str(), (participant.id, "", 1.0))));
        for (publication, level) in &self.speakers {
            let Some(sid) = self.by_publication.get(publication) else { continue };
            let Some(track) = self.tracks.get(sid) else { continue };
            let Some(owner) = self.participants.get(&track.owner) else { continue };
            let level = (level * LEVEL_STEPS).ceil() / LEVEL_STEPS;
            let entry = speaking.entry(&owner.sid).or_insert((owner.id, sid, level));
            entry.2 = entry.2.max(level);
        }
        let mut news = Vec::new();
        for listener in self.participants.values().filter(|listener| listener.connection.is_some()) {
            let hears = |owner: ParticipantId, track: &str| {
                owner == listener.id || track.is_empty() || listener.subscriptions.contains_key(track)
            };
            let heard: IndexMap<String, f32> = speaking
                .iter()
                .filter(|(_, (owner, track, _))| hears(*owner, track))
                .map(|(sid, (_, _, level))| ((*sid).to_owned(), *level))
                .collect();
            let louder = heard
                .iter()
                .filter(|(sid, level)| listener.heard.get(*sid) != Some(*level))
                .map(|(sid, level)| proto::SpeakerInfo { sid: sid.clone(), level: *level, active: true });
            let silent = listener
                .heard
                .keys()
                .filter(|sid| !heard.contains_key(*sid))
                .map(|sid| proto::SpeakerInfo { sid: sid.clone(), level: 0.0, active: false });
            let speakers: Vec<_> = louder.chain(silent).collect();
            if !speakers.is_empty() {
                news.push((listener.id, heard, speakers));
            }
        }
        for (id, heard, speakers) in news {
            self.participants[&id].heard = heard;
            self.send(id, Response::SpeakersChanged(proto::SpeakersChanged { speakers }));
        }
    }

    /// Who speaks on a track that ends stops now: the plane names it no more, but says nothing if nobody else speaks. Clients
    /// ignore what they hear of somebody who left, so it comes before that is told.
    pub(super) fn end_speech(&mut self, publication: PublicationId) {
        let before = self.speakers.len();
        self.speakers.retain(|(speaking, _)| *speaking != publication);
        if self.speakers.len() < before {
            self.tell_who_speaks();
        }
    }

    /// A participant's line was judged, one of two perhaps, of which the worse counts. Told to itself and to whoever
    /// subscribes to it, if it changed.
    pub(super) fn tell_quality(&mut self, id: ParticipantId, peer: PeerId, line: LineQuality) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if let Some(connection) = participant.peer_connection(peer) {
            connection.line = Some(line);
        }
        let lines = participant.peer_connections().filter_map(|connection| connection.line);
        let score = lines.map(score).fold(100.0, f32::min);
        let quality = proto::ConnectionQualityInfo {
            participant_sid: participant.sid.clone(),
            quality: judge(score) as i32,
            score: mean_opinion(score),
        };
        let changed = participant.quality.as_ref().is_none_or(|known| known.quality != quality.quality);
        participant.quality = Some(quality.clone());
        if !changed {
            return;
        }
        let hidden = self.participants[&id].is_hidden();
        let listeners: Vec<ParticipantId> = self
            .participants
            .values()
            .filter(|other| {
                let subscribes = other
                    .subscriptions
                    .keys()
                    .any(|sid| self.tracks.get(sid).is_some_and(|track| track.owner == id));
                other.id == id || (!hidden && subscribes)
            })
            .map(|other| other.id)
            .collect();
        for listener in listeners {
            let update = proto::ConnectionQualityUpdate { updates: vec![quality.clone()] };
            self.send(listener, Response::ConnectionQuality(update));
        }
    }

    /// Somebody subscribes to this one's tracks: it is told of this one's line.
    pub(super) fn tell_known_quality(&mut self, to: ParticipantId, of: ParticipantId) {
        let known = self.participants.get(&of).and_then(|participant| participant.quality.clone());
        if let Some(quality) = known {
            let update = proto::ConnectionQualityUpdate { updates: vec![quality] };
            self.send(to, Response::ConnectionQuality(update));
        }
    }

    /// Somebody new is active: it is told of everybody's line.
    pub(super) fn tell_known_qualities(&mut self, id: ParticipantId) {
        let visible = self.participants.values().filter(|other| !other.is_hidden());
        let updates: Vec<_> = visible.filter_map(|other| other.quality.clone()).collect();
        if !updates.is_empty() {
            self.send(id, Response::ConnectionQuality(proto::ConnectionQualityUpdate { updates }));
        }
    }

    pub(super) fn become_active(&mut self, now: Now, id: ParticipantId) {
        let participant = &mut self.participants[&id];
        participant.join_deadline = None;
        if participant.is_active() {
            return;
        }
        participant.state = proto::participant_info::State::Active;
        participant.changed = true;
        self.counters.connected += 1;
        self.happened(id, ParticipantEvent::Connected);
        let participant = &self.participants[&id];
        tracing::debug!(
            room = %self.info.name, participant = %participant.sid,
            after_ms = now.unix_ms - participant.joined_at_ms, "media connected"
        );
        self.tell_known_qualities(id);
    }
}

/// At best, where a line carries less than half of the pictures wished: good. LiveKit takes 35 off for each size missing.
const SCORE_OF_MUCH_LESS: f32 = 65.0;
/// At best, where it does not carry one of them at all: poor.
const SCORE_OF_PAUSED: f32 = 30.0;

/// From 0 to 100, after the E-model (ITU-T G.107): delay and loss take away from a perfect line.
fn score(line: LineQuality) -> f32 {
    let delay = line.round_trip_ms / 2.0 + 2.0 * line.jitter_ms;
    let delay_effect = if delay <= 160.0 { delay / 40.0 } else { (delay - 120.0) / 10.0 };
    // Packet loss in percent counts double: RTX and FEC hide some, but not in time for speech.
    let score = (100.0 - delay_effect - line.loss * 100.0 * 2.0).clamp(0.0, 100.0);
    match line.shortage {
        Shortage::Little => score,
        Shortage::Much => score.min(SCORE_OF_MUCH_LESS),
        Shortage::Paused => score.min(SCORE_OF_PAUSED),
    }
}

/// Never LOST: clients take that as an order to start over.
fn judge(score: f32) -> proto::ConnectionQuality {
    match score {
        score if score > 80.0 => proto::ConnectionQuality::Excellent,
        score if score > 40.0 => proto::ConnectionQuality::Good,
        _ => proto::ConnectionQuality::Poor,
    }
}

/// From 1 to 4.5.
fn mean_opinion(score: f32) -> f32 {
    1.0 + 0.035 * score + 7.0e-6 * score * (score - 60.0) * (100.0 - score)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_line_is_excellent_and_a_bad_one_is_never_lost() {
        let line = |loss, round_trip_ms| LineQuality {
            loss,
            round_trip_ms,
            jitter_ms: 5.0,
            ..LineQuality::default()
        };
        assert_eq!(judge(score(line(0.0, 40.0))), proto::ConnectionQuality::Excellent);
        assert_eq!(judge(score(line(0.15, 40.0))), proto::ConnectionQuality::Good);
        assert_eq!(judge(score(line(0.5, 400.0))), proto::ConnectionQuality::Poor);
        assert_eq!(judge(score(line(1.0, 10_000.0))), proto::ConnectionQuality::Poor);
        let short = |shortage| LineQuality { shortage, ..line(0.0, 40.0) };
        assert_eq!(judge(score(short(Shortage::Much))), proto::ConnectionQuality::Good);
        assert_eq!(judge(score(short(Shortage::Paused))), proto::ConnectionQuality::Poor);
        assert!(mean_opinion(100.0) > 4.4 && mean_opinion(0.0) >= 1.0);
    }
}
