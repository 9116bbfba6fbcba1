//! How many jobs there may be, and of which kind.

use std::collections::HashMap;
use std::time::Duration;

use super::{Delegation, Stage};

/// A shorter delay would have the homeserver asked more than every other second for one participant.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Homeservers allow a day or so; what is beyond a month is a mistake.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(31 * 24 * 3600);
/// Opaque identifiers are no longer (Matrix specification, appendices).
const LONGEST_ID: usize = 255;

/// Each job is a few hundred bytes, and some calls a minute to a homeserver.
#[derive(Clone, Debug)]
pub struct Limits {
    pub jobs: usize,
    /// In one conference.
    pub per_conference: usize,
    /// Of users of one server.
    pub per_origin: usize,
    pub per_user: usize,
    /// Calls under way to all homeservers.
    pub calls: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { jobs: 20_000, per_conference: 2_000, per_origin: 10_000, per_user: 20, calls: 256 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there are too many delegated leaves")]
    TooMany,
    #[error("delay_timeout must be from 2000 to 2678400000 milliseconds")]
    Timeout,
    #[error("delay_id is no identifier of a delayed event")]
    DelayId,
}

/// What is wrong with a delegation by itself.
pub(super) fn check(delegation: &Delegation) -> Result<(), Refusal> {
    if !(SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&delegation.timeout) {
        return Err(Refusal::Timeout);
    }
    // It becomes a segment of a path, where dots alone would climb.
    let id = delegation.delay_id.as_bytes();
    let is_opaque = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let is_well_formed = (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(is_opaque);
    if !is_well_formed || id.iter().all(|byte| *byte == b'.') {
        return Err(Refusal::DelayId);
    }
    Ok(())
}

/// Counts of what there is. An entry exists while it is above nought.
#[derive(Default, Debug)]
pub(super) struct Census {
    pub stages: [usize; Stage::ALL.len()],
    all: usize,
    conferences: HashMap<String, usize>,
    origins: HashMap<String, usize>,
    users: HashMap<String, usize>,
}

impl Census {
    pub fn admit(&mut self, limits: &Limits, delegation: &Delegation) -> Result<(), Refusal> {
        let count = |map: &HashMap<String, usize>, key: &str| map.get(key).copied().unwrap_or(0);
        let is_full = self.all >= limits.jobs
            || count(&self.conferences, &delegation.conference) >= limits.per_conference
            || count(&self.origins, delegation.origin()) >= limits.per_origin
            || count(&self.users, &delegation.user) >= limits.per_user;
        if is_full {
            return Err(Refusal::TooMany);
        }
        self.add(delegation);
        Ok(())
    }

    pub fn add(&mut self, delegation: &Delegation) {
        self.all += 1;
        for (map, key) in self.of(delegation) {
            *map.entry(key).or_default() += 1;
        }
    }

    pub fn remove(&mut self, delegation: &Delegation, stage: Stage) {
        self.all -= 1;
        self.stages[stage as usize] -= 1;
        for (map, key) in self.of(delegation) {
            let count = map.entry(key.clone()).or_insert(1);
            *count -= 1;
            if *count == 0 {
                map.remove(&key);
            }
        }
    }

    fn of(&mut self, delegation: &Delegation) -> [(&mut HashMap<String, usize>, String); 3] {
        [
            (&mut self.conferences, delegation.conference.clone()),
            (&mut self.origins, delegation.origin().to_owned()),
            (&mut self.users, delegation.user.clone()),
        ]
    }
}

#[cfg(test)]
impl Census {
    pub fn is_empty(&self) -> bool {
        self.all == 0 && self.conferences.is_empty() && self.origins.is_empty() && self.users.is_empty()
    }
}
