//! Data channels at the pace of the slowest: when what was sent is not taken, whoever sends has to wait.
//!
//! Two can be slow: the control plane, through which every message goes and which says so
//! ([`Shard::hold_data`]), and a peer whose queue of reliable messages grows. While one is, messages of the whole
//! conference wait with their senders, whose own SCTP windows close. A peer that takes nothing for long holds
//! nobody any more; what it then has no room for is dropped and counted.

use std::time::{Duration, Instant};

use weir_units::ids::ConferenceId;

use super::Shard;

/// Bytes in a peer's queue from which on it is waited for: half of what the queue takes, the rest being for what is
/// under way through the control plane.
const HIGH: usize = 2 * 1024 * 1024;
/// Down to which it is waited for.
const LOW: usize = 1024 * 1024;
/// How long a peer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a peer is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pace {
    #[default]
    Keeps,
    /// Waited for until then.
    Lags(Instant),
    /// Waited for in vain.
    GivenUp,
}

/// Who holds a conference's messages back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hold {
    control_plane: bool,
    lagging: usize,
    held: bool,
}

impl Hold {
    pub fn is_held(&self) -> bool {
        self.held
    }
}

impl Shard {
    /// The control plane cannot take more messages of this conference for now, or can again.
    pub fn hold_data(&mut self, now: Instant, conference: ConferenceId, held: bool) {
        let Some(&conference) = self.model.conference_ids.get(&conference) else { return };
        self.model.conferences[conference as usize].hold.control_plane = held;
        self.apply_hold(now, conference);
    }

    /// Looks at a peer's queue after something was put into it or taken from it, or its time is up.
    pub(super) fn note_pace(&mut self, now: Instant, index: u32) {
        let peer = &mut self.model.peers[index as usize];
        let queued = peer.transport.queued_bytes();
        let before = peer.pace;
        peer.pace = match before {
            Pace::Keeps if queued > HIGH => Pace::Lags(now + PATIENCE),
            Pace::Lags(_) | Pace::GivenUp if queued < LOW => Pace::Keeps,
            Pace::Lags(until) if until <= now => Pace::GivenUp,
            pace => pace,
        };
        let (after, conference) = (peer.pace, peer.conference);
        if let Pace::Lags(until) = after {
            self.arm_peer(index, until);
        }
        let lags = |pace: Pace| usize::from(matches!(pace, Pace::Lags(_)));
        let hold = &mut self.model.conferences[conference as usize].hold;
        hold.lagging = hold.lagging + lags(after) - lags(before);
        self.apply_hold(now, conference);
    }

    /// The peer goes: nobody waits for it.
    pub(super) fn forget_pace(&mut self, now: Instant, index: u32) {
        let peer = &mut self.model.peers[index as usize];
        if matches!(std::mem::take(&mut peer.pace), Pace::Lags(_)) {
            let conference = peer.conference;
            self.model.conferences[conference as usize].hold.lagging -= 1;
            self.apply_hold(now, conference);
        }
    }

    fn apply_hold(&mut self, now: Instant, conference: u32) {
        let hold = &mut self.model.conferences[conference as usize].hold;
        let held = hold.control_plane || hold.lagging > 0;
        if std::mem::replace(&mut hold.held, held) == held {
            return;
        }
        let peers = self.model.peers.iter();
        let theirs: Vec<u32> =
            peers.filter(|(_, peer)| peer.conference == conference).map(|(index, _)| index as u32).collect();
        for peer in theirs {
            self.model.peers[peer as usize].transport.hold_messages(now, held);
            self.drain_transport(now, peer);
        }
    }
}
