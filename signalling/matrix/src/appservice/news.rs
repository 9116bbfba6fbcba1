//! What a transaction says of who is in which room.

use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::rooms::RoomUpdate;

/// Why something is no transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    NotJson,
    NoEvents,
}

/// The news in a transaction's body, in its order.
///
/// An event that makes no sense would come again and again if it were refused, and everything behind it would wait. It is no
/// news. Nor is any event taken apart further than it is needed: what others nest deeper than a parser goes is skipped.
pub fn read(body: &[u8]) -> Result<Vec<RoomUpdate>, Malformed> {
    let body: &RawValue = serde_json::from_slice(body).map_err(|_| Malformed::NotJson)?;
    let parts: HashMap<String, &RawValue> =
        serde_json::from_str(body.get()).map_err(|_| Malformed::NoEvents)?;
    let events = parts.get("events").ok_or(Malformed::NoEvents)?;
    let events: Vec<&RawValue> = serde_json::from_str(events.get()).map_err(|_| Malformed::NoEvents)?;
    Ok(events.iter().filter_map(|event| RoomUpdate::from_event(None, event.get())).collect())
}
