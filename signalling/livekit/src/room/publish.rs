//! What participants publish: from the announcement (`AddTrack`) and the m-line to a publication, and its end.

use std::collections::HashMap;
use std::time::Instant;

use livekit_protocol as proto;
use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_response::Message as Response;
use weir_negotiation::{CodecChoice, IngressPreference, OfferedMedia};
use weir_units::command::Command;
use weir_units::ids::PublicationId;
use weir_units::media::{Codec, IngressMedia, MediaKind, Mid};

use super::dynacast::Dynacast;
use super::participant::ParticipantId;
use super::{Now, Room};
use crate::ids::sid;

/// The longest name, client id or stream of a track, in bytes. Browsers' own ids have 36.
const MAX_TRACK_TEXT: usize = 512;
/// Codecs, layers and features that a track is announced with; there are a handful of each.
const MAX_TRACK_ENTRIES: usize = 16;

/// Announced, but no m-line carries it yet.
#[derive(Clone, Debug)]
pub(crate) struct PendingTrack {
    pub request: proto::AddTrackRequest,
    pub info: proto::TrackInfo,
    /// Another track of the same client id is there; announced to the client when that one is gone.
    pub queued: bool,
}

/// A published track.
pub(crate) struct Track {
    pub owner: ParticipantId,
    /// The client's own name for it.
    pub cid: String,
    pub info: proto::TrackInfo,
    pub publication: PublicationId,
    /// What was agreed, until it is known which of its codecs the publisher sends. So long nobody hears of the track.
    pub undecided: Option<IngressMedia>,
    /// None while undecided.
    pub codecs: Vec<Codec>,
    /// Simulcast encodings or spatial layers, in ascending quality.
    pub layers: usize,
    pub dynacast: Dynacast,
    /// The publisher knows that somebody subscribes.
    pub subscribed_told: bool,
    /// Since when packets come: the first has, and it is not muted.
    pub flows_since: Option<Instant>,
}

impl Track {
    pub fn is_decided(&self) -> bool {
        self.undecided.is_none()
    }

    /// When the publisher is next to be told which layers anybody wants. Never of sound, not while muted, and not while it
    /// is undecided: told that nobody wants any, the publisher would never send what decides it.
    pub fn layers_due(&self) -> Option<Instant> {
        let is_told = self.info.r#type() == proto::TrackType::Video && !self.info.muted && self.is_decided();
        self.dynacast.due().filter(|_| is_told)
    }
}

impl PendingTrack {
    fn kind(&self) -> MediaKind {
        kind_of(&self.request).unwrap_or(MediaKind::Audio)
    }

    fn is_called(&self, track_id: &str) -> bool {
        self.request.cid == track_id
            || self
                .request
                .simulcast_codecs
                .iter()
                .any(|codec| !codec.cid.is_empty() && codec.cid == track_id)
    }

    fn preference(&self) -> IngressPreference {
        let request = &self.request;
        let has = |feature: proto::AudioTrackFeature| request.audio_features.contains(&(feature as i32));
        IngressPreference {
            codec: codec_choice(request),
            dtx: !request.disable_dtx && !has(proto::AudioTrackFeature::TfNoDtx),
            stereo: is_stereo(request),
            red: has_red(request),
        }
    }
}

fn is_stereo(request: &proto::AddTrackRequest) -> bool {
    request.stereo || request.audio_features.contains(&(proto::AudioTrackFeature::TfStereo as i32))
}

/// A receiver can't take apart what is encrypted, so RED would only be a burden.
fn has_red(request: &proto::AddTrackRequest) -> bool {
    !request.disable_red && request.encryption == proto::encryption::Type::None as i32
}

/// Cuts lists to what any client needs: they are passed on to everybody.
fn shorten(request: &mut proto::AddTrackRequest) {
    request.audio_features.truncate(MAX_TRACK_ENTRIES);
    request.packet_trailer_features.truncate(MAX_TRACK_ENTRIES);
    request.layers.truncate(MAX_TRACK_ENTRIES);
    request.simulcast_codecs.truncate(MAX_TRACK_ENTRIES);
    for codec in &mut request.simulcast_codecs {
        codec.layers.truncate(MAX_TRACK_ENTRIES);
    }
    let layers = request.simulcast_codecs.iter_mut().flat_map(|codec| &mut codec.layers);
    for layer in layers.chain(&mut request.layers) {
        layer.rid.clear(); // the description tells
    }
}

fn kind_of(request: &proto::AddTrackRequest) -> Option<MediaKind> {
    match request.r#type() {
        proto::TrackType::Audio => Some(MediaKind::Audio),
        proto::TrackType::Video => Some(MediaKind::Video),
        proto::TrackType::Data => None,
    }
}

impl Room {
    /// A client announces a track. It is told the track's sid at once; media follow.
    pub(super) fn add_track(&mut self, now: Now, id: ParticipantId, mut request: proto::AddTrackRequest) {
        shorten(&mut request);
        let texts = [&request.cid, &request.name, &request.stream];
        let participant = &self.participants[&id];
        let refusal = if kind_of(&request).is_none() {
            Some((Reason::UnsupportedType, "neither audio nor video"))
        } else if !participant.may_publish(request.source()) {
            Some((Reason::NotAllowed, "the token does not allow to publish this source"))
        } else if !request.sid.is_empty() && participant.tracks.contains(&request.sid) {
            Some((Reason::UnsupportedType, "a track has one codec here"))
        } else if !request.sid.is_empty() {
            Some((Reason::NotFound, "there is no such track"))
        } else if participant.pending.len() + participant.tracks.len() >= self.config.limits.tracks {
            Some((Reason::LimitExceeded, "too many tracks"))
        } else if texts.iter().any(|text| text.len() > MAX_TRACK_TEXT) {
            Some((Reason::LimitExceeded, "the name, cid or stream is too long"))
        } else {
            None
        };
        if let Some((reason, message)) = refusal {
            self.refuse(id, reason, message, Some(Request::AddTrack(request)));
            return;
        }
        let published = participant.tracks.iter().filter_map(|sid| self.tracks.get(sid));
        let queued = participant.pending.iter().any(|pending| pending.request.cid == request.cid)
            || published.into_iter().any(|track| track.cid == request.cid);
        let info = self.new_track_info(now, &request);
        let pending = PendingTrack { request, info, queued };
        if queued {
            let request = Some(Request::AddTrack(pending.request.clone()));
            self.participants[&id].pending.push(pending);
            self.respond(id, 0, Reason::Queued, "the track before it is still there", request);
            return;
        }
        self.announce(id, &pending);
        self.participants[&id].pending.push(pending);
        self.match_late(now, id);
    }

    fn announce(&mut self, id: ParticipantId, pending: &PendingTrack) {
        let response = proto::TrackPublishedResponse {
            cid: pending.request.cid.clone(),
            track: Some(pending.info.clone()),
        };
        self.send(id, Response::TrackPublished(response));
    }

    fn new_track_info(&mut self, now: Now, request: &proto::AddTrackRequest) -> proto::TrackInfo {
        let primary = request.simulcast_codecs.first();
        let mime_type = match request.r#type() {
            proto::TrackType::Audio if has_red(request) => "audio/red".to_owned(),
            proto::TrackType::Audio => "audio/opus".to_owned(),
            _ => match codec_choice(request) {
                CodecChoice::Named(codec) => mime_of(codec),
                CodecChoice::First => mime_of(Codec::Vp8),
                CodecChoice::Any => String::new(), // its first packet tells
            },
        };
        let layers = match primary {
            Some(codec) if !codec.layers.is_empty() => codec.layers.clone(),
            _ => request.layers.clone(),
        };
        let stream = match (request.stream.as_str(), request.source()) {
            ("", proto::TrackSource::Camera | proto::TrackSource::Microphone) => "camera",
            ("", proto::TrackSource::ScreenShare | proto::TrackSource::ScreenShareAudio) => "screen",
            ("", _) => "unknown",
            (stream, _) => stream,
        };
        let mut audio_features = request.audio_features.clone();
        for (set, feature) in [
            (request.stereo, proto::AudioTrackFeature::TfStereo),
            (request.disable_dtx, proto::AudioTrackFeature::TfNoDtx),
        ] {
            if set && !audio_features.contains(&(feature as i32)) {
                audio_features.push(feature as i32);
            }
        }
        proto::TrackInfo {
            sid: sid(&format!("TR_{}", letters(request)), &mut self.rng),
            r#type: request.r#type,
            name: request.name.clone(),
            muted: request.muted,
            width: request.width,
            height: request.height,
            simulcast: layers.len() > 1,
            disable_dtx: request.disable_dtx,
            source: request.source,
            layers,
            mime_type,
            stereo: is_stereo(request),
            disable_red: request.disable_red,
            encryption: request.encryption,
            stream: stream.to_owned(),
            version: Some(proto::TimedVersion { unix_micro: now.unix_ms * 1000, ticks: 0 }),
            audio_features,
            backup_codec_policy: request.backup_codec_policy,
            packet_trailer_features: request.packet_trailer_features.clone(),
            ..Default::default()
        }
    }

    /// Finds for each m-line that the client now sends on the track announced for it. Tells the negotiator how the
    /// line is to be answered.
    pub(super) fn match_offered(&mut self, now: Now, id: ParticipantId) -> HashMap<Mid, PendingTrack> {
        self.end_replaced(now, id);
        let participant = &mut self.participants[&id];
        let connection = &mut participant.publisher;
        let mut matched = HashMap::new();
        let sending: Vec<OfferedMedia> =
            connection.offered.iter().filter(|media| media.sends).cloned().collect();
        let open: Vec<&OfferedMedia> =
            sending.iter().filter(|media| !connection.assigned.contains_key(&media.mid)).collect();
        let named = |media: &OfferedMedia, pending: &PendingTrack| {
            !pending.queued
                && pending.kind() == media.kind
                && media.track_id.as_deref().is_some_and(|track| pending.is_called(track))
        };
        for media in &open {
            if let Some(at) = participant.pending.iter().position(|pending| named(media, pending)) {
                matched.insert(media.mid, participant.pending.remove(at));
            }
        }
        // Some browsers rewrite track ids: what is left goes by age.
        for media in &open {
            let of_kind = |pending: &PendingTrack| !pending.queued && pending.kind() == media.kind;
            if !matched.contains_key(&media.mid)
                && let Some(at) = participant.pending.iter().position(of_kind)
            {
                matched.insert(media.mid, participant.pending.remove(at));
            }
        }
        for media in &open {
            if let Some(pending) = matched.get(&media.mid) {
                connection.negotiator.set_ingress(media.mid, pending.preference());
            }
        }
        matched
    }

    /// The offer, even its answer, came before the announcement.
    fn match_late(&mut self, now: Now, id: ParticipantId) {
        let participant = &mut self.participants[&id];
        let connection = &participant.publisher;
        let found = connection.ingress.iter().find_map(|media| {
            let offered = connection.offered.iter().find(|offered| offered.mid == media.mid)?;
            let track_id = offered.track_id.as_deref();
            let fits = |pending: &PendingTrack| {
                !pending.queued
                    && pending.kind() == media.kind
                    && track_id.is_none_or(|track| pending.is_called(track))
            };
            let is_open = !connection.assigned.contains_key(&media.mid);
            let at = participant.pending.iter().position(fits).filter(|_| is_open)?;
            Some((media.clone(), at))
        });
        if let Some((media, at)) = found {
            let pending = participant.pending.remove(at);
            self.publish(now, id, pending, media);
        }
    }

    /// An m-line that now carries another track, or none, ended the track it carried.
    fn end_replaced(&mut self, now: Now, id: ParticipantId) {
        let participant = &self.participants[&id];
        let connection = &participant.publisher;
        let ended = connection.assigned.iter().filter(|(mid, sid)| {
            let offered = connection.offered.iter().find(|media| media.mid == **mid && media.sends);
            let Some(offered) = offered else { return true };
            let Some(track) = self.tracks.get(*sid) else { return true };
            // Another id alone is no proof: it is another track only if that one was announced.
            let other = offered.track_id.as_deref().filter(|track_id| *track_id != track.cid);
            other
                .is_some_and(|track_id| participant.pending.iter().any(|pending| pending.is_called(track_id)))
        });
        for sid in ended.map(|(_, sid)| sid.clone()).collect::<Vec<_>>() {
            self.unpublish(now, &sid);
        }
    }

    /// Media are agreed for an announced track: others can have it, once its codec is known.
    pub(super) fn publish(
        &mut self,
        now: Now,
        id: ParticipantId,
        pending: PendingTrack,
        mut media: IngressMedia,
    ) {
        let PendingTrack { request, mut info, .. } = pending;
        media.is_screen = info.source() == proto::TrackSource::ScreenShare;
        info.mid = media.mid.to_string();
        let publication = PublicationId(self.ids.next());
        let (sid, muted) = (info.sid.clone(), info.muted);
        let participant = &mut self.participants[&id];
        participant.publisher.assigned.insert(media.mid, sid.clone());
        participant.tracks.push(sid.clone());
        let peer = participant.publisher.id;
        self.by_publication.insert(publication, sid.clone());
        self.tracks.insert(
            sid.clone(),
            Track {
                owner: id,
                cid: request.cid,
                info,
                publication,
                undecided: Some(media.clone()),
                codecs: Vec::new(),
                layers: 0,
                dynacast: Dynacast::new(now.at),
                subscribed_told: false,
                flows_since: None,
            },
        );
        let codecs: Vec<Codec> = media.formats.iter().map(|format| format.codec).collect();
        let is_open = media.kind == MediaKind::Video && codecs.len() > 1;
        self.command(Command::Publish { publication, peer, media });
        if muted {
            self.command(Command::SetMuted { publication, muted });
        }
        if !is_open {
            self.decide(now, &sid, codecs);
        }
    }

    /// It is known which codecs a track has: others hear of it. Nothing changes if that was known.
    pub(super) fn decide(&mut self, now: Now, sid: &str, codecs: Vec<Codec>) {
        let Some(track) = self.tracks.get_mut(sid) else { return };
        let Some(media) = track.undecided.take() else { return };
        let info = &mut track.info;
        info.mime_type = codecs.first().map(|codec| mime_of(*codec)).unwrap_or_default();
        let scalable = matches!(codecs[..], [Codec::Vp9 | Codec::Av1]);
        track.layers = if media.encodings.len() > 1 || !scalable {
            media.encodings.len()
        } else {
            info.layers.len().max(1)
        };
        describe_layers(info, &media, track.layers);
        info.codecs = vec![proto::SimulcastCodecInfo {
            mime_type: info.mime_type.clone(),
            mid: info.mid.clone(),
            cid: track.cid.clone(),
            layers: info.layers.clone(),
            video_layer_mode: match info.r#type() {
                proto::TrackType::Video if scalable && media.encodings.len() == 1 => {
                    proto::video_layer::Mode::MultipleSpatialLayersPerStream as i32
                }
                proto::TrackType::Video => proto::video_layer::Mode::OneSpatialLayerPerStream as i32,
                _ => 0,
            },
            sdp_cid: String::new(),
        }];
        track.codecs = codecs;
        track.dynacast = Dynacast::new(now.at);
        let owner = track.owner;
        tracing::debug!(
            participant = %self.participants[&owner].sid, track = %sid, mime = %info.mime_type,
            source = info.source().as_str_name(), encodings = media.encodings.len(), "published"
        );
        self.mark_changed(owner);
        // Nobody hears of the track in SDP before it has heard of it by name.
        self.flush_presence();
        for other in self.participants.keys().copied().collect::<Vec<_>>() {
            self.settle_subscription(now, other, sid);
        }
    }

    /// Ends a track for everybody.
    pub(super) fn unpublish(&mut self, now: Now, sid: &str) {
        let Some(track) = self.tracks.shift_remove(sid) else { return };
        self.by_publication.remove(&track.publication);
        self.command(Command::Unpublish { publication: track.publication });
        if let Some(owner) = self.participants.get_mut(&track.owner) {
            owner.tracks.retain(|known| known != sid);
            owner.publisher.assigned.retain(|_, known| known != sid);
            owner.changed = true;
        }
        for other in self.participants.keys().copied().collect::<Vec<_>>() {
            self.end_subscription(now, other, sid);
            self.participants[&other].preferences.remove(sid);
            self.participants[&other].allowed.remove(sid);
        }
        self.end_speech(track.publication);
        self.announce_queued(track.owner, &track.cid);
    }

    /// The track that kept another of the same client id waiting is gone.
    fn announce_queued(&mut self, id: ParticipantId, cid: &str) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let next =
            participant.pending.iter_mut().find(|pending| pending.queued && pending.request.cid == cid);
        if let Some(next) = next {
            next.queued = false;
            let next = next.clone();
            self.announce(id, &next);
        }
    }

    pub(super) fn mute(&mut self, now: Now, id: ParticipantId, sid: &str, muted: bool) {
        let participant = &mut self.participants[&id];
        if let Some(pending) = participant.pending.iter_mut().find(|pending| pending.info.sid == sid) {
            pending.info.muted = muted;
            return;
        }
        let Some(track) = self.tracks.get_mut(sid).filter(|track| track.owner == id) else { return };
        if track.info.muted == muted {
            return;
        }
        track.info.muted = muted;
        if !muted {
            track.dynacast.repeat(now.at);
            track.flows_since = track.flows_since.map(|_| now.at);
        }
        let publication = track.publication;
        touch(&mut track.info, now);
        self.mark_changed(id);
        self.command(Command::SetMuted { publication, muted });
        self.tell_layers_due(now);
    }

    pub(super) fn update_audio_track(
        &mut self,
        id: ParticipantId,
        mut request: proto::UpdateLocalAudioTrack,
    ) {
        request.features.truncate(MAX_TRACK_ENTRIES);
        let track = self.tracks.get_mut(&request.track_sid).filter(|track| track.owner == id);
        let Some(track) = track else {
            self.refuse(
                id,
                Reason::NotFound,
                "there is no such track",
                Some(Request::UpdateAudioTrack(request)),
            );
            return;
        };
        track.info.stereo = request.features.contains(&(proto::AudioTrackFeature::TfStereo as i32));
        track.info.disable_dtx = request.features.contains(&(proto::AudioTrackFeature::TfNoDtx as i32));
        track.info.audio_features = request.features;
        self.mark_changed(id);
    }

    pub(super) fn update_video_track(&mut self, id: ParticipantId, request: proto::UpdateLocalVideoTrack) {
        let track = self.tracks.get_mut(&request.track_sid).filter(|track| track.owner == id);
        let Some(track) = track else {
            self.refuse(
                id,
                Reason::NotFound,
                "there is no such track",
                Some(Request::UpdateVideoTrack(request)),
            );
            return;
        };
        (track.info.width, track.info.height) = (request.width, request.height);
        self.mark_changed(id);
    }

    /// Tells publishers which layers anybody wants, where that is due. Nothing while muted.
    pub(super) fn tell_layers_due(&mut self, now: Now) {
        let mut news = Vec::new();
        for (sid, track) in &mut self.tracks {
            if track.layers_due().is_some()
                && let Some(wanted) = track.dynacast.take(now.at)
            {
                news.push((track.owner, layers_update(sid, track, wanted)));
            }
        }
        for (owner, update) in news {
            self.send(owner, Response::SubscribedQualityUpdate(update));
        }
    }

    /// What was told of a track before its first packet is told again with it, unless all was wanted: clients know no
    /// update of a track that they are still negotiating (livekit-client: "for unknown track"), and go on sending all.
    pub(super) fn confirm_layers(&mut self, sid: &str) {
        let Some(track) = self.tracks.get(sid).filter(|track| !track.info.muted) else { return };
        let (owner, told) = (track.owner, track.dynacast.told());
        let update = told.map(|told| layers_update(sid, track, told));
        let is_all = |update: &proto::SubscribedQualityUpdate| {
            update.subscribed_qualities.iter().all(|one| one.enabled)
        };
        if let Some(update) = update.filter(|update| !is_all(update)) {
            self.send(owner, Response::SubscribedQualityUpdate(update));
        }
    }

    /// A publisher that came back is told again.
    pub(super) fn repeat_layers(&mut self, now: Now, id: ParticipantId) {
        for track in self.tracks.values_mut().filter(|track| track.owner == id) {
            track.dynacast.repeat(now.at);
        }
    }
}

/// Which of the protocol's three qualities are wanted, of however many layers there are.
fn layers_update(sid: &str, track: &Track, wanted: u8) -> proto::SubscribedQualityUpdate {
    let wants = |layer: usize| wanted >> layer != 0;
    let enabled = match track.layers {
        0 | 1 => [wants(0); 3],
        2 => [wants(0), wants(1), wants(1)],
        _ => [wants(0), wants(1), wants(2)],
    };
    let qualities = [proto::VideoQuality::Low, proto::VideoQuality::Medium, proto::VideoQuality::High];
    let qualities: Vec<_> = qualities
        .into_iter()
        .zip(enabled)
        .map(|(quality, enabled)| proto::SubscribedQuality { quality: quality as i32, enabled })
        .collect();
    let codec = track.codecs.first().map_or("", |codec| codec.name()).to_ascii_lowercase();
    proto::SubscribedQualityUpdate {
        track_sid: sid.to_owned(),
        subscribed_qualities: qualities.clone(),
        subscribed_codecs: vec![proto::SubscribedCodec { codec, qualities }],
    }
}

/// Completes what the client said of its layers by what was negotiated.
fn describe_layers(info: &mut proto::TrackInfo, media: &IngressMedia, layers: usize) {
    if media.kind != MediaKind::Video {
        return;
    }
    info.simulcast = media.encodings.len() > 1;
    info.layers.sort_by_key(|layer| layer.quality);
    if info.layers.len() != layers {
        info.layers = (0..layers)
            .map(|layer| {
                let shift = layers - 1 - layer;
                let quality =
                    if layers == 1 { proto::VideoQuality::High as i32 } else { layer.min(2) as i32 };
                proto::VideoLayer {
                    quality,
                    width: info.width >> shift,
                    height: info.height >> shift,
                    ..Default::default()
                }
            })
            .collect();
    }
    for (at, layer) in info.layers.iter_mut().enumerate() {
        layer.spatial_layer = at as i32;
        let encoding = media.encodings.get(at).or(media.encodings.first());
        if let Some(encoding) = encoding {
            layer.rid = encoding.rid.map(|rid| rid.to_string()).unwrap_or_default();
            layer.ssrc = encoding.ssrc.unwrap_or_default();
            layer.repair_ssrc = encoding.rtx_ssrc.unwrap_or_default();
        }
    }
}

fn touch(info: &mut proto::TrackInfo, now: Now) {
    let ticks = info.version.as_ref().map_or(0, |version| version.ticks + 1);
    info.version = Some(proto::TimedVersion { unix_micro: now.unix_ms * 1000, ticks });
}

/// The video codec that a client names: browsers' SDK as "h264", others as "video/H264". Who names none, as pion's do, sends
/// one of those that we agree to; of one that we do not forward the client has another.
fn codec_choice(request: &proto::AddTrackRequest) -> CodecChoice {
    let name = request.simulcast_codecs.first().map_or("", |codec| codec.codec.as_str());
    let last = name.rsplit_once('/').map_or(name, |(_, name)| name);
    match Codec::by_name(last).filter(|codec| codec.kind() == MediaKind::Video) {
        Some(codec) => CodecChoice::Named(codec),
        None if name.is_empty() => CodecChoice::Any,
        None => CodecChoice::First,
    }
}

fn mime_of(codec: Codec) -> String {
    match codec.kind() {
        MediaKind::Audio => format!("audio/{}", codec.name()),
        MediaKind::Video => format!("video/{}", codec.name()),
    }
}

/// Kind and source, to tell sids apart at a glance.
fn letters(request: &proto::AddTrackRequest) -> &'static str {
    match (request.r#type(), request.source()) {
        (proto::TrackType::Audio, proto::TrackSource::Microphone) => "AM",
        (proto::TrackType::Audio, proto::TrackSource::ScreenShareAudio) => "As",
        (proto::TrackType::Audio, _) => "A",
        (_, proto::TrackSource::Camera) => "VC",
        (_, proto::TrackSource::ScreenShare) => "VS",
        _ => "V",
    }
}
