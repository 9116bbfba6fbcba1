//! Who sits in which conference for whom.

use std::collections::{BTreeSet, HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Cause, Membership, RoomUpdate};
use crate::names::UserId;

/// Whom a token was made for: it says so itself, so that nothing about tokens need be remembered, whatever their number
/// and however often the focus is restarted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    pub room_id: String,
    pub user: UserId,
}

/// A participant, as the protocol of clients names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seat {
    pub conference: String,
    pub identity: String,
}

impl Holder {
    /// The news that it is no longer in the room.
    pub(super) fn gone(self, cause: Cause) -> RoomUpdate {
        let Self { room_id, user } = self;
        RoomUpdate { room_id, user, membership: Membership::Gone(cause), sent_ms: None, was_joined: None }
    }

    /// In the characters of base64url alone: some clients read tokens with a decoder that stumbles over others.
    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(&(&self.room_id, self.user.as_str())).expect("strings are always JSON");
        URL_SAFE_NO_PAD.encode(json)
    }

    pub fn decode(text: &str) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (room_id, user): (String, String) = serde_json::from_slice(&json).ok()?;
        Some(Self { room_id, user: UserId::parse(&user)? })
    }
}

/// As many as there are participants.
#[derive(Default)]
pub struct Seats(HashMap<Holder, HashSet<Seat>>);

impl Seats {
    pub fn take(&mut self, holder: Holder, seat: Seat) {
        self.0.entry(holder).or_default().insert(seat);
    }

    pub fn leave(&mut self, holder: &Holder, seat: &Seat) {
        if let Some(seats) = self.0.get_mut(holder) {
            seats.remove(seat);
            if seats.is_empty() {
                self.0.remove(holder);
            }
        }
    }

    /// In a fixed order.
    pub fn of(&self, holder: &Holder) -> Vec<Seat> {
        let mut seats: Vec<Seat> = self.0.get(holder).into_iter().flatten().cloned().collect();
        seats.sort();
        seats
    }

    /// Who sits somewhere for a room, in a fixed order.
    pub fn in_room(&self, room_id: &str) -> Vec<Holder> {
        let mut holders: Vec<Holder> =
            self.0.keys().filter(|holder| holder.room_id == room_id).cloned().collect();
        holders.sort();
        holders
    }

    /// For which somebody sits somewhere, in a fixed order.
    pub fn rooms(&self) -> Vec<String> {
        let rooms: BTreeSet<&String> = self.0.keys().map(|holder| &holder.room_id).collect();
        rooms.into_iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(user: &str) -> Holder {
        Holder { room_id: "!room?>~\u{7f}".to_owned(), user: UserId::parse(user).unwrap() }
    }

    #[test]
    fn a_holder_survives_its_way_through_a_token_in_plain_characters() {
        let dana = holder("@d\"ÿ~?>a:lab.example");
        let text = dana.encode();
        assert!(
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')),
            "{text}"
        );
        assert_eq!(Holder::decode(&text), Some(dana));
        for other in ["", "x", "W10", "!", "WyIhcjpzIiwibm9ib2R5Il0"] {
            assert_eq!(Holder::decode(other), None, "{other}");
        }
    }

    #[test]
    fn whoever_sits_at_two_places_is_found_at_both_until_it_leaves() {
        let mut seats = Seats::default();
        let dana = holder("@dana:lab.example");
        let seat = |identity: &str| Seat { conference: "c".to_owned(), identity: identity.to_owned() };
        seats.take(dana.clone(), seat("phone"));
        seats.take(dana.clone(), seat("laptop"));
        seats.take(holder("@eve:lab.example"), seat("eve"));
        assert_eq!(seats.of(&dana), [seat("laptop"), seat("phone")]);
        seats.leave(&dana, &seat("phone"));
        seats.leave(&dana, &seat("tablet"));
        assert_eq!(seats.of(&dana), [seat("laptop")]);
        seats.leave(&dana, &seat("laptop"));
        assert!(seats.of(&dana).is_empty() && seats.0.len() == 1);
    }
}
