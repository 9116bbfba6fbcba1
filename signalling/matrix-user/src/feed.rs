//! What an answer of `/sync` tells: who is in which room, which rooms are out of sight, and who invites.

use std::time::Duration;

use matrix_sdk::ruma::api::client::filter::{FilterDefinition, RoomEventFilter, RoomFilter};
use matrix_sdk::ruma::api::client::sync::sync_events::v3::{InvitedRoom, Request, Response, State, Timeline};
use matrix_sdk::ruma::presence::PresenceState;
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{OwnedRoomId, UInt};
use serde_json::Value;
use weir_matrix::names::UserId;
use weir_matrix::rooms::{Cause, Membership, RoomUpdate};

/// Until the homeserver answers that there is nothing new. Longer saves nothing; shorter costs requests.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Member events of a room in one answer. Beyond, the homeserver says what became of everybody instead.
const TIMELINE: u32 = 100;

/// See the module's description.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// In the order in which it came about, room by room.
    pub updates: Vec<RoomUpdate>,
    /// Rooms that the user is no longer in.
    pub lost: Vec<String>,
    /// Rooms that it is in, and was not: what happened before is not told.
    pub entered: Vec<String>,
    pub invitations: Vec<Invitation>,
    /// Where to go on.
    pub position: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    pub room_id: OwnedRoomId,
    /// Unknown if the homeserver does not say.
    pub by: Option<UserId>,
}

/// Asks for what happened since a position, and waits for it. Without one, for where that is and for invitations: who is in
/// a room is looked up when it is first asked for.
///
/// `odd` milliseconds make one question differ from another about the same position: to the same, homeservers repeat an
/// answer from minutes ago (Synapse: `sync_response_cache_duration`), older than what is looked up meanwhile.
pub fn request(since: Option<String>, odd: u32) -> Request {
    let mut events = RoomEventFilter::ignore_all();
    let mut request = Request::new();
    let odd = Duration::from_millis(odd.into());
    request.timeout = Some(odd);
    request.set_presence = PresenceState::Offline; // nobody is to see it come and go
    if since.is_some() {
        events.types = Some(vec!["m.room.member".to_owned()]);
        events.limit = Some(UInt::from(TIMELINE));
        request.timeout = Some(PATIENCE + odd);
    }
    request.since = since;
    let mut filter = FilterDefinition::ignore_all();
    filter.room = RoomFilter::default();
    filter.room.account_data = RoomEventFilter::ignore_all();
    filter.room.ephemeral = RoomEventFilter::ignore_all();
    filter.room.timeline = events.clone();
    // Whole: with lazy loading, leaves that a timeline is too short for would not be told.
    filter.room.state = events;
    request.filter = Some(filter.into());
    request
}

/// Reads an answer for the user itself.
pub fn read(own: &UserId, answer: Response) -> Told {
    let mut told = Told { position: answer.next_batch, ..Told::default() };
    for (room_id, room) in &answer.rooms.join {
        if room_events(&mut told.updates, own, room_id.as_str(), &room.state, &room.timeline) {
            told.entered.push(room_id.as_str().to_owned());
        }
    }
    for (room_id, room) in &answer.rooms.leave {
        room_events(&mut told.updates, own, room_id.as_str(), &room.state, &room.timeline);
        told.lost.push(room_id.as_str().to_owned());
    }
    let invitations = answer.rooms.invite.into_iter();
    told.invitations =
        invitations.map(|(room_id, room)| Invitation { by: inviter(own, &room), room_id }).collect();
    told
}

/// Returns whether the user has entered the room.
fn room_events(
    updates: &mut Vec<RoomUpdate>,
    own: &UserId,
    room_id: &str,
    state: &State,
    timeline: &Timeline,
) -> bool {
    let (State::Before(before) | State::After(before)) = state else { return false };
    let mut between: Vec<RoomUpdate> =
        before.events.iter().filter_map(|event| read_event(room_id, event)).collect();
    let mut recent: Vec<RoomUpdate> =
        timeline.events.iter().filter_map(|event| read_event(room_id, event)).collect();
    let enters = |update: &RoomUpdate| {
        update.user == *own && update.membership == Membership::Joined && update.was_joined != Some(true)
    };
    let has_entered = between.iter().chain(&recent).any(enters);
    if has_entered {
        between.clear(); // everybody who was there before: no news, and looked up when it is asked for
    }
    for update in between {
        // The last of perhaps many. Who is joined by an event that we were not told of may have left before it.
        if update.membership == Membership::Joined && update.was_joined != Some(true) {
            let (membership, was_joined) = (Membership::Gone(Cause::Left), None);
            updates.push(RoomUpdate { membership, was_joined, ..update.clone() });
        }
        updates.push(update);
    }
    updates.append(&mut recent);
    has_entered
}

fn read_event<T>(room_id: &str, event: &Raw<T>) -> Option<RoomUpdate> {
    RoomUpdate::from_event(Some(room_id), event.json().get())
}

/// Whose event the invitation is.
fn inviter(own: &UserId, room: &InvitedRoom) -> Option<UserId> {
    room.invite_state.events.iter().find_map(|event| {
        let event: Value = serde_json::from_str(event.json().get()).ok()?;
        let is_own = event["type"] == "m.room.member" && event["state_key"] == own.as_str();
        let is_invitation = is_own && event["content"]["membership"] == "invite";
        is_invitation.then(|| UserId::parse(event["sender"].as_str()?)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::api::IncomingResponse;
    use serde_json::json;

    use super::*;

    const WEIR: &str = "@weir:lab.example";
    const DANA: &str = "@dana:lab.example";
    const EVE: &str = "@eve:else.example";

    fn told(rooms: Value) -> Told {
        let body = json!({ "next_batch": "s2", "rooms": rooms, "a key of next year": 1 }).to_string();
        let answer = matrix_sdk::bytes::Bytes::from(body);
        let answer = Response::try_from_http_response(axum::http::Response::new(answer)).unwrap();
        read(&UserId::parse(WEIR).unwrap(), answer)
    }

    fn member(user: &str, membership: &str, before: Option<&str>) -> Value {
        let unsigned = before.map_or(json!({}), |before| json!({ "prev_content": { "membership": before } }));
        json!({
            "type": "m.room.member", "sender": "@mod:lab.example", "state_key": user, "event_id": "$x",
            "origin_server_ts": 7, "content": { "membership": membership }, "unsigned": unsigned
        })
    }

    fn room(state: &[Value], timeline: &[Value]) -> Value {
        json!({ "state": { "events": state }, "timeline": { "events": timeline, "limited": !state.is_empty() } })
    }

    fn short(told: &Told) -> Vec<(&str, &str, Membership)> {
        let short = |update: &'_ RoomUpdate| update.membership;
        told.updates.iter().map(|update| (&*update.room_id, update.user.as_str(), short(update))).collect()
    }

    const KICKED: Membership = Membership::Gone(Cause::Kicked);

    #[test]
    fn who_comes_and_goes_is_told_in_its_order() {
        let events = [
            member(DANA, "join", Some("invite")),
            json!({ "type": "m.room.message", "content": {} }),
            json!({ "type": "m.room.member", "state_key": 5 }),
            member(DANA, "leave", Some("join")),
            member(EVE, "ban", Some("join")),
        ];
        let told = told(json!({ "join": { "!r:lab.example": room(&[], &events) } }));
        let room_id = "!r:lab.example";
        assert_eq!(
            short(&told),
            [
                (room_id, DANA, Membership::Joined),
                (room_id, DANA, KICKED),
                (room_id, EVE, Membership::Gone(Cause::Banned)),
            ]
        );
        assert_eq!(told.updates[1].was_joined, Some(true));
        assert_eq!((told.position.as_str(), told.entered.len()), ("s2", 0));
        assert!(told.lost.is_empty() && told.invitations.is_empty());
    }

    #[test]
    fn where_the_timeline_is_too_short_who_is_in_may_have_been_out() {
        let state = [member(DANA, "join", None), member(EVE, "leave", Some("join"))];
        let told = told(json!({ "join": { "!r": room(&state, &[member(DANA, "join", Some("join"))]) } }));
        assert_eq!(
            short(&told),
            [
                ("!r", DANA, Membership::Gone(Cause::Left)),
                ("!r", DANA, Membership::Joined),
                ("!r", EVE, KICKED),
                ("!r", DANA, Membership::Joined),
            ]
        );
        assert_eq!(told.updates[0].sent_ms, Some(7), "what was issued after it came back stays good");
    }

    #[test]
    fn those_who_were_in_a_room_before_the_user_are_no_news() {
        let crowd = [member(DANA, "join", None), member(EVE, "leave", None)];
        for (state, timeline) in [
            (crowd.to_vec(), vec![member(WEIR, "join", Some("invite"))]),
            ([&crowd[..], &[member(WEIR, "join", None)]].concat(), vec![member(DANA, "leave", Some("join"))]),
        ] {
            let told = told(json!({ "join": { "!r": room(&state, &timeline) } }));
            assert_eq!(told.entered, ["!r"]);
            assert_eq!(told.updates.len(), timeline.len(), "what came after it is");
        }
        let renamed = [member(WEIR, "join", Some("join"))];
        let told = told(json!({ "join": { "!r": room(&crowd[..1], &renamed) } }));
        assert!(told.entered.is_empty() && told.updates.len() == 3);
    }

    #[test]
    fn a_room_that_the_user_is_no_longer_in_is_lost_after_its_last_news() {
        let events = [member(DANA, "leave", Some("join")), member(WEIR, "leave", Some("join"))];
        let told = told(json!({ "leave": { "!r": room(&[], &events) } }));
        assert_eq!(told.lost, ["!r"]);
        assert_eq!(short(&told), [("!r", DANA, KICKED), ("!r", WEIR, KICKED)]);
    }

    #[test]
    fn who_invites_is_who_sent_the_invitation() {
        let stranger = json!({ "type": "m.room.member", "sender": EVE, "state_key": DANA,
            "content": { "membership": "invite" } });
        let invitation = member(WEIR, "invite", None);
        let state = |events: &[Value]| json!({ "invite_state": { "events": events } });
        let told = told(json!({ "invite": {
            "!a:lab.example": state(&[stranger, json!(5), invitation]),
            "!b:lab.example": state(&[]),
            "!c:lab.example": {},
        } }));
        let by: Vec<Option<&str>> =
            told.invitations.iter().map(|invitation| invitation.by.as_ref().map(UserId::as_str)).collect();
        assert_eq!(by, [Some("@mod:lab.example"), None, None]);
        assert_eq!(told.invitations[0].room_id, "!a:lab.example");
    }

    #[test]
    fn only_members_are_asked_for_and_at_first_nobody() {
        let query = |since: Option<&str>| {
            let request = request(since.map(str::to_owned), 7);
            let Some(filter) = request.filter else { panic!("there is a filter") };
            let filter: Value = serde_json::from_value(serde_json::to_value(filter).unwrap()).unwrap();
            let filter: Value = serde_json::from_str(filter.as_str().unwrap()).unwrap();
            (filter, request.timeout.unwrap())
        };
        let (first, wait) = query(None);
        assert_eq!(first["room"]["timeline"]["types"], json!([]));
        assert_eq!((&first["room"]["state"]["types"], wait), (&json!([]), Duration::from_millis(7)));
        let (next, wait) = query(Some("s1"));
        assert_eq!(next["room"]["timeline"], json!({ "types": ["m.room.member"], "limit": 100 }));
        assert_eq!(
            (&next["room"]["state"]["types"], wait),
            (&json!(["m.room.member"]), PATIENCE + Duration::from_millis(7))
        );
        for kind in ["account_data", "ephemeral"] {
            assert_eq!(next["room"][kind]["types"], json!([]), "{kind}");
        }
        assert_eq!((&next["presence"]["types"], &next["account_data"]["types"]), (&json!([]), &json!([])));
    }
}
