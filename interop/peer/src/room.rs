//! What it knows of the others, and what happened.

use std::collections::{BTreeMap, BTreeSet};

use livekit_protocol as proto;
use serde_json::{Value, json};

use crate::clock;
use crate::remote::Remote;

/// Kept for the suite; no scenario sees as many.
const MOST_EVENTS: usize = 10_000;

#[derive(Default)]
pub struct Room {
    /// Whether sound is only counted.
    pub is_deaf: bool,
    pub sid: String,
    pub identity: String,
    participants: BTreeMap<String, proto::ParticipantInfo>,
    /// By track, of those that an answer promised.
    pub remotes: BTreeMap<String, Remote>,
    speakers: BTreeSet<String>,
    pub events: Vec<Value>,
}

impl Room {
    pub fn note(&mut self, name: &str, mut detail: Value) {
        if self.events.len() == MOST_EVENTS {
            return;
        }
        detail["at"] = clock::unix_ms().into();
        detail["name"] = name.into();
        self.events.push(detail);
    }

    pub fn joined(&mut self, own: proto::ParticipantInfo, others: Vec<proto::ParticipantInfo>) {
        (self.sid, self.identity) = (own.sid, own.identity);
        self.participants = others.into_iter().map(|other| (other.sid.clone(), other)).collect();
    }

    pub fn update(&mut self, update: proto::ParticipantUpdate) {
        for now in update.participants {
            if now.sid == self.sid {
                continue;
            }
            let from = now.identity.clone();
            if now.state == proto::participant_info::State::Disconnected as i32 {
                if self.participants.remove(&now.sid).is_some() {
                    self.note("participantDisconnected", json!({ "from": from }));
                }
                continue;
            }
            let before = self.participants.insert(now.sid.clone(), now.clone());
            if before.is_none() {
                self.note("participantConnected", json!({ "from": from }));
            }
            let before = before.map_or_else(Vec::new, |before| before.tracks);
            for track in &before {
                match now.tracks.iter().find(|other| other.sid == track.sid) {
                    None => self.note("trackUnpublished", json!({ "from": from, "sid": track.sid })),
                    Some(other) if other.muted != track.muted => {
                        let name = if other.muted { "trackMuted" } else { "trackUnmuted" };
                        self.note(name, json!({ "from": from, "source": source(other) }));
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// An answer tells the tracks that it brings.
    pub fn promised(&mut self, tracks: BTreeSet<String>) -> anyhow::Result<()> {
        let gone: Vec<String> = self.remotes.keys().filter(|sid| !tracks.contains(*sid)).cloned().collect();
        for sid in gone {
            self.remotes.remove(&sid);
            self.note("trackUnsubscribed", json!({ "sid": sid }));
        }
        for sid in tracks {
            if !self.remotes.contains_key(&sid) {
                self.note("trackSubscribed", json!({ "from": self.publisher_of(&sid), "sid": sid }));
                self.remotes.insert(sid, Remote::new(self.is_deaf)?);
            }
        }
        Ok(())
    }

    pub fn speakers(&mut self, changed: proto::SpeakersChanged) {
        for speaker in changed.speakers {
            if speaker.active {
                self.speakers.insert(speaker.sid);
            } else {
                self.speakers.remove(&speaker.sid);
            }
        }
        let who: Vec<&str> = self.speakers.iter().filter_map(|sid| self.identity_of(sid)).collect();
        let who = json!({ "who": who });
        self.note("speakers", who);
    }

    pub fn quality(&mut self, update: &proto::ConnectionQualityUpdate) {
        for one in &update.updates {
            let quality = proto::ConnectionQuality::try_from(one.quality).unwrap_or_default();
            let quality = quality.as_str_name().to_lowercase();
            let from = self.identity_of(&one.participant_sid).map(str::to_owned);
            self.note("quality", json!({ "from": from, "quality": quality }));
        }
    }

    fn identity_of(&self, sid: &str) -> Option<&str> {
        if sid == self.sid {
            return Some(&self.identity);
        }
        Some(&self.participants.get(sid)?.identity)
    }

    fn publisher_of(&self, track: &str) -> Option<&str> {
        let publishes =
            |participant: &&proto::ParticipantInfo| participant.tracks.iter().any(|one| one.sid == track);
        Some(&self.participants.values().find(publishes)?.identity)
    }

    /// Every track of the others, with what has been received of it.
    pub fn tracks(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for participant in self.participants.values() {
            for track in &participant.tracks {
                let remote = self.remotes.get(&track.sid);
                let mut value = remote.map_or_else(|| json!({ "frames": 0, "energy": 0.0 }), Remote::report);
                value["from"] = participant.identity.as_str().into();
                value["sid"] = track.sid.as_str().into();
                value["kind"] = kind(track).into();
                value["source"] = source(track).into();
                value["muted"] = track.muted.into();
                value["subscribed"] = remote.is_some().into();
                all.push(value);
            }
        }
        all
    }

    pub fn others(&self) -> Vec<Value> {
        let describe = |one: &proto::ParticipantInfo| {
            json!({
                "identity": one.identity, "sid": one.sid, "name": one.name,
                "metadata": one.metadata, "attributes": one.attributes,
            })
        };
        self.participants.values().map(describe).collect()
    }
}

fn kind(track: &proto::TrackInfo) -> &'static str {
    if track.r#type == proto::TrackType::Video as i32 { "video" } else { "audio" }
}

/// As livekit-client names sources.
fn source(track: &proto::TrackInfo) -> String {
    proto::TrackSource::try_from(track.source).unwrap_or_default().as_str_name().to_lowercase()
}
