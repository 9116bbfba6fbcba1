//! What a member event says of who is in which room.

use serde::Deserialize;
use serde_json::Value;

use super::{Cause, Membership, RoomUpdate};
use crate::names::{MAX_ID_BYTES, UserId};

/// As much of an event as says who is in a room.
#[derive(Deserialize)]
struct MemberEvent {
    sender: String,
    state_key: String,
    content: MemberContent,
    #[serde(default)]
    origin_server_ts: Value,
    #[serde(default)]
    unsigned: Value,
}

#[derive(Deserialize)]
struct MemberContent {
    membership: String,
}

impl RoomUpdate {
    /// From an event of a room, as a homeserver tells it. `None` if it is about something else, or makes no sense: other
    /// servers' users write events.
    pub fn from_event(room_id: &str, event: &Value) -> Option<Self> {
        if event.get("type").and_then(Value::as_str) != Some("m.room.member") || room_id.len() > MAX_ID_BYTES
        {
            return None;
        }
        let event = MemberEvent::deserialize(event).ok()?;
        let membership = match event.content.membership.as_str() {
            "join" => Membership::Joined,
            "leave" if event.sender == event.state_key => Membership::Gone(Cause::Left),
            "leave" => Membership::Gone(Cause::Kicked),
            "ban" => Membership::Gone(Cause::Banned),
            _ => Membership::Gone(Cause::NotYet), // invited, knocking, or what is not invented yet
        };
        // The homeserver's own word, which it leaves out where there was nothing before. No invitation and no knock can
        // follow upon a join.
        let was_joined = match event.unsigned.pointer("/prev_content/membership") {
            Some(before) => Some(before == "join"),
            None => matches!(event.content.membership.as_str(), "invite" | "knock").then_some(false),
        };
        Some(Self {
            room_id: room_id.to_owned(),
            user: UserId::parse(&event.state_key)?,
            membership,
            sent_ms: event.origin_server_ts.as_u64(),
            was_joined,
        })
    }
}
