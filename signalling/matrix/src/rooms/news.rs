//! What a member event says of who is in which room.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::{Cause, Membership, RoomUpdate};
use crate::names::{MAX_ID_BYTES, UserId};

/// What an object holds, taken no further apart: other servers' users write it, and nest it as deep as they like.
struct Object<'a>(HashMap<String, &'a RawValue>);

impl<'a> Object<'a> {
    fn read(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok().map(Self)
    }

    fn object(&self, key: &str) -> Option<Self> {
        Self::read(self.0.get(key)?.get())
    }

    fn text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.0.get(key)?.get()).ok()
    }

    fn number(&self, key: &str) -> Option<u64> {
        serde_json::from_str(self.0.get(key)?.get()).ok()
    }
}

impl RoomUpdate {
    /// From an event as a homeserver tells it, of the room that it names itself unless that is given. `None` if it is about
    /// something else, or makes no sense.
    pub fn from_event(room_id: Option<&str>, event: &str) -> Option<Self> {
        let event = Object::read(event)?;
        if event.text("type")? != "m.room.member" {
            return None;
        }
        let room_id = room_id.map(str::to_owned).or_else(|| event.text("room_id"))?;
        if room_id.len() > MAX_ID_BYTES {
            return None;
        }
        let (sender, state_key) = (event.text("sender")?, event.text("state_key")?);
        let word = event.object("content")?.text("membership")?;
        let membership = match word.as_str() {
            "join" => Membership::Joined,
            "leave" if sender == state_key => Membership::Gone(Cause::Left),
            "leave" => Membership::Gone(Cause::Kicked),
            "ban" => Membership::Gone(Cause::Banned),
            _ => Membership::Gone(Cause::NotYet), // invited, knocking, or what is not invented yet
        };
        // The homeserver's own word, which it leaves out where there was nothing before. No invitation and no knock can
        // follow upon a join.
        let before = event.object("unsigned").and_then(|unsigned| unsigned.object("prev_content"));
        let was_joined = match before.and_then(|before| before.text("membership")) {
            Some(before) => Some(before == "join"),
            None => matches!(word.as_str(), "invite" | "knock").then_some(false),
        };
        let user = UserId::parse(&state_key)?;
        Some(Self { room_id, user, membership, sent_ms: event.number("origin_server_ts"), was_joined })
    }
}
