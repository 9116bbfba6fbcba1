//! What a transaction says of who is in which room.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::rooms::RoomUpdate;

/// Why something is no transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    NotJson,
    NoEvents,
}

#[derive(Deserialize)]
struct Transaction<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// The news in a transaction's body, in its order.
///
/// An event that makes no sense would come again and again if it were refused, and everything behind it would wait. It is no
/// news. Nor is any event taken apart further than it is needed: what others nest deeper than a parser goes is skipped.
pub fn read(body: &[u8]) -> Result<Vec<RoomUpdate>, Malformed> {
    let transaction: Transaction<'_> =
        serde_json::from_slice(body).map_err(|error| match error.is_data() {
            true => Malformed::NoEvents,
            false => Malformed::NotJson,
        })?;
    let events = transaction.events.iter();
    Ok(events.filter_map(|event| RoomUpdate::from_event(None, event.get())).collect())
}
