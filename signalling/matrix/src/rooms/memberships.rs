//! Memberships of the rooms that were asked for, as last told.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::{Membership, Presence, RoomUpdate};
use crate::names::{ServerName, UserId};

/// Rooms remembered. One that is forgotten costs a question to the homeserver when it is next asked for.
const MAX_ROOMS: usize = 20_000;
/// Rooms remembered not to be visible. Anybody can make up any number of them, so they are apart from the others, and few:
/// they are good for a moment only.
const MAX_HIDDEN: usize = 1_000;
/// Members remembered in all rooms together: a hundred bytes each.
const MAX_MEMBERS: usize = 1_000_000;
/// A refusal is looked up again when it is older than this: news may be missing, but a crowd of strangers must not
/// become a crowd of questions to the homeserver.
const REFUSALS_GOOD_FOR: Duration = Duration::from_secs(1);
/// An assent is looked up again when it is older than this. News follow it, but one that was lost must not count for ever.
const ASSENTS_GOOD_FOR: Duration = Duration::from_secs(300);
/// Rooms that the focus no longer sees remembered. Whoever sat in one is out, so one that is forgotten matters for moments.
const MAX_LOST: NonZeroUsize = NonZeroUsize::new(1_000).expect("it is not zero");
/// Look-ups that may be under way at a time.
const MAX_LOOK_UPS: usize = 64;

/// A look-up of a room's members that is under way. News that come meanwhile may be newer than what it brings.
#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
pub struct LookUp(u64);

/// See the module's description. Rooms that nobody asked for are not remembered, since a homeserver has many more than
/// ever hold a call.
pub struct Memberships {
    /// Whose users make a room visible; nothing if that is not known.
    own: Option<ServerName>,
    rooms: LruCache<String, Room>,
    members: usize,
    /// Since when rooms are known not to be visible. None of them is among the rooms.
    hidden: LruCache<String, Instant>,
    /// Rooms that were seen, and have not been since.
    lost: LruCache<String, ()>,
    pending: HashMap<LookUp, Pending>,
    next: u64,
    /// Whether news are known not to come at present.
    is_cut_off: bool,
}

struct Room {
    members: HashSet<UserId>,
    as_of: Instant,
    /// News of it may have been lost since.
    is_doubtful: bool,
}

struct Pending {
    room_id: String,
    /// What was told since it began. One that is overtaken too often is given up.
    since: Vec<RoomUpdate>,
    overflowed: bool,
}

/// News kept for one look-up. It takes moments, so more is a storm.
const MAX_SINCE: usize = 1_000;

impl Default for Memberships {
    fn default() -> Self {
        Self::seen_through(None)
    }
}

impl Memberships {
    /// Rooms of which news come as long as a user of `own` is in them.
    pub fn seen_through(own: Option<ServerName>) -> Self {
        Self {
            own,
            rooms: LruCache::unbounded(),
            members: 0,
            hidden: LruCache::new(NonZeroUsize::new(MAX_HIDDEN).expect("it is not 0")),
            lost: LruCache::new(MAX_LOST),
            pending: HashMap::new(),
            next: 0,
            is_cut_off: false,
        }
    }

    /// `None` if nothing is known that is good enough: then look it up.
    pub fn presence(&mut self, now: Instant, room_id: &str, user: &UserId) -> Option<Presence> {
        let is_fresh = |as_of: Instant| now < as_of + REFUSALS_GOOD_FOR;
        let Some(room) = self.rooms.get(room_id) else {
            return self.hidden.get(room_id).filter(|as_of| is_fresh(**as_of)).map(|_| Presence::NotVisible);
        };
        if room.is_doubtful {
            return None;
        }
        let is_followed = !self.is_cut_off && now < room.as_of + ASSENTS_GOOD_FOR;
        match room.members.contains(user) {
            true => (is_fresh(room.as_of) || is_followed).then_some(Presence::Joined),
            false => is_fresh(room.as_of).then_some(Presence::NotJoined),
        }
    }

    /// Whether the room's members are known, and news of them come.
    pub fn is_followed(&self, room_id: &str) -> bool {
        self.rooms.contains(room_id)
    }

    /// Whether somebody is in a room by what was told last, however long ago that is.
    pub fn is_taken_for_joined(&self, room_id: &str, user: &UserId) -> bool {
        self.rooms.peek(room_id).is_some_and(|room| room.members.contains(user))
    }

    /// Whether somebody was in a room not long ago: good enough where nothing better can be had, so that a homeserver that
    /// is restarted throws nobody out of a call.
    pub fn was_joined(&mut self, now: Instant, room_id: &str, user: &UserId) -> bool {
        let room = self.rooms.get(room_id);
        room.is_some_and(|room| now < room.as_of + ASSENTS_GOOD_FOR && room.members.contains(user))
    }

    /// Whether news come, as far as is known. While they do not, somebody who was kicked would look like a member, so
    /// what is known is soon looked up again.
    pub fn set_cut_off(&mut self, is_cut_off: bool) {
        self.is_cut_off = is_cut_off;
    }

    /// News may have been lost: of every room the homeserver is asked again.
    pub fn doubt(&mut self) {
        self.rooms.iter_mut().for_each(|(_, room)| room.is_doubtful = true);
        self.pending.values_mut().for_each(|pending| pending.overflowed = true);
    }

    /// Somebody is asking the homeserver for a room's members. `None` if too many are.
    pub fn begin(&mut self, room_id: &str) -> Option<LookUp> {
        if self.pending.len() >= MAX_LOOK_UPS {
            return None;
        }
        self.next += 1;
        let look_up = LookUp(self.next);
        let room_id = room_id.to_owned();
        self.pending.insert(look_up, Pending { room_id, since: Vec::new(), overflowed: false });
        Some(look_up)
    }

    /// Nothing came of it.
    pub fn give_up(&mut self, look_up: LookUp) {
        self.pending.remove(&look_up);
    }

    /// What came of it: the members, or that the room is not visible.
    pub fn finish(&mut self, now: Instant, look_up: LookUp, members: Option<HashSet<UserId>>) {
        let Some(pending) = self.pending.remove(&look_up) else { return };
        if let Some(known) = self.rooms.pop(&pending.room_id) {
            self.members -= known.members.len();
        }
        self.hidden.pop(&pending.room_id);
        if pending.overflowed {
            return;
        }
        match members {
            Some(members) => {
                self.lost.pop(&pending.room_id);
                self.members += members.len();
                self.rooms.put(pending.room_id, Room { members, as_of: now, is_doubtful: false });
            }
            None => drop(self.hidden.put(pending.room_id, now)),
        }
        for update in &pending.since {
            self.note(update);
        }
        while self.rooms.len() > MAX_ROOMS || self.members > MAX_MEMBERS {
            let Some((_, room)) = self.rooms.pop_lru() else { break };
            self.members -= room.members.len();
        }
    }

    /// The focus no longer sees a room, until a look-up brings its members again.
    pub fn lose(&mut self, room_id: &str) {
        if let Some(known) = self.rooms.pop(room_id) {
            self.members -= known.members.len();
        }
        // What is being looked up may have been seen before.
        for pending in self.pending.values_mut().filter(|pending| pending.room_id == room_id) {
            pending.overflowed = true;
        }
        self.lost.put(room_id.to_owned(), ());
    }

    pub fn is_lost(&self, room_id: &str) -> bool {
        self.lost.contains(room_id)
    }

    pub fn apply(&mut self, update: &RoomUpdate) {
        for pending in self.pending.values_mut().filter(|pending| pending.room_id == update.room_id) {
            if pending.since.len() < MAX_SINCE {
                pending.since.push(update.clone());
            } else {
                pending.overflowed = true;
            }
        }
        self.note(update);
    }

    fn note(&mut self, update: &RoomUpdate) {
        self.hidden.pop(&update.room_id); // visible after all
        // Peeked at, since news of a room are no reason to remember it longer.
        let Some(Room { members, .. }) = self.rooms.peek_mut(&update.room_id) else { return };
        match update.membership {
            Membership::Joined => self.members += usize::from(members.insert(update.user.clone())),
            Membership::Gone(_) if update.is_older_than_a_join() => {}
            Membership::Gone(_) => {
                self.members -= usize::from(members.remove(&update.user));
                let is_own = |user: &UserId| Some(user.server()) == self.own.as_ref();
                if is_own(&update.user) && !members.iter().any(is_own) {
                    // Nobody tells of it any more, so what is known of the others will soon be wrong.
                    self.members -= members.len();
                    self.rooms.pop(&update.room_id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cause;
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(&format!("@{id}:lab.example")).unwrap()
    }

    fn news(id: &str, membership: Membership) -> RoomUpdate {
        RoomUpdate { room_id: "!r".to_owned(), user: user(id), membership, sent_ms: None, was_joined: None }
    }

    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn looked_up(now: Instant, ids: &[&str]) -> Memberships {
        let mut rooms = Memberships::default();
        let look_up = rooms.begin("!r").unwrap();
        rooms.finish(now, look_up, Some(ids.iter().map(|id| user(id)).collect()));
        rooms
    }

    #[test]
    fn a_room_that_was_looked_up_is_followed() {
        let now = origin();
        let mut rooms = looked_up(now, &["dana"]);
        assert_eq!(rooms.presence(now, "!r", &user("dana")), Some(Presence::Joined));
        assert_eq!(rooms.presence(now, "!r", &user("eve")), Some(Presence::NotJoined));
        rooms.apply(&news("dana", Membership::Gone(Cause::Kicked)));
        rooms.apply(&news("eve", Membership::Joined));
        assert_eq!(rooms.presence(now, "!r", &user("dana")), Some(Presence::NotJoined));
        assert_eq!(rooms.presence(now, "!r", &user("eve")), Some(Presence::Joined));
        assert_eq!(rooms.presence(now, "!s", &user("eve")), None);
    }

    #[test]
    fn an_invitation_that_is_told_after_the_look_up_makes_nobody_a_stranger() {
        let now = origin();
        let mut rooms = looked_up(now, &["dana"]);
        let told = |was_joined| RoomUpdate { was_joined, ..news("dana", Membership::Gone(Cause::NotYet)) };
        rooms.apply(&told(Some(false)));
        assert_eq!(rooms.presence(now, "!r", &user("dana")), Some(Presence::Joined));
        rooms.apply(&told(None)); // what it is, and follows upon, is not known
        assert_eq!(rooms.presence(now, "!r", &user("dana")), Some(Presence::NotJoined));
    }

    #[test]
    fn a_room_is_followed_until_the_last_own_user_leaves_it() {
        let now = origin();
        let mut rooms = Memberships::seen_through(Some(user("dana").server().clone()));
        let far = UserId::parse("@far:else.example").unwrap();
        let look_up = rooms.begin("!r").unwrap();
        rooms.finish(now, look_up, Some([user("dana"), user("eve"), far.clone()].into()));
        rooms.apply(&news("eve", Membership::Gone(Cause::Left)));
        assert_eq!(rooms.presence(now, "!r", &far), Some(Presence::Joined));
        rooms.apply(&news("dana", Membership::Gone(Cause::Left)));
        assert_eq!((rooms.presence(now, "!r", &far), rooms.members), (None, 0));
        assert!(!rooms.was_joined(now, "!r", &far));
    }

    #[test]
    fn news_that_overtake_a_look_up_count_more_than_it() {
        let now = origin();
        let mut rooms = looked_up(now, &["dana"]);
        let look_up = rooms.begin("!r").unwrap();
        rooms.apply(&news("dana", Membership::Gone(Cause::Left)));
        rooms.finish(now, look_up, Some([user("dana")].into()));
        assert_eq!(rooms.presence(now, "!r", &user("dana")), Some(Presence::NotJoined));
    }

    #[test]
    fn a_storm_of_news_makes_a_look_up_worthless() {
        let now = origin();
        let mut rooms = Memberships::default();
        let look_up = rooms.begin("!r").unwrap();
        for _ in 0..=MAX_SINCE {
            rooms.apply(&news("dana", Membership::Joined));
        }
        rooms.finish(now, look_up, Some([user("dana")].into()));
        assert_eq!(rooms.presence(now, "!r", &user("dana")), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let now = origin();
        let mut rooms = Memberships::default();
        for at in 0..MAX_ROOMS + 5 {
            let look_up = rooms.begin(&format!("!{at}")).unwrap();
            rooms.finish(now, look_up, Some([user("dana"), user("eve")].into()));
        }
        assert_eq!((rooms.rooms.len(), rooms.members), (MAX_ROOMS, 2 * MAX_ROOMS));
        assert_eq!(rooms.presence(now, "!4", &user("dana")), None);
        for at in 0..2 * MAX_HIDDEN {
            let look_up = rooms.begin(&format!("!hidden{at}")).unwrap();
            rooms.finish(now, look_up, None);
        }
        assert_eq!((rooms.rooms.len(), rooms.hidden.len()), (MAX_ROOMS, MAX_HIDDEN));
        assert_eq!(
            rooms.presence(now, "!5", &user("dana")),
            Some(Presence::Joined),
            "whatever strangers make up"
        );
        let under_way: Vec<_> = (0..MAX_LOOK_UPS).map(|_| rooms.begin("!r").unwrap()).collect();
        assert_eq!(rooms.begin("!r"), None);
        rooms.give_up(under_way[0]);
        assert!(rooms.begin("!r").is_some());
    }

    #[test]
    fn a_refusal_is_looked_up_again_after_a_moment_and_an_assent_after_minutes() {
        let now = origin();
        let mut rooms = looked_up(now, &["dana"]);
        let hidden = rooms.begin("!hidden").unwrap();
        rooms.finish(now, hidden, None);
        assert_eq!(rooms.presence(now, "!hidden", &user("dana")), Some(Presence::NotVisible));
        let now = now + REFUSALS_GOOD_FOR;
        assert_eq!(rooms.presence(now, "!r", &user("eve")), None);
        assert_eq!(rooms.presence(now, "!hidden", &user("dana")), None);
        assert_eq!(rooms.presence(now, "!r", &user("dana")), Some(Presence::Joined));
        let now = now + ASSENTS_GOOD_FOR;
        assert_eq!(rooms.presence(now, "!r", &user("dana")), None);
        assert!(!rooms.was_joined(now, "!r", &user("dana")));
    }

    #[test]
    fn an_assent_is_looked_up_again_after_a_moment_while_no_news_come() {
        let then = origin();
        let mut rooms = looked_up(then, &["dana"]);
        rooms.set_cut_off(true);
        assert_eq!(rooms.presence(then, "!r", &user("dana")), Some(Presence::Joined));
        let now = then + REFUSALS_GOOD_FOR;
        assert_eq!(rooms.presence(now, "!r", &user("dana")), None);
        assert!(rooms.was_joined(now, "!r", &user("dana")) && !rooms.was_joined(now, "!r", &user("eve")));
        rooms.set_cut_off(false);
        assert_eq!(rooms.presence(now, "!r", &user("dana")), Some(Presence::Joined));
    }

    #[test]
    fn a_room_is_lost_until_its_members_are_seen_again() {
        let now = origin();
        let mut rooms = looked_up(now, &["dana"]);
        let look_up = rooms.begin("!r").unwrap();
        rooms.lose("!r");
        rooms.finish(now, look_up, Some([user("dana")].into()));
        assert!(rooms.is_lost("!r"), "what was asked before is no sight of it");
        assert_eq!(rooms.presence(now, "!r", &user("dana")), None);
        let look_up = rooms.begin("!r").unwrap();
        rooms.finish(now, look_up, None);
        assert!(rooms.is_lost("!r") && !rooms.is_lost("!s"));
        let look_up = rooms.begin("!r").unwrap();
        rooms.finish(now, look_up, Some([user("dana")].into()));
        assert!(!rooms.is_lost("!r"));
        assert_eq!(rooms.presence(now, "!r", &user("dana")), Some(Presence::Joined));
        for at in 0..2 * MAX_LOST.get() {
            rooms.lose(&format!("!{at}"));
        }
        assert_eq!(rooms.lost.len(), MAX_LOST.get());
    }

    #[test]
    fn a_room_that_news_come_from_is_visible_after_all() {
        let now = origin();
        let mut rooms = Memberships::default();
        let look_up = rooms.begin("!r").unwrap();
        rooms.finish(now, look_up, None);
        rooms.apply(&news("dana", Membership::Joined));
        assert_eq!(rooms.presence(now, "!r", &user("dana")), None, "to be looked up");
    }
}
