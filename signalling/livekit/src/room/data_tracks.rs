//! Data tracks: named streams of small packets. The header names a track by a handle that each side has of its own;
//! the handle is rewritten for each subscriber.

use bytes::{Bytes, BytesMut};
use livekit_protocol as proto;
use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_response::Message as Response;

use super::Room;
use super::data::DATA_TRACK;
use super::participant::ParticipantId;
use crate::ids::sid;

/// Data tracks a participant publishes or subscribes to.
const MAX_DATA_TRACKS: usize = 256;
const MAX_NAME: usize = 256;
/// Wishes of one message that are looked at.
const MAX_UPDATES: usize = 1_024;
/// The longest description of a data track's content, in bytes.
const MAX_SCHEMA: usize = 1_024;
/// Of a packet: flags, handle, sequence, frame number, timestamp.
const HEADER_BYTES: usize = 12;
/// Where the handle stands in the header, in network order.
const HANDLE: std::ops::Range<usize> = 2..4;

/// A participant's data tracks.
#[derive(Default)]
pub(crate) struct DataTracks {
    published: Vec<proto::DataTrackInfo>,
    subscribed: Vec<DataSubscription>,
    last_handle: u16,
}

struct DataSubscription {
    /// By which the subscriber knows it.
    handle: u16,
    publisher: ParticipantId,
    track_sid: String,
}

impl DataTracks {
    pub fn has_published(&self, sid: &str) -> bool {
        self.published.iter().any(|track| track.sid == sid)
    }

    pub fn published(&self) -> Vec<proto::DataTrackInfo> {
        self.published.clone()
    }

    fn next_handle(&mut self) -> u16 {
        loop {
            self.last_handle = self.last_handle.wrapping_add(1).max(1);
            if !self.subscribed.iter().any(|subscription| subscription.handle == self.last_handle) {
                return self.last_handle; // fewer are taken than there are
            }
        }
    }
}

impl Room {
    pub(super) fn publish_data_track(&mut self, id: ParticipantId, request: proto::PublishDataTrackRequest) {
        let participant = &self.participants[&id];
        let published = &participant.data_tracks.published;
        let refusal = if !participant.claims.video.may_publish_data() {
            Some((Reason::NotAllowed, "the token does not allow to publish data"))
        } else if !(1..=u32::from(u16::MAX)).contains(&request.pub_handle) {
            Some((Reason::InvalidHandle, "pub_handle must be from 1 to 65535"))
        } else if request.name.is_empty() || request.name.len() > MAX_NAME {
            Some((Reason::InvalidName, "name must have from 1 to 256 bytes"))
        } else if published.iter().any(|track| track.pub_handle == request.pub_handle) {
            Some((Reason::DuplicateHandle, "the handle is in use"))
        } else if published.iter().any(|track| track.name == request.name) {
            Some((Reason::DuplicateName, "the name is in use"))
        } else if prost::Message::encoded_len(&request) > MAX_NAME + MAX_SCHEMA {
            Some((Reason::InvalidRequest, "the schema is too long"))
        } else if published.len() >= MAX_DATA_TRACKS {
            Some((Reason::LimitExceeded, "too many data tracks"))
        } else {
            None
        };
        if let Some((reason, message)) = refusal {
            self.refuse(id, reason, message, Some(Request::PublishDataTrack(request)));
            return;
        }
        let info = proto::DataTrackInfo {
            pub_handle: request.pub_handle,
            sid: sid("DTR_", &mut self.rng),
            name: request.name,
            encryption: request.encryption,
            frame_encoding: request.frame_encoding,
            schema: request.schema,
        };
        let participant = &mut self.participants[&id];
        participant.data_tracks.published.push(info.clone());
        participant.changed = true;
        let response = proto::PublishDataTrackResponse { info: Some(info) };
        self.send(id, Response::PublishDataTrackResponse(response));
        // The handle means something only to who knows the track.
        self.flush_presence();
        for other in self.participants.keys().copied().filter(|other| *other != id).collect::<Vec<_>>() {
            self.subscribe_to_all_data(other);
        }
    }

    pub(super) fn unpublish_data_track(
        &mut self,
        id: ParticipantId,
        request: proto::UnpublishDataTrackRequest,
    ) {
        let published = &mut self.participants[&id].data_tracks.published;
        let Some(at) = published.iter().position(|track| track.pub_handle == request.pub_handle) else {
            self.refuse(
                id,
                Reason::NotFound,
                "there is no data track of that handle",
                Some(Request::UnpublishDataTrack(request)),
            );
            return;
        };
        let info = published.remove(at);
        self.mark_changed(id);
        self.end_data_subscriptions(|subscription| subscription.track_sid == info.sid);
        let response = proto::UnpublishDataTrackResponse { info: Some(info) };
        self.send(id, Response::UnpublishDataTrackResponse(response));
    }

    pub(super) fn update_data_subscription(
        &mut self,
        id: ParticipantId,
        request: &proto::UpdateDataSubscription,
    ) {
        for update in request.updates.iter().take(MAX_UPDATES) {
            self.set_data_subscription(id, &update.track_sid, update.subscribe);
        }
        self.tell_handles(id);
    }

    fn set_data_subscription(&mut self, id: ParticipantId, sid: &str, subscribe: bool) {
        let publisher = self
            .participants
            .values()
            .find(|other| other.id != id && !other.is_hidden() && other.data_tracks.has_published(sid));
        let publisher = publisher.map(|publisher| publisher.id);
        let participant = &mut self.participants[&id];
        let tracks = &mut participant.data_tracks;
        let known = tracks.subscribed.iter().position(|entry| entry.track_sid == sid);
        match (subscribe, known, publisher) {
            (true, None, Some(publisher))
                if participant.claims.video.may_subscribe() && tracks.subscribed.len() < MAX_DATA_TRACKS =>
            {
                let handle = tracks.next_handle();
                tracks.subscribed.push(DataSubscription { handle, publisher, track_sid: sid.to_owned() });
            }
            (false, Some(at), _) => {
                tracks.subscribed.remove(at);
            }
            _ => {}
        }
    }

    /// For a participant that wants all there is.
    pub(super) fn subscribe_to_all_data(&mut self, id: ParticipantId) {
        if !self.participants[&id].auto_subscribe_data {
            return;
        }
        let tracks = self.participants.values().flat_map(|other| &other.data_tracks.published);
        let sids: Vec<String> = tracks.map(|track| track.sid.clone()).collect();
        if sids.is_empty() {
            return;
        }
        for sid in sids {
            self.set_data_subscription(id, &sid, true);
        }
        self.tell_handles(id);
    }

    fn tell_handles(&mut self, id: ParticipantId) {
        let handle = |subscription: &DataSubscription| {
            let publisher = self.participants.get(&subscription.publisher)?;
            let track = proto::data_track_subscriber_handles::PublishedDataTrack {
                publisher_identity: publisher.identity.clone(),
                publisher_sid: publisher.sid.clone(),
                track_sid: subscription.track_sid.clone(),
            };
            Some((u32::from(subscription.handle), track))
        };
        let sub_handles = self.participants[&id].data_tracks.subscribed.iter().filter_map(handle).collect();
        let handles = proto::DataTrackSubscriberHandles { sub_handles };
        self.send(id, Response::DataTrackSubscriberHandles(handles));
    }

    /// A participant left: nobody subscribes to its tracks any more.
    pub(super) fn forget_data_of(&mut self, id: ParticipantId, gone: &DataTracks) {
        if !gone.published.is_empty() {
            self.end_data_subscriptions(|subscription| subscription.publisher == id);
        }
    }

    fn end_data_subscriptions(&mut self, ends: impl Fn(&DataSubscription) -> bool) {
        let mut affected = Vec::new();
        for participant in self.participants.values_mut() {
            let subscribed = &mut participant.data_tracks.subscribed;
            let before = subscribed.len();
            subscribed.retain(|subscription| !ends(subscription));
            if subscribed.len() != before {
                affected.push(participant.id);
            }
        }
        for id in affected {
            self.tell_handles(id);
        }
    }

    pub(super) fn forward_data_track(&mut self, id: ParticipantId, packet: &Bytes) {
        if packet.len() < HEADER_BYTES {
            self.counters.data_dropped += 1;
            return;
        }
        let handle = u32::from(u16::from_be_bytes([packet[HANDLE.start], packet[HANDLE.start + 1]]));
        let published = &self.participants[&id].data_tracks.published;
        let Some(track) = published.iter().find(|track| track.pub_handle == handle) else {
            self.counters.data_dropped += 1;
            return;
        };
        let sid = track.sid.clone();
        let receivers: Vec<(ParticipantId, u16)> = self
            .participants
            .values()
            .filter_map(|other| {
                let subscribed = &other.data_tracks.subscribed;
                let entry =
                    subscribed.iter().find(|entry| entry.publisher == id && entry.track_sid == sid)?;
                Some((other.id, entry.handle))
            })
            .collect();
        for (receiver, handle) in receivers {
            let mut copy = BytesMut::from(packet.as_ref());
            copy[HANDLE].copy_from_slice(&handle.to_be_bytes());
            self.deliver(receiver, DATA_TRACK, copy.freeze());
        }
    }
}
