//! The body of a transaction that a homeserver pushes. It holds what any user of any server wrote into an event.

use std::collections::HashSet;

use serde_json::{Value, json};
use weir_matrix::appservice::news::{self, Malformed};
use weir_matrix::names::{MAX_ID_BYTES, UserId};
use weir_matrix::rooms::{Membership, Memberships, Presence, RoomUpdate};

use crate::clock;

pub fn run(body: &[u8]) {
    let read = news::read(body);
    let value = serde_json::from_slice::<Value>(body);
    if read == Err(Malformed::NotJson) {
        assert!(value.is_err(), "whoever reads all of it finds it no better");
    }
    let Ok(updates) = read else { return };
    for update in &updates {
        check(update);
    }
    let Ok(value) = value else { return }; // deeper than whoever reads all of it goes
    // Told twice, with what is no news between, everything is told twice.
    let events = value["events"].as_array().expect("it was read");
    let other = [Value::Null, json!({}), json!({ "type": "m.room.member" }), json!({ "type": 5 })];
    let twice: Vec<&Value> = events.iter().chain(&other).chain(events).collect();
    let again = news::read(json!({ "events": twice, "a key of next year": null }).to_string().as_bytes());
    assert_eq!(again, Ok([&updates[..], &updates[..]].concat()));
    believe(&updates);
}

fn check(update: &RoomUpdate) {
    assert!(update.room_id.len() <= MAX_ID_BYTES);
    assert_eq!(UserId::parse(update.user.as_str()).as_ref(), Some(&update.user));
}

/// Whoever was told to have gone last is not in a room that is seen, and whoever came last is.
fn believe(updates: &[RoomUpdate]) {
    let now = clock::start();
    let mut memberships = Memberships::default();
    for room in updates.iter().map(|update| &update.room_id) {
        if let Some(look_up) = memberships.begin(room) {
            memberships.finish(now, look_up, Some(HashSet::new()));
        }
    }
    for update in updates {
        memberships.apply(update);
        let expected = match update.membership {
            Membership::Joined => Presence::Joined,
            Membership::Gone(_) => Presence::NotJoined,
        };
        // What is not held any more is asked for.
        let held = memberships.presence(now, &update.room_id, &update.user);
        assert!(held.is_none() || held == Some(expected), "{update:?} left {held:?}");
    }
}
