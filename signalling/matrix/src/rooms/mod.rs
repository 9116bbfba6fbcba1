//! Who is in the Matrix rooms that the focus sees, and what follows when somebody no longer is.
//!
//! [`Memberships`] answers from what it was told, [`Voids`] remembers whose tokens are no longer good, [`Seats`] knows
//! who sits in which conference for whom; all three are sans-IO. [`Door`] holds them together behind a lock, keeps what
//! must survive a restart, and asks the homeserver where nothing is known.
//!
//! Where the news come from does not matter here: an appservice's transactions and a user's sync both end in
//! [`RoomUpdate`]s.

mod askers;
mod door;
mod memberships;
mod news;
mod seats;
mod voids;

use crate::names::UserId;

pub use door::{Barred, Blind, Door, Members, MembersError, Note};
pub use memberships::{LookUp, Memberships};
pub use seats::{Holder, Seat, Seats};
pub use voids::{LONGEST_TOKEN_SECONDS, TABLES, Voids};

/// News of a room, in the order in which the homeserver told them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomUpdate {
    pub room_id: String,
    pub user: UserId,
    pub membership: Membership,
    /// When it came about, in Unix milliseconds, by the word of a server that may be anybody's.
    pub sent_ms: Option<u64>,
    /// Whether it was joined until then, if that was told.
    pub was_joined: Option<bool>,
}

impl RoomUpdate {
    /// Whether this can only be older than what made somebody a member: no invitation and no knock follows upon a join.
    /// A homeserver tells it again after a restart of the focus, which may have looked the members up by then.
    fn is_older_than_a_join(&self) -> bool {
        self.membership == Membership::Gone(Cause::NotYet) && self.was_joined == Some(false)
    }
}

/// What somebody is to a room from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    Joined,
    /// Not joined, by this cause.
    Gone(Cause),
}

/// Why somebody is no longer joined. All mean the same for media; logs tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Left,
    Kicked,
    Banned,
    /// Invited again, or knocking: whatever it was before, it is not joined.
    NotYet,
    /// Perhaps still joined, but nobody tells the focus any more.
    OutOfSight,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Kicked => "kicked",
            Self::Banned => "banned",
            Self::NotYet => "not joined",
            Self::OutOfSight => "out of sight",
        }
    }
}

/// The answer to whether somebody is in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Joined,
    NotJoined,
    /// The focus does not see the room, if there is one.
    NotVisible,
}

/// How much a Matrix room's members count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomRule {
    /// Only who is joined to the room, as far as the focus sees, gets a token and comes in with it.
    Require,
    /// The same where the focus sees the room; in others everybody does.
    WhenVisible,
    /// Everybody does.
    Off,
}

impl RoomRule {
    pub fn lets_in(self, presence: Presence) -> bool {
        match presence {
            Presence::Joined => true,
            Presence::NotJoined => self == Self::Off,
            Presence::NotVisible => self != Self::Require,
        }
    }
}

/// Somebody in a conference who no longer may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    pub room_id: String,
    pub user: UserId,
    pub cause: Cause,
    /// Where it sits.
    pub seats: Vec<Seat>,
}
