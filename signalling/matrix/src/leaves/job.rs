//! One delegated leave.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Action;

/// Somebody in a conference, by the names that the conference knows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Participant {
    pub conference: String,
    pub identity: String,
}

impl fmt::Debug for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Participant(…)") // identities may be Matrix ids
    }
}

/// What a client handed over.
#[derive(Clone, PartialEq, Eq)]
pub struct Delegation {
    /// The user, as their homeserver vouched.
    pub user: String,
    pub conference: String,
    /// The identities that the client may connect by, the one it asked for first; at least one. A client that writes
    /// state events connects by another than it delegates by.
    pub identities: Vec<String>,
    pub delay_id: String,
    /// After which the homeserver sends the event by itself.
    pub timeout: Duration,
    /// The address of the client-server API, without a slash at the end.
    pub homeserver: Arc<str>,
    pub authentication: Authentication,
}

/// Whether a homeserver is told in whose name its delayed event is managed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// We have nothing to show there.
    #[default]
    Never,
    /// Once it wants to know.
    OnDemand,
    /// From the first call on.
    Always,
}

impl fmt::Debug for Delegation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever has a delay id can act for its user.
        f.debug_struct("Delegation")
            .field("homeserver", &self.homeserver)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Delegation {
    pub(super) fn participant(&self) -> Participant {
        Participant {
            conference: self.conference.clone(),
            identity: self.identities.first().cloned().unwrap_or_default(),
        }
    }

    pub(super) fn participants(&self) -> impl Iterator<Item = Participant> + use<> {
        let conference = self.conference.clone();
        let identities = self.identities.clone();
        identities.into_iter().map(move |identity| Participant { conference: conference.clone(), identity })
    }

    pub(super) fn is_same_event(&self, other: &Self) -> bool {
        self.delay_id == other.delay_id && self.homeserver == other.homeserver && self.user == other.user
    }

    /// The server of the user, by which jobs are counted.
    pub fn origin(&self) -> &str {
        self.user.split_once(':').map_or("", |(_, server)| server)
    }
}

/// Why the homeserver is asked. The numbers index [`super::limits::Census`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The client is not there yet, or not back yet; it is given some time.
    Awaited = 0,
    /// The client is connected.
    Held = 1,
    /// The client is gone.
    Leaving = 2,
    /// A newer event is there for the same participant.
    Superseded = 3,
}

impl Stage {
    pub const ALL: [Self; 4] = [Self::Awaited, Self::Held, Self::Leaving, Self::Superseded];

    pub fn name(self) -> &'static str {
        match self {
            Self::Awaited => "awaited",
            Self::Held => "held",
            Self::Leaving => "leaving",
            Self::Superseded => "superseded",
        }
    }

    pub(super) fn action(self) -> Action {
        match self {
            Self::Awaited | Self::Held => Action::Restart,
            Self::Leaving => Action::Send,
            Self::Superseded => Action::Cancel,
        }
    }
}

/// Where a job is: always in exactly one place that leads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    At(Instant),
    /// With the time by which it should be asked.
    InLine(Instant),
    Asked,
}

#[derive(Debug)]
pub(super) struct Job {
    pub delegation: Delegation,
    pub stage: Stage,
    /// When the stage is over by itself.
    pub stage_ends: Option<Instant>,
    /// Until then the homeserver does not send the event by itself, as far as we know.
    pub expires: Instant,
    pub next: Next,
    pub failures: u32,
    pub dialects_tried: u32,
    /// Something happened while the homeserver was being asked, so the answer is to another question.
    pub is_changed: bool,
    pub is_judged: bool,
}

impl Job {
    pub fn new(delegation: Delegation, now: Instant, expires: Instant) -> Self {
        Self {
            delegation,
            stage: Stage::Awaited,
            stage_ends: None,
            expires,
            next: Next::At(now),
            failures: 0,
            dialects_tried: 0,
            is_changed: false,
            is_judged: false,
        }
    }

    /// The delay runs from some time after we asked; the earliest is what we count on.
    pub fn restarted(&mut self, asked: Instant) {
        self.expires = asked + self.delegation.timeout;
        self.failures = 0;
        self.dialects_tried = 0;
    }
}
