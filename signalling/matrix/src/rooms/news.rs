//! What a member event says of who is in which room.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Cause, Membership, RoomUpdate};
use crate::names::{MAX_ID_BYTES, UserId};

/// As much of an event as says who is in a room. The rest is skipped as it comes: other servers' users write it, and nest it
/// as deep as they like.
#[derive(Deserialize)]
struct MemberEvent {
    r#type: String,
    /// Not told where the room is known otherwise.
    room_id: Option<String>,
    sender: String,
    state_key: String,
    content: Content,
    #[serde(default, deserialize_with = "if_sensible")]
    origin_server_ts: Option<u64>,
    #[serde(default, deserialize_with = "if_sensible")]
    unsigned: Option<Unsigned>,
}

#[derive(Deserialize)]
struct Unsigned {
    prev_content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: String,
}

/// What is not as it should be is not there.
fn if_sensible<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let value = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(value.get()).ok())
}

impl RoomUpdate {
    /// From an event as a homeserver tells it, of the room that it names itself unless that is given. `None` if it is about
    /// something else, or makes no sense.
    pub fn from_event(room_id: Option<&str>, event: &str) -> Option<Self> {
        let event: MemberEvent = serde_json::from_str(event).ok()?;
        let room_id = room_id.or(event.room_id.as_deref())?;
        if event.r#type != "m.room.member" || room_id.len() > MAX_ID_BYTES {
            return None;
        }
        let membership = match event.content.membership.as_str() {
            "join" => Membership::Joined,
            "leave" if event.sender == event.state_key => Membership::Gone(Cause::Left),
            "leave" => Membership::Gone(Cause::Kicked),
            "ban" => Membership::Gone(Cause::Banned),
            _ => Membership::Gone(Cause::NotYet), // invited, knocking, or what is not invented yet
        };
        // The homeserver's own word, which it leaves out where there was nothing before. No invitation and no knock can
        // follow upon a join.
        let was_joined = match event.unsigned {
            Some(Unsigned { prev_content }) => Some(prev_content.membership == "join"),
            None => matches!(event.content.membership.as_str(), "invite" | "knock").then_some(false),
        };
        Some(Self {
            room_id: room_id.to_owned(),
            user: UserId::parse(&event.state_key)?,
            membership,
            sent_ms: event.origin_server_ts,
            was_joined,
        })
    }
}
