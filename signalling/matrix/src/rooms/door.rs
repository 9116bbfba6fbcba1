//! The three state machines behind one lock, with the clock, the file and the homeserver.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use rusqlite::Transaction;
use tokio::sync::{Semaphore, mpsc};

use super::askers::Askers;
use super::memberships::{LookUp, Memberships};
use super::seats::{Holder, Seat, Seats};
use super::voids::Voids;
use super::{Cause, Membership, Presence, Removed, RoomRule, RoomUpdate};
use crate::names::{ServerName, UserId, shortened};
use crate::store::{Store, StoreError};

/// Questions to the homeserver at a time. Others wait, and most find their answer when it is their turn.
const LOOK_UPS: usize = 8;
/// Until whoever waits for an answer is told that there is none.
const TIMEOUT: Duration = Duration::from_secs(5);
/// News of a leave that is older than this may be overtaken by a return that is told in the next transaction: who seems to
/// be gone is then asked for. It is longer than clocks of servers differ as a rule, since asking takes time.
const LATE: Duration = Duration::from_secs(5);
/// What that may take for all leaves of a transaction. Without an answer who left is out.
const LATE_PATIENCE: Duration = Duration::from_millis(500);
/// People to be sent away who wait for the one that does it.
const QUEUE: usize = 1_024;

/// Why a room's members could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    #[error("the homeserver could not be asked: {0}")]
    Failed(String),
    #[error("the homeserver took too long")]
    TooLate,
    #[error("the user, or its server, asks about more rooms than it may")]
    TooOften,
}

/// Who can be asked for the members of a room.
pub trait Members: Send + Sync + 'static {
    /// Everybody who is joined; `None` if the room cannot be seen.
    fn members<'a>(
        &'a self,
        room_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<HashSet<UserId>>, MembersError>>;

    /// Whose users make a room visible, if it is one server.
    fn server(&self) -> Option<&ServerName> {
        None
    }
}

/// Sees no room at all.
pub struct Blind;

impl Members for Blind {
    fn members<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<HashSet<UserId>>, MembersError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// Why somebody with a good token stays outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// The token was issued before its holder left the room, or the holder is not in it.
    Void,
    /// Nobody can say.
    Unknown,
}

/// What else is kept in the transaction that keeps an update.
pub type Note = Box<dyn FnOnce(&Transaction<'_>) -> rusqlite::Result<()> + Send>;

/// See the module's description.
pub struct Door {
    state: Mutex<State>,
    store: Store,
    members: Arc<dyn Members>,
    turns: Semaphore,
    removals: mpsc::Sender<Removed>,
}

struct State {
    memberships: Memberships,
    voids: Voids,
    seats: Seats,
    askers: Askers,
    rule: RoomRule,
}

impl State {
    fn presence(&mut self, room_id: &str, user: &UserId) -> Option<Presence> {
        let presence = self.memberships.presence(now(), room_id, user)?;
        // A room that nobody of the homeserver is in any more is not visible, but who was seen to leave is not in it.
        let holder = || Holder { room_id: room_id.to_owned(), user: user.clone() };
        let is_gone = presence == Presence::NotVisible && self.voids.has_left(&holder());
        Some(if is_gone { Presence::NotJoined } else { presence })
    }

    fn is_void(&self, holder: &Holder, issued_ms: u64) -> bool {
        self.voids.is_void(holder, issued_ms)
            || self.rule == RoomRule::Require && self.memberships.is_lost(&holder.room_id)
    }
}

impl Door {
    /// Who is to be sent away comes out of the receiver. Their tokens are void by then.
    pub async fn open(
        store: Store,
        members: Arc<dyn Members>,
    ) -> Result<(Self, mpsc::Receiver<Removed>), StoreError> {
        let now = unix_ms();
        let voids = store.run(move |file| Voids::load(file, now)).await?;
        let memberships = Memberships::seen_through(members.server().cloned());
        let rule = RoomRule::WhenVisible;
        let askers = Askers::new(members.server().cloned());
        let state = State { memberships, voids, seats: Seats::default(), askers, rule };
        let state = Mutex::new(state);
        let (removals, removed) = mpsc::channel(QUEUE);
        Ok((Self { state, store, members, turns: Semaphore::new(LOOK_UPS), removals }, removed))
    }

    /// Whether somebody is in a room, by what is known or else by the homeserver.
    pub async fn presence(&self, room_id: &str, user: &UserId) -> Result<Presence, MembersError> {
        if let Some(known) = self.known(room_id, user) {
            return Ok(known);
        }
        let asking = async {
            let _turn = self.turns.acquire().await;
            match self.known(room_id, user) {
                Some(known) => Ok(known), // somebody else has asked meanwhile
                None if !self.state().askers.may_ask(now(), user) => Err(MembersError::TooOften),
                None => self.ask(room_id, user).await,
            }
        };
        let asked = tokio::time::timeout(TIMEOUT, asking).await.unwrap_or(Err(MembersError::TooLate));
        asked.or_else(|error| {
            let was_joined = self.state().memberships.was_joined(now(), room_id, user);
            if was_joined { Ok(Presence::Joined) } else { Err(error) }
        })
    }

    /// Whether the homeserver is known not to reach us, so that nobody tells us who leaves.
    pub fn set_cut_off(&self, is_cut_off: bool) {
        self.state().memberships.set_cut_off(is_cut_off);
    }

    /// How much the members of a room count. Without a word on it, where the focus sees the room.
    pub fn set_rule(&self, rule: RoomRule) {
        self.state().rule = rule;
    }

    /// The focus no longer sees a room, so nobody tells it who leaves. What it answers will hold after a restart.
    pub async fn lose_sight(&self, room_id: &str) -> Result<(), StoreError> {
        let holders = {
            let mut state = self.state();
            state.memberships.lose(room_id);
            // Whoever sits down from now on is asked once more whether its token is good.
            if state.rule == RoomRule::Require { state.seats.in_room(room_id) } else { Vec::new() }
        };
        let out = holders.into_iter().map(|holder| holder.gone(Cause::OutOfSight));
        self.take(out.collect(), None).await
    }

    /// News of every room may be lost. See [`Self::look_again_at`].
    pub async fn look_again(&self) -> Result<(), StoreError> {
        let rooms = {
            let mut state = self.state();
            state.memberships.doubt();
            state.seats.rooms()
        };
        for room_id in rooms {
            self.look_again_at(&room_id).await?;
        }
        Ok(())
    }

    /// An own user has left these rooms. Where it was the last, and members are required, nobody tells who else leaves.
    pub async fn look_for_sight_of(&self, rooms: BTreeSet<String>) -> Result<(), StoreError> {
        for room_id in rooms {
            let may_be_lost = {
                let state = self.state();
                state.rule == RoomRule::Require && !state.memberships.is_followed(&room_id)
            };
            if may_be_lost {
                self.look_again_at(&room_id).await?;
            }
        }
        Ok(())
    }

    /// Of the rooms of these news, those that one fewer user of the homeserver is in.
    pub fn left_by_own(&self, updates: &[RoomUpdate]) -> BTreeSet<String> {
        let is_own = |user: &UserId| self.members.server() == Some(user.server());
        let left = updates.iter().filter(|update| matches!(update.membership, Membership::Gone(_)));
        left.filter(|update| is_own(&update.user)).map(|update| update.room_id.clone()).collect()
    }

    /// News of a room may be lost, or it is seen for the first time: whoever sits in its conference is looked up, and sent
    /// away if it is not in the room.
    pub async fn look_again_at(&self, room_id: &str) -> Result<(), StoreError> {
        let any = {
            let state = self.state();
            let counts = state.rule != RoomRule::Off; // else strangers sit there by right
            state.seats.in_room(room_id).pop().filter(|_| counts)
        };
        let Some(any) = any else { return Ok(()) };
        match self.ask(room_id, &any.user).await {
            Ok(Presence::NotVisible) => self.lose_sight(room_id).await,
            Ok(_) => self.take(self.seated_strangers(room_id), None).await,
            Err(error) => {
                tracing::warn!(room = %shortened(room_id), %error, "who of a conference is in its room is not known");
                Ok(())
            }
        }
    }

    /// That they have gone, of those who sit in a conference and are not in its room by what was just looked up.
    fn seated_strangers(&self, room_id: &str) -> Vec<RoomUpdate> {
        let mut state = self.state();
        let mut holders = state.seats.in_room(room_id);
        holders.retain(|holder| state.presence(room_id, &holder.user) == Some(Presence::NotJoined));
        holders.into_iter().map(|holder| holder.gone(Cause::Left)).collect()
    }

    fn known(&self, room_id: &str, user: &UserId) -> Option<Presence> {
        self.state().presence(room_id, user)
    }

    async fn ask(&self, room_id: &str, user: &UserId) -> Result<Presence, MembersError> {
        let look_up = self.state().memberships.begin(room_id);
        let look_up = look_up.ok_or_else(|| MembersError::Failed("too many questions wait".to_owned()))?;
        let _given_up = GivenUp(self, look_up); // unless it is finished below
        let members = self.members.members(room_id).await?;
        let mut state = self.state();
        state.memberships.finish(now(), look_up, members);
        let presence = state.presence(room_id, user);
        presence.ok_or_else(|| MembersError::Failed("the room changes too fast".to_owned()))
    }

    /// Whether somebody with a token may come in, or back. The homeserver is asked if need be: after a restart nothing is
    /// known of who left meanwhile.
    pub async fn admit(&self, holder: &Holder, issued_ms: u64, rule: RoomRule) -> Result<(), Barred> {
        if self.is_void(holder, issued_ms) {
            return Err(Barred::Void);
        }
        if rule == RoomRule::Off {
            return Ok(());
        }
        match self.presence(&holder.room_id, &holder.user).await {
            // Who left while we asked has a void token by now.
            Ok(presence) if rule.lets_in(presence) && !self.is_void(holder, issued_ms) => Ok(()),
            Ok(_) => Err(Barred::Void),
            Err(error) => {
                tracing::warn!(room = %shortened(&holder.room_id), %error, "whether somebody is in a room is not known");
                Err(Barred::Unknown)
            }
        }
    }

    pub fn is_void(&self, holder: &Holder, issued_ms: u64) -> bool {
        self.state().is_void(holder, issued_ms)
    }

    pub fn sits(&self, holder: Holder, seat: Seat) {
        self.state().seats.take(holder, seat);
    }

    pub fn leaves(&self, holder: &Holder, seat: &Seat) {
        self.state().seats.leave(holder, seat);
    }

    /// Takes news of rooms. Whoever is no longer joined is out before this returns, and what it answers will hold after a
    /// restart. Order counts: the caller brings one batch after the other.
    ///
    /// After a time in which the homeserver did not reach us, a batch may tell how somebody left and came back, or the next
    /// may tell that they are back. That is no reason to send them away: they may have come back to the conference as well,
    /// with a new token. What was issued before they left stays void.
    pub async fn take(&self, updates: Vec<RoomUpdate>, note: Option<Note>) -> Result<(), StoreError> {
        let back = self.back(&updates).await;
        let now_ms = unix_ms();
        let Applied { removed, voided, old, floor } = self.apply(updates, &back, now_ms);
        for removed in removed {
            let _ = self.removals.send(removed).await; // nobody listens when the focus ends
        }
        if voided.is_empty() && note.is_none() {
            return Ok(());
        }
        let keep = move |file: &Transaction<'_>| {
            Voids::keep(file, &voided, old, floor)?;
            note.map_or(Ok(()), |note| note(file))
        };
        self.store.run(keep).await
    }

    /// Who left by what is told, and is back by the homeserver's present word: what is told is late. Only of people who count
    /// here as being in the room is that asked, so that old news of rooms without a call are no burden to anybody.
    async fn back(&self, updates: &[RoomUpdate]) -> HashSet<Holder> {
        let late_ms = unix_ms().saturating_sub(LATE.as_millis() as u64);
        let is_late = |update: &RoomUpdate| update.sent_ms.is_some_and(|sent| sent <= late_ms);
        let mut gone: BTreeMap<String, BTreeSet<UserId>> = BTreeMap::new();
        let counts = |update: &RoomUpdate| {
            let state = self.state();
            let holder = Holder { room_id: update.room_id.clone(), user: update.user.clone() };
            !state.seats.of(&holder).is_empty()
                || state.memberships.is_taken_for_joined(&update.room_id, &update.user)
        };
        for (update, sequel) in updates.iter().zip(sequels(updates)) {
            let leaves = matches!(update.membership, Membership::Gone(_)) && sequel == Sequel::Nothing;
            if leaves && is_late(update) && counts(update) {
                gone.entry(update.room_id.clone()).or_default().insert(update.user.clone());
            }
        }
        let asking = futures_util::stream::iter(gone)
            .map(async |(room_id, users)| {
                let joined = self.members.members(&room_id).await.ok().flatten().unwrap_or_default();
                let back = users.into_iter().filter(|user| joined.contains(user)).collect::<Vec<_>>();
                (room_id, back)
            })
            .buffer_unordered(LOOK_UPS)
            .take_until(tokio::time::sleep(LATE_PATIENCE))
            .collect::<Vec<_>>();
        let back = asking.await.into_iter();
        back.flat_map(|(room_id, users)| {
            users.into_iter().map(move |user| Holder { room_id: room_id.clone(), user })
        })
        .collect()
    }

    fn apply(&self, updates: Vec<RoomUpdate>, back: &HashSet<Holder>, now_ms: u64) -> Applied {
        let mut state = self.state();
        let (mut removed, mut voided) = (Vec::new(), Vec::new());
        let sequels = sequels(&updates);
        for (update, sequel) in updates.into_iter().zip(sequels) {
            let holder = Holder { room_id: update.room_id.clone(), user: update.user.clone() };
            let is_back = sequel == Sequel::Nothing && back.contains(&holder);
            if let (Membership::Gone(_), Some(sent_ms), true) = (update.membership, update.sent_ms, is_back) {
                // It is in the room, as the homeserver says now and will tell.
                let until = sent_ms.min(now_ms);
                state.voids.void(holder.clone(), until);
                voided.push((holder, until));
                continue;
            }
            let is_taken_for_joined = state.memberships.is_taken_for_joined(&update.room_id, &update.user);
            state.memberships.apply(&update);
            let Membership::Gone(cause) = update.membership else { continue };
            if is_taken_for_joined && update.is_older_than_a_join() {
                continue;
            }
            // Only of who is a member is another server's clock believed.
            let until = match sequel {
                Sequel::EndsJoined => update.sent_ms.map_or(now_ms, |sent| sent.min(now_ms)),
                Sequel::EndsGone | Sequel::Nothing => now_ms,
            };
            let seats = state.seats.of(&holder);
            // Anybody may be invited, and who was no member before is one no less: that costs no memory.
            if update.was_joined == Some(false) && !is_taken_for_joined && seats.is_empty() {
                continue;
            }
            state.voids.void(holder.clone(), until);
            voided.push((holder.clone(), until));
            if sequel == Sequel::Nothing && !seats.is_empty() {
                let Holder { room_id, user } = holder;
                removed.push(Removed { room_id, user, cause, seats });
            }
        }
        Applied { removed, voided, old: Voids::old(now_ms), floor: state.voids.floor() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a batch tells later of the same person in the same room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sequel {
    Nothing,
    EndsJoined,
    EndsGone,
}

/// Of each update.
fn sequels(updates: &[RoomUpdate]) -> Vec<Sequel> {
    let mut ends = HashMap::new();
    let sequel = |update: &RoomUpdate| {
        let end = match update.membership {
            Membership::Joined => Sequel::EndsJoined,
            Membership::Gone(_) => Sequel::EndsGone,
        };
        let key = (update.room_id.clone(), update.user.clone());
        match ends.get(&key) {
            Some(end) => *end,
            None => {
                ends.insert(key, end);
                Sequel::Nothing
            }
        }
    };
    let mut sequels: Vec<Sequel> = updates.iter().rev().map(sequel).collect();
    sequels.reverse();
    sequels
}

/// What is to follow news.
struct Applied {
    removed: Vec<Removed>,
    /// Whose tokens are void, and until when issued.
    voided: Vec<(Holder, u64)>,
    old: u64,
    floor: u64,
}

/// A look-up whose asker has gone, or that failed.
struct GivenUp<'a>(&'a Door, LookUp);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.0.state().memberships.give_up(self.1);
    }
}

#[expect(clippy::disallowed_methods, reason = "here the clock is read that memberships are passed")]
fn now() -> Instant {
    Instant::now()
}

/// The clock by which tokens are issued.
#[expect(clippy::disallowed_methods, reason = "here the clock is read that voids are passed")]
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::super::voids::LONGEST_TOKEN_SECONDS;
    use super::*;

    /// A homeserver where dana is in every room but the hidden ones, with somebody from elsewhere.
    struct Homeserver {
        name: ServerName,
        asked: AtomicUsize,
        is_down: AtomicBool,
        /// Dana has left all rooms, so that it sees none any more.
        is_left: AtomicBool,
    }

    impl Default for Homeserver {
        fn default() -> Self {
            Self {
                name: user("dana").server().clone(),
                asked: AtomicUsize::new(0),
                is_down: AtomicBool::new(false),
                is_left: AtomicBool::new(false),
            }
        }
    }

    fn foreign() -> UserId {
        UserId::parse("@far:else.example").unwrap()
    }

    impl Members for Homeserver {
        fn members<'a>(
            &'a self,
            room_id: &'a str,
        ) -> BoxFuture<'a, Result<Option<HashSet<UserId>>, MembersError>> {
            Box::pin(async move {
                self.asked.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                match self.is_down.load(Ordering::SeqCst) {
                    true => Err(MembersError::Failed("down".to_owned())),
                    false => Ok((room_id != "!hidden" && !self.is_left.load(Ordering::SeqCst))
                        .then(|| [user("dana"), foreign()].into())),
                }
            })
        }

        fn server(&self) -> Option<&ServerName> {
            Some(&self.name)
        }
    }

    fn user(name: &str) -> UserId {
        UserId::parse(&format!("@{name}:lab.example")).unwrap()
    }

    fn holder(name: &str) -> Holder {
        Holder { room_id: "!r".to_owned(), user: user(name) }
    }

    fn gone(name: &str) -> RoomUpdate {
        RoomUpdate {
            room_id: "!r".to_owned(),
            user: user(name),
            membership: Membership::Gone(Cause::Kicked),
            sent_ms: None,
            was_joined: None,
        }
    }

    async fn door() -> (Arc<Door>, mpsc::Receiver<Removed>, Arc<Homeserver>, Store) {
        let homeserver = Arc::new(Homeserver::default());
        let store = Store::in_memory().unwrap();
        let (door, removed) = Door::open(store.clone(), Arc::clone(&homeserver) as _).await.unwrap();
        (Arc::new(door), removed, homeserver, store)
    }

    #[tokio::test]
    async fn a_kick_voids_what_was_issued_and_names_the_seats() {
        let (door, mut removed, _, store) = door().await;
        let issued = unix_ms();
        let seat = Seat { conference: "c".to_owned(), identity: "i".to_owned() };
        assert_eq!(door.admit(&holder("dana"), issued, RoomRule::WhenVisible).await, Ok(()));
        door.sits(holder("dana"), seat.clone());
        door.take(vec![gone("dana"), gone("eve")], None).await.unwrap();
        let dana = removed.recv().await.unwrap();
        assert_eq!((dana.user, dana.cause, dana.seats), (user("dana"), Cause::Kicked, vec![seat]));
        assert!(removed.try_recv().is_err(), "who sits nowhere need not be sent away");
        assert_eq!(door.admit(&holder("dana"), issued, RoomRule::WhenVisible).await, Err(Barred::Void));
        let (again, _) = Door::open(store, Arc::new(Blind)).await.unwrap();
        assert!(again.is_void(&holder("dana"), issued), "after a restart as well");
        assert!(!again.is_void(&holder("dana"), unix_ms() + 1));
    }

    #[tokio::test]
    async fn an_invitation_that_is_told_again_after_a_restart_sends_nobody_away() {
        let (door, mut removed, _, _) = door().await;
        let issued = unix_ms();
        assert_eq!(door.admit(&holder("dana"), issued, RoomRule::Require).await, Ok(()));
        door.sits(holder("dana"), Seat { conference: "c".to_owned(), identity: "i".to_owned() });
        let invited = Membership::Gone(Cause::NotYet);
        let told = RoomUpdate { membership: invited, was_joined: Some(false), ..gone("dana") };
        door.take(vec![told], None).await.unwrap();
        assert_eq!(door.admit(&holder("dana"), issued, RoomRule::Require).await, Ok(()));
        assert!(removed.try_recv().is_err());
    }

    #[tokio::test]
    async fn who_is_back_by_the_homeservers_word_stays_when_it_is_told_late_how_they_left() {
        let late = |name: &str, ago_ms: u64| RoomUpdate { sent_ms: Some(unix_ms() - ago_ms), ..gone(name) };
        let seat = Seat { conference: "c".to_owned(), identity: "i".to_owned() };
        // Of dana the homeserver says that she is in the room, of eve that she is not.
        for (name, ago_ms, is_down, stays) in [
            ("dana", 60_000, false, true),
            ("eve", 60_000, false, false),
            ("dana", 60_000, true, false),
            ("dana", 100, false, false),
        ] {
            let (door, mut removed, homeserver, store) = door().await;
            homeserver.is_down.store(is_down, Ordering::SeqCst);
            door.sits(holder(name), seat.clone());
            let news = late(name, ago_ms);
            let left_ms = news.sent_ms.unwrap();
            door.take(vec![news], None).await.unwrap();
            assert_eq!(removed.try_recv().is_err(), stays, "{name} {ago_ms} {is_down}");
            assert!(door.is_void(&holder(name), left_ms));
            assert_eq!(door.is_void(&holder(name), left_ms + 1), !stays, "a token of after the return");
            let (again, _) = Door::open(store, Arc::new(Blind)).await.unwrap();
            assert!(again.is_void(&holder(name), left_ms), "after a restart as well");
        }
        // Of rooms without a call nobody is asked.
        let (door, _removed, homeserver, _) = door().await;
        door.take(vec![late("dana", 60_000), late("eve", 60_000)], None).await.unwrap();
        assert_eq!(homeserver.asked.load(Ordering::SeqCst), 0);
    }

    /// Takes questions, and never answers.
    struct Mute;

    impl Members for Mute {
        fn members<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<HashSet<UserId>>, MembersError>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn a_homeserver_that_does_not_answer_keeps_nobody_in_a_call() {
        let (door, mut removed) = Door::open(Store::in_memory().unwrap(), Arc::new(Mute)).await.unwrap();
        let mut updates = Vec::new();
        for number in 0..3 * LOOK_UPS {
            let room_id = format!("!{number}");
            let seat = Seat { conference: room_id.clone(), identity: "i".to_owned() };
            door.sits(Holder { room_id: room_id.clone(), user: user("dana") }, seat);
            updates.push(RoomUpdate { room_id, sent_ms: Some(1), ..gone("dana") });
        }
        let started = now();
        door.take(updates, None).await.unwrap();
        assert!(started.elapsed() < 4 * LATE_PATIENCE);
        assert_eq!(std::iter::from_fn(|| removed.try_recv().ok()).count(), 3 * LOOK_UPS);
    }

    #[tokio::test]
    async fn who_left_is_remembered_over_a_restart_as_long_as_the_longest_token_is_good() {
        let (store, now) = (Store::in_memory().unwrap(), unix_ms());
        let left_ms = now - 1_000 * u64::from(LONGEST_TOKEN_SECONDS);
        store.run(move |file| Voids::keep(file, &[(holder("dana"), left_ms)], 0, 0)).await.unwrap();
        for _ in 0..2 {
            let (door, _) = Door::open(store.clone(), Arc::new(Blind)).await.unwrap();
            assert!(door.is_void(&holder("dana"), left_ms));
            door.take(vec![gone("eve")], None).await.unwrap();
            assert!(door.is_void(&holder("dana"), left_ms));
        }
    }

    #[tokio::test]
    async fn strangers_stay_outside_and_rooms_that_cannot_be_seen_decide_nothing() {
        let (door, _removed, homeserver, _) = door().await;
        let later = unix_ms() + 60_000;
        assert_eq!(door.admit(&holder("eve"), later, RoomRule::WhenVisible).await, Err(Barred::Void));
        assert_eq!(door.presence("!hidden", &user("eve")).await, Ok(Presence::NotVisible));
        homeserver.is_down.store(true, Ordering::SeqCst);
        assert_eq!(
            door.admit(&holder("dana"), later, RoomRule::WhenVisible).await,
            Ok(()),
            "what is known need not be asked"
        );
        let other = Holder { room_id: "!s".to_owned(), ..holder("dana") };
        assert_eq!(door.admit(&other, later, RoomRule::WhenVisible).await, Err(Barred::Unknown));
    }

    #[tokio::test]
    async fn who_was_the_last_that_made_a_room_visible_does_not_come_back_as_a_stranger() {
        let (door, _removed, _, store) = door().await;
        let last = RoomUpdate { room_id: "!hidden".to_owned(), ..gone("dana") };
        door.take(vec![last], None).await.unwrap();
        let (again, _) = Door::open(store, Arc::<Homeserver>::default()).await.unwrap();
        for door in [&*door, &again] {
            assert_eq!(door.presence("!hidden", &user("dana")).await, Ok(Presence::NotJoined));
            assert_eq!(door.presence("!hidden", &user("eve")).await, Ok(Presence::NotVisible));
            let holder = Holder { room_id: "!hidden".to_owned(), ..holder("dana") };
            assert_eq!(
                door.admit(&holder, unix_ms() + 60_000, RoomRule::WhenVisible).await,
                Err(Barred::Void),
                "a new token"
            );
        }
    }

    #[tokio::test]
    async fn a_room_that_is_no_longer_seen_lets_nobody_in_where_members_are_required() {
        let (door, _removed, homeserver, _) = door().await;
        let holder = Holder { user: foreign(), ..holder("dana") };
        let later = unix_ms() + 60_000;
        assert_eq!(door.admit(&holder, later, RoomRule::Require).await, Ok(()));
        // The last user through whom the room was seen leaves it, and nobody tells of the others any more.
        homeserver.is_left.store(true, Ordering::SeqCst);
        door.take(vec![gone("dana")], None).await.unwrap();
        assert_eq!(door.presence("!r", &foreign()).await, Ok(Presence::NotVisible));
        for (rule, verdict) in
            [(RoomRule::Require, Err(Barred::Void)), (RoomRule::WhenVisible, Ok(())), (RoomRule::Off, Ok(()))]
        {
            assert_eq!(door.admit(&holder, later, rule).await, verdict, "{rule:?}");
        }
    }

    #[tokio::test]
    async fn who_sits_in_a_room_that_the_last_own_user_has_left_is_out_where_members_are_required() {
        for rule in [RoomRule::Require, RoomRule::WhenVisible] {
            let (door, mut removed, homeserver, _) = door().await;
            door.set_rule(rule);
            let far = Holder { user: foreign(), ..holder("dana") };
            assert_eq!(door.admit(&far, unix_ms(), rule).await, Ok(()));
            door.sits(far, Seat { conference: "c".to_owned(), identity: "far".to_owned() });
            for (is_left, name) in [(false, "eve"), (true, "dana")] {
                homeserver.is_left.store(is_left, Ordering::SeqCst);
                let news = vec![gone(name)];
                let left = door.left_by_own(&news);
                door.take(news, None).await.unwrap();
                door.look_for_sight_of(left).await.unwrap();
                let sent_away = removed.try_recv().ok().map(|removed| removed.cause);
                let is_out = is_left && rule == RoomRule::Require;
                assert_eq!(sent_away, is_out.then_some(Cause::OutOfSight), "{name} {rule:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_room_out_of_sight_empties_its_conference_where_sight_is_required_and_nowhere_else() {
        for rule in [RoomRule::Require, RoomRule::WhenVisible, RoomRule::Off] {
            let (door, mut removed, _, store) = door().await;
            let requires_sight = rule == RoomRule::Require;
            door.set_rule(rule);
            let issued = unix_ms();
            let seat = |name: &str| Seat { conference: "c".to_owned(), identity: name.to_owned() };
            let hidden = Holder { room_id: "!hidden".to_owned(), ..holder("dana") };
            door.sits(hidden.clone(), seat("dana"));
            door.sits(holder("dana"), seat("elsewhere"));
            door.lose_sight("!hidden").await.unwrap();
            let sent_away = removed.try_recv().ok().map(|removed| (removed.room_id, removed.cause));
            let expected = requires_sight.then(|| ("!hidden".to_owned(), Cause::OutOfSight));
            assert_eq!(sent_away, expected);
            assert!(removed.try_recv().is_err(), "other rooms go on");
            // Nor does anybody come who has a token that was never used.
            let late = Holder { user: user("eve"), ..hidden.clone() };
            assert_eq!(door.is_void(&late, issued), requires_sight);
            let admitted = if requires_sight { Err(Barred::Void) } else { Ok(()) };
            assert_eq!(door.admit(&late, unix_ms() + 60_000, rule).await, admitted);
            assert_eq!(door.admit(&holder("dana"), issued, rule).await, Ok(()));
            let (again, _) = Door::open(store, Arc::new(Blind)).await.unwrap();
            assert_eq!(again.is_void(&hidden, issued), requires_sight, "after a restart as well");
        }
    }

    #[tokio::test]
    async fn who_left_while_no_news_came_is_found_by_looking_again() {
        let (door, mut removed, homeserver, _) = door().await;
        let seat = |name: &str| Seat { conference: "c".to_owned(), identity: name.to_owned() };
        door.sits(holder("dana"), seat("dana"));
        door.sits(holder("eve"), seat("eve"));
        homeserver.is_down.store(true, Ordering::SeqCst);
        door.look_again().await.unwrap();
        assert!(removed.try_recv().is_err(), "nobody can say");
        homeserver.is_down.store(false, Ordering::SeqCst);
        door.set_rule(RoomRule::Off);
        door.look_again().await.unwrap();
        assert!(removed.try_recv().is_err(), "strangers sit there by right");
        door.set_rule(RoomRule::WhenVisible);
        door.look_again().await.unwrap();
        assert_eq!(removed.try_recv().unwrap().user, user("eve"));
        assert!(removed.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_crowd_that_comes_at_once_asks_a_few_times() {
        let (door, _removed, homeserver, _) = door().await;
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let door = Arc::clone(&door);
            crowd.spawn(async move { door.presence("!r", &user("dana")).await });
        }
        while let Some(answer) = crowd.join_next().await {
            assert_eq!(answer.unwrap(), Ok(Presence::Joined));
        }
        assert!(homeserver.asked.load(Ordering::SeqCst) <= LOOK_UPS);
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_leaves_nothing_behind() {
        let (door, _removed, _, _) = door().await;
        for at in 0..1_000 {
            let somebody = user(&at.to_string());
            let mut asking = Box::pin(door.presence("!r", &somebody));
            assert!(futures_util::poll!(&mut asking).is_pending());
        }
        assert_eq!(door.presence("!r", &user("dana")).await, Ok(Presence::Joined));
    }

    #[tokio::test]
    async fn what_else_is_noted_is_kept_with_the_news_or_not_at_all() {
        let (door, _removed, _, store) = door().await;
        let note: Note = Box::new(|_| Err(rusqlite::Error::InvalidQuery));
        assert!(door.take(vec![gone("dana")], Some(note)).await.is_err());
        assert!(door.is_void(&holder("dana"), 1), "what is known counts all the same");
        let (again, _) = Door::open(store, Arc::new(Blind)).await.unwrap();
        assert!(!again.is_void(&holder("dana"), 1));
    }
}
