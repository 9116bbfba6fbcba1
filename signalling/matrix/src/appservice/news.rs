//! What a transaction says of who is in which room.

use serde::Deserialize;
use serde_json::Value;

use crate::names::{MAX_ID_BYTES, UserId};
use crate::rooms::{Cause, Membership, RoomUpdate};

/// Why something is no transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    NotJson,
    NoEvents,
}

/// As much of an event as says who is in a room.
#[derive(Deserialize)]
struct MemberEvent {
    room_id: String,
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

/// The news in a transaction's body, in its order.
pub fn read(body: &[u8]) -> Result<Vec<RoomUpdate>, Malformed> {
    let body: Value = serde_json::from_slice(body).map_err(|_| Malformed::NotJson)?;
    let Value::Object(mut body) = body else { return Err(Malformed::NoEvents) };
    let Some(Value::Array(events)) = body.remove("events") else { return Err(Malformed::NoEvents) };
    let is_member = |event: &Value| event.get("type").and_then(Value::as_str) == Some("m.room.member");
    // An event that makes no sense would come again and again if it were refused. It is no news.
    Ok(events.into_iter().filter(is_member).filter_map(update).collect())
}

fn update(event: Value) -> Option<RoomUpdate> {
    let event: MemberEvent = serde_json::from_value(event).ok()?;
    if event.room_id.len() > MAX_ID_BYTES {
        return None;
    }
    let membership = match event.content.membership.as_str() {
        "join" => Membership::Joined,
        "leave" if event.sender == event.state_key => Membership::Gone(Cause::Left),
        "leave" => Membership::Gone(Cause::Kicked),
        "ban" => Membership::Gone(Cause::Banned),
        _ => Membership::Gone(Cause::NotYet), // invited, knocking, or what is not invented yet
    };
    // The homeserver's own word, which it leaves out where there was nothing before. No invitation and no knock can follow
    // upon a join.
    let was_joined = match event.unsigned.pointer("/prev_content/membership") {
        Some(before) => Some(before == "join"),
        None => matches!(event.content.membership.as_str(), "invite" | "knock").then_some(false),
    };
    Some(RoomUpdate {
        room_id: event.room_id,
        user: UserId::parse(&event.state_key)?,
        membership,
        sent_ms: event.origin_server_ts.as_u64(),
        was_joined,
    })
}
