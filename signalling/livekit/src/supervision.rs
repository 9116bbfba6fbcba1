//! Those who stand above a token: a [`Gate`] that can refuse a good one, and an [`Observer`] that is told who came and
//! went. The focus implements them; what a token's holder is to them is not known here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use livekit_protocol::DisconnectReason;

use crate::token::Claims;

/// Who presents a token, as far as the token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    pub room: String,
    pub identity: String,
    /// When the token was issued, in Unix milliseconds. A refreshed token was issued when the first of its line was. 0 if
    /// the token does not say.
    pub issued_ms: u64,
    /// Whom the issuer made it for, in the issuer's own words; empty if it did not say.
    pub issued_to: String,
}

impl Bearer {
    pub fn new(claims: &Claims) -> Self {
        Self {
            room: claims.video.room.clone(),
            identity: claims.identity().to_owned(),
            issued_ms: claims.issued_ms(),
            issued_to: claims.issued_to.clone(),
        }
    }
}

/// Why a good token does not get its bearer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// For good: a new token is needed.
    #[error("the token is no longer good: ask for a new one")]
    Void,
    /// It could not be found out. Trying again may help.
    #[error("whether the token is still good cannot be found out at present")]
    Unknown,
}

/// See [`Gate::admit`].
pub type Admission<'a> = Pin<Box<dyn Future<Output = Result<(), Barred>> + Send + 'a>>;

/// Refuses tokens that are good by themselves.
pub trait Gate: Send + Sync + 'static {
    /// Asked before a client joins or carries on, and when it asks what became of that. May take a while, since nobody
    /// else waits for it.
    fn admit<'a>(&'a self, bearer: &'a Bearer) -> Admission<'a> {
        let answer = if self.is_void(bearer) { Err(Barred::Void) } else { Ok(()) };
        Box::pin(std::future::ready(answer))
    }

    /// Asked by the room itself, before it lets a client in and again once the observer has been told of it: who first
    /// voids a token and then evicts its bearer misses nobody. The room waits for the answer, so it must come at once.
    fn is_void(&self, bearer: &Bearer) -> bool;
}

/// Hears who comes and goes. Rooms wait until a call returns, so it must return at once: what takes longer goes into a
/// queue of the observer's own, with a bound of its own.
pub trait Observer: Send + Sync + 'static {
    fn observe(&self, bearer: &Bearer, event: ParticipantEvent);
}

/// What happened to a participant. `Joined` comes first and `Left` last, and both come once: whoever joins again under its
/// identity does so after the `Left` of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParticipantEvent {
    /// Signalling has begun.
    Joined,
    /// Media are connected, for the first time.
    Connected,
    /// Signalling is cut off. Media may be well, and the client may come back to its session.
    CutOff,
    /// Signalling is back.
    Resumed,
    /// The session is over.
    Left(LeaveReason),
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// The client said so.
    Own,
    /// Its media stopped, or it went without a word before they were connected.
    Lost,
    /// Somebody joined under the same identity.
    Replaced,
    /// It was told to start over, since the two sides no longer agreed.
    StartsOver,
    /// [`Server::evict`](crate::Server::evict) or [`Server::close_room`](crate::Server::close_room).
    Evicted,
    /// The focus ends.
    ShutDown,
}

impl LeaveReason {
    pub(crate) fn from_protocol(reason: DisconnectReason) -> Self {
        match reason {
            DisconnectReason::ClientInitiated => Self::Own,
            DisconnectReason::DuplicateIdentity => Self::Replaced,
            DisconnectReason::ServerShutdown => Self::ShutDown,
            DisconnectReason::ParticipantRemoved | DisconnectReason::RoomDeleted => Self::Evicted,
            DisconnectReason::StateMismatch | DisconnectReason::Migration => Self::StartsOver,
            _ => Self::Lost,
        }
    }
}

/// Why somebody is sent away, as the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionReason {
    ParticipantRemoved,
    RoomDeleted,
}

impl EvictionReason {
    pub(crate) fn to_protocol(self) -> DisconnectReason {
        match self {
            Self::ParticipantRemoved => DisconnectReason::ParticipantRemoved,
            Self::RoomDeleted => DisconnectReason::RoomDeleted,
        }
    }
}

/// Who stands above the tokens of a server.
#[derive(Clone)]
pub struct Supervision {
    pub gate: Arc<dyn Gate>,
    pub observer: Arc<dyn Observer>,
}

/// Every good token is good enough, and nobody is told of anything.
impl Default for Supervision {
    fn default() -> Self {
        Self { gate: Arc::new(Nobody), observer: Arc::new(Nobody) }
    }
}

struct Nobody;

impl Gate for Nobody {
    fn is_void(&self, _bearer: &Bearer) -> bool {
        false
    }
}

impl Observer for Nobody {
    fn observe(&self, _bearer: &Bearer, _event: ParticipantEvent) {}
}
