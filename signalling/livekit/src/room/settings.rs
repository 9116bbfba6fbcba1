//! What a subscriber asks of a track, and what that means for the forwarding plane.

use livekit_protocol as proto;
use weir_units::command::Command;
use weir_units::media::{Layer, Wish};

use super::participant::{Participant, ParticipantId};
use super::publish::Track;
use super::{Now, Room};

/// Tracks a participant can have wishes about, known or yet to come.
const MAX_PREFERENCES: usize = 4_096;
/// The longest sid that is remembered, in bytes; ours have 17.
const MAX_SID: usize = 64;

/// A participant's wishes about one track.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrackPreference {
    /// Said explicitly; otherwise auto-subscription decides.
    pub subscribed: Option<bool>,
    pub settings: Option<proto::UpdateTrackSettings>,
}

impl Participant {
    /// What this participant wants of a track, to be changed; `None` when that would be more than is remembered.
    pub fn preference(&mut self, sid: &str) -> Option<&mut TrackPreference> {
        let is_known = self.preferences.contains_key(sid);
        if !is_known && (self.preferences.len() >= MAX_PREFERENCES || sid.len() > MAX_SID) {
            return None;
        }
        Some(self.preferences.entry(sid.to_owned()).or_default())
    }
}

impl Room {
    pub(super) fn update_track_settings(
        &mut self,
        now: Now,
        id: ParticipantId,
        mut settings: proto::UpdateTrackSettings,
    ) {
        for sid in std::mem::take(&mut settings.track_sids) {
            self.change_settings(now, id, &sid, |known| *known = settings.clone());
        }
    }

    /// The client shows these tracks to nobody; what else it asked of them stands.
    pub(super) fn disable_tracks(&mut self, now: Now, id: ParticipantId, sids: &[String]) {
        for sid in sids {
            self.change_settings(now, id, sid, |known| known.disabled = true);
        }
    }

    fn change_settings(
        &mut self,
        now: Now,
        id: ParticipantId,
        sid: &str,
        change: impl FnOnce(&mut proto::UpdateTrackSettings),
    ) {
        let was_enabled = self.wish(id, sid).enabled;
        let participant = &mut self.participants[&id];
        let Some(preference) = participant.preference(sid) else {
            self.counters.refused_requests += 1;
            return;
        };
        let unsaid =
            proto::UpdateTrackSettings { quality: proto::VideoQuality::High as i32, ..Default::default() };
        change(preference.settings.get_or_insert(unsaid));
        let Some(subscription) = participant.subscriptions.get(sid).filter(|entry| entry.live) else {
            return;
        };
        let subscription = subscription.id;
        let wish = self.wish(id, sid);
        if wish.enabled && !was_enabled {
            self.participants[&id].subscriptions[sid].asked_at = Some(now.at);
        }
        self.command(Command::SetWish { subscription, wish });
    }

    /// What a participant wants of a track now.
    pub(super) fn wish(&self, id: ParticipantId, sid: &str) -> Wish {
        let (Some(participant), Some(track)) = (self.participants.get(&id), self.tracks.get(sid)) else {
            return Wish::default();
        };
        let settings = participant.preferences.get(sid).and_then(|preference| preference.settings.as_ref());
        let mut wish = settings.map_or_else(
            || Wish {
                // An adaptive client says soon what it shows; until then the smallest will do.
                max_layer: if participant.adaptive_stream {
                    Layer { spatial: 0, ..Layer::MAX }
                } else {
                    Layer::MAX
                },
                ..Wish::default()
            },
            |settings| translate(settings, track),
        );
        if track.info.r#type() == proto::TrackType::Audio {
            wish.max_layer = Layer::MAX;
        }
        wish
    }
}

fn translate(settings: &proto::UpdateTrackSettings, track: &Track) -> Wish {
    let top = track.layers.saturating_sub(1);
    let spatial = if settings.width > 0 {
        // The smallest that covers what is shown; orientation does not matter.
        let (long, short) = (settings.width.max(settings.height), settings.width.min(settings.height));
        let covers = |layer: &proto::VideoLayer| {
            layer.width.max(layer.height) >= long && layer.width.min(layer.height) >= short
        };
        track.info.layers.iter().position(covers).unwrap_or(top)
    } else {
        match (settings.quality(), track.layers) {
            (proto::VideoQuality::Low, _) => 0,
            (proto::VideoQuality::Medium, 0..=2) => top,
            (proto::VideoQuality::Medium, _) => 1,
            _ => top,
        }
    };
    let temporal = match settings.fps {
        1..=8 => 0,
        9..=16 => 1,
        _ => u8::MAX,
    };
    // The top is what there is, even if the publisher later adds more.
    let spatial = if spatial >= top { u8::MAX } else { spatial as u8 };
    Wish {
        enabled: !settings.disabled,
        max_layer: Layer { spatial, temporal },
        priority: u8::try_from(settings.priority).unwrap_or(u8::MAX).max(1),
    }
}
