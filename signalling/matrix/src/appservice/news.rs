//! What a transaction says of who is in which room.

use serde_json::Value;

use crate::rooms::RoomUpdate;

/// Why something is no transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    NotJson,
    NoEvents,
}

/// The news in a transaction's body, in its order.
pub fn read(body: &[u8]) -> Result<Vec<RoomUpdate>, Malformed> {
    let body: Value = serde_json::from_slice(body).map_err(|_| Malformed::NotJson)?;
    let Some(Value::Array(events)) = body.get("events") else { return Err(Malformed::NoEvents) };
    // An event that makes no sense would come again and again if it were refused. It is no news.
    let update = |event: &Value| RoomUpdate::from_event(event.get("room_id")?.as_str()?, event);
    Ok(events.iter().filter_map(update).collect())
}
