//! Who gets which track.

use livekit_protocol as proto;
use livekit_protocol::signal_response::Message as Response;
use weir_negotiation::Egress;
use weir_units::command::Command;
use weir_units::ids::SubscriptionId;

use super::participant::{Participant, ParticipantId, Subscription};
use super::publish::Track;
use super::{Now, Room};

/// Permissions one publisher may list, and sids in each.
const MAX_TRACK_PERMISSIONS: usize = 1_024;

impl Room {
    /// Brings a participant's subscriptions in line with what it wants and may.
    pub(super) fn settle_subscriptions(&mut self, now: Now, id: ParticipantId) {
        for sid in self.tracks.keys().cloned().collect::<Vec<_>>() {
            self.settle_subscription(now, id, &sid);
        }
    }

    pub(super) fn settle_subscription(&mut self, now: Now, id: ParticipantId, sid: &str) {
        let (Some(participant), Some(track)) = (self.participants.get(&id), self.tracks.get(sid)) else {
            return;
        };
        let wanted = self.is_wanted(participant, sid, track);
        let permitted = self.is_permitted(participant, sid, track);
        let has = participant.subscriptions.contains_key(sid);
        if wanted && !permitted {
            self.tell_permission(id, sid, false);
        }
        match (wanted && permitted, has) {
            (true, false) => self.begin_subscription(now, id, sid),
            (false, true) => self.end_subscription(now, id, sid),
            _ => {}
        }
    }

    fn is_wanted(&self, participant: &Participant, sid: &str, track: &Track) -> bool {
        let explicit = participant.preferences.get(sid).and_then(|preference| preference.subscribed);
        // A client loses for good a track whose participant it does not know.
        let hidden = self.participants.get(&track.owner).is_none_or(Participant::is_hidden);
        track.is_decided()
            && track.owner != participant.id
            && !hidden
            && participant.claims.video.may_subscribe()
            && explicit.unwrap_or(participant.auto_subscribe)
    }

    fn is_permitted(&self, participant: &Participant, sid: &str, track: &Track) -> bool {
        let Some(owner) = self.participants.get(&track.owner) else { return false };
        permits(&owner.permission, participant, sid)
    }

    fn begin_subscription(&mut self, now: Now, id: ParticipantId, sid: &str) {
        let track = &self.tracks[sid];
        let owner = &self.participants[&track.owner].sid;
        let subscription = SubscriptionId(self.ids.next());
        let (ssrc, rtx_ssrc) = (self.next_ssrc, self.next_ssrc + 1);
        // Two a subscription within a range of billions: reuse takes longer than any call.
        self.next_ssrc = self.next_ssrc.checked_add(2).unwrap_or(1 << 16);
        let egress = Egress {
            subscription,
            kind: track.codecs.first().map_or(weir_units::media::MediaKind::Audio, |codec| codec.kind()),
            codecs: track.codecs.clone(),
            stream_id: format!("{owner}|{sid}"),
            track_id: sid.to_owned(),
            ssrc,
            rtx_ssrc,
        };
        let publication = track.publication;
        let participant = &mut self.participants[&id];
        participant.downstream_mut().negotiator.add_egress(egress);
        participant.subscriptions.insert(
            sid.to_owned(),
            Subscription { id: subscription, publication, live: false, asked_at: None, paused: None },
        );
        self.by_subscription.insert(subscription, (id, sid.to_owned()));
        self.schedule_round(now, id);
    }

    pub(super) fn end_subscription(&mut self, now: Now, id: ParticipantId, sid: &str) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let Some(subscription) = participant.subscriptions.shift_remove(sid) else { return };
        participant.downstream_mut().negotiator.remove_egress(subscription.id);
        self.by_subscription.remove(&subscription.id);
        if subscription.live {
            self.command(Command::Unsubscribe { subscription: subscription.id });
        }
        self.schedule_round(now, id);
    }

    /// Publishers learn, once, that somebody is there for their track: it has an m-line and is connected. Some send nothing
    /// before that, so it must not wait for a packet.
    pub(super) fn tell_subscribed(&mut self, id: ParticipantId) {
        let subscriber = &self.participants[&id];
        if subscriber.is_hidden() || subscriber.downstream().connected_at.is_none() {
            return;
        }
        let mut news = Vec::new();
        for (sid, _) in subscriber.subscriptions.iter().filter(|(_, entry)| entry.live) {
            if let Some(track) = self.tracks.get_mut(sid)
                && !std::mem::replace(&mut track.subscribed_told, true)
            {
                news.push((track.owner, proto::TrackSubscribed { track_sid: sid.clone() }));
            }
        }
        for (owner, subscribed) in news {
            self.send(owner, Response::TrackSubscribed(subscribed));
        }
    }

    /// The client asks for tracks, or no longer wants them. Clients name the same tracks twice over.
    pub(super) fn update_subscription(
        &mut self,
        now: Now,
        id: ParticipantId,
        request: &proto::UpdateSubscription,
    ) {
        let listed = request.participant_tracks.iter().flat_map(|tracks| &tracks.track_sids);
        let named = request.track_sids.iter().chain(listed);
        if request.subscribe {
            // Who asks believes that it may, until it is told otherwise.
            let allowed = &mut self.participants[&id].allowed;
            for sid in named.clone() {
                allowed.remove(sid);
            }
        }
        for sid in named {
            match self.participants[&id].preference(sid) {
                Some(preference) => preference.subscribed = Some(request.subscribe),
                None => self.counters.refused_requests += 1,
            }
            self.settle_subscription(now, id, sid);
        }
    }

    /// A publisher says who may have its tracks.
    pub(super) fn set_subscription_permission(
        &mut self,
        now: Now,
        id: ParticipantId,
        mut permission: proto::SubscriptionPermission,
    ) {
        permission.track_permissions.truncate(MAX_TRACK_PERMISSIONS);
        for entry in &mut permission.track_permissions {
            entry.track_sids.truncate(MAX_TRACK_PERMISSIONS);
        }
        let before = std::mem::replace(&mut self.participants[&id].permission, permission);
        let mut news = Vec::new();
        let (owner, after) = (&self.participants[&id], &self.participants[&id].permission);
        for (sid, _) in self.known_tracks(owner) {
            for other in self.participants.values().filter(|other| other.id != id) {
                let allowed = permits(after, other, sid);
                if allowed != permits(&before, other, sid) {
                    news.push((other.id, sid.clone(), allowed));
                }
            }
        }
        for (other, sid, allowed) in news {
            self.tell_permission(other, &sid, allowed);
            self.settle_subscription(now, other, &sid);
        }
    }

    /// Tells a participant whether the publisher lets it have a track, if it believes otherwise.
    fn tell_permission(&mut self, id: ParticipantId, sid: &str, allowed: bool) {
        let believed = self.participants[&id].allowed.insert(sid.to_owned(), allowed);
        if believed.unwrap_or(true) != allowed {
            self.send_permission(id, sid, allowed);
        }
    }

    /// For a client that may have missed what it was told.
    pub(super) fn repeat_permissions(&mut self, id: ParticipantId) {
        for (sid, allowed) in self.participants[&id].allowed.clone() {
            self.send_permission(id, &sid, allowed);
        }
    }

    fn send_permission(&mut self, id: ParticipantId, sid: &str, allowed: bool) {
        let Some(owner) = self.tracks.get(sid).and_then(|track| self.participants.get(&track.owner)) else {
            return;
        };
        let update = proto::SubscriptionPermissionUpdate {
            participant_sid: owner.sid.clone(),
            track_sid: sid.to_owned(),
            allowed,
        };
        self.send(id, Response::SubscriptionPermissionUpdate(update));
    }

    /// The client has none of the track's codecs: it is told so by the track's name, and not asked again.
    pub(super) fn refuse_subscription(&mut self, subscription: SubscriptionId) {
        let Some((id, sid)) = self.by_subscription.get(&subscription).cloned() else { return };
        tracing::info!(participant = %self.participants[&id].sid, track = %sid, "the client takes none of the track's codecs");
        let response = proto::SubscriptionResponse {
            track_sid: sid,
            err: proto::SubscriptionError::SeCodecUnsupported as i32,
        };
        self.send(id, Response::SubscriptionResponse(response));
    }
}

fn permits(permission: &proto::SubscriptionPermission, subscriber: &Participant, sid: &str) -> bool {
    permission.all_participants
        || permission.track_permissions.iter().any(|entry| {
            let named = if entry.participant_sid.is_empty() {
                entry.participant_identity == subscriber.identity
            } else {
                entry.participant_sid == subscriber.sid
            };
            named && (entry.all_tracks || entry.track_sids.iter().any(|known| known == sid))
        })
}
