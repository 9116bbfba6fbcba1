//! What one focus forwards together.

use std::time::Instant;

use weir_units::ids::ConferenceId;

use crate::floor::Floor;
use crate::shard::pressure::Hold;
use crate::speakers::ActiveSpeakers;
use crate::timers::Alarm;

pub(crate) struct Conference {
    pub id: ConferenceId,
    /// How many peers it has; it goes with the last.
    pub peers: usize,
    pub speakers: ActiveSpeakers,
    pub floor: Floor,
    pub alarm: Alarm,
    pub hold: Hold,
}

impl Conference {
    pub fn new(id: ConferenceId, now: Instant) -> Self {
        Self {
            id,
            peers: 0,
            speakers: ActiveSpeakers::new(now),
            floor: Floor::default(),
            alarm: Alarm::default(),
            hold: Hold::default(),
        }
    }
}
