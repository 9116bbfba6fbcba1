//! How much one origin, and all of them, may keep us busy with look-ups.
//!
//! A look-up waits for a server that its asker has named, so whoever names slow ones could fill any pool. Hence an
//! origin has a few places of its own, and origins that have answered before do not share theirs with those that never
//! have. The operator's own homeserver shares with nobody.
//!
//! Requests with good tokens and with made-up ones share what an origin may be asked: only the origin tells them apart.
//! So whoever sends as many as that, in the name of an origin, keeps its users from new calls here as long as it goes on,
//! and nobody from a call that they are in. To share fairly between askers would take their addresses, which a proxy has.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::allowance::Allowance;

/// Look-ups under way at one origin. More would be a burden to it.
const ACTIVE_PER_ORIGIN: usize = 16;
/// Look-ups under way or waiting for one origin: those that answer within a tenth of a second clear this in half one.
const PLACES_PER_ORIGIN: usize = 96;
/// Look-ups under way or waiting, at all origins that have answered before.
const KNOWN_PLACES: usize = 1_024;
/// The same for the others, and for the own homeserver.
const STRANGERS_PLACES: usize = 512;
const HOME_PLACES: usize = 512;
const HOME_ACTIVE: usize = 64;
/// Origins that are remembered, in either role. An origin that is forgotten while it is busy gets its places anew; the
/// pools still bound the sum.
const MAX_ORIGINS: usize = 4_096;
/// A burst may be as large as what is allowed in this time.
const BURST: Duration = Duration::from_secs(2);

/// Why a look-up does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// The origin's users ask more often than they may.
    Rate,
    /// The origin's places are taken: it is slow.
    Origin,
    /// All places are taken.
    All,
}

/// One look-up's places, given back when dropped.
#[derive(Debug)]
pub struct Places {
    _permits: Vec<OwnedSemaphorePermit>,
    active: Arc<Semaphore>,
}

impl Places {
    /// Waits until the origin is asked by few enough others.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.active).acquire_owned().await.ok()
    }
}

pub struct Limits {
    per_second: f64,
    home: (Arc<Semaphore>, Arc<Semaphore>),
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    origins: LruCache<String, Origin>,
    have_answered: LruCache<String, ()>,
}

struct Origin {
    places: Arc<Semaphore>,
    active: Arc<Semaphore>,
    allowance: Allowance,
}

impl Limits {
    pub fn new(per_second: u32) -> Self {
        let most = NonZeroUsize::new(MAX_ORIGINS).expect("it is not 0");
        let pool = |places| Arc::new(Semaphore::new(places));
        Self {
            per_second: f64::from(per_second),
            home: (pool(HOME_PLACES), pool(HOME_ACTIVE)),
            known: pool(KNOWN_PLACES),
            strangers: pool(STRANGERS_PLACES),
            state: Mutex::new(State { origins: LruCache::new(most), have_answered: LruCache::new(most) }),
        }
    }

    /// For the operator's own homeserver.
    pub fn enter_home(&self) -> Result<Places, Busy> {
        let (places, active) = &self.home;
        let permit = Arc::clone(places).try_acquire_owned().map_err(|_| Busy::All)?;
        Ok(Places { _permits: vec![permit], active: Arc::clone(active) })
    }

    pub fn enter(&self, origin: &str, now: Instant) -> Result<Places, Busy> {
        let origin = origin.to_ascii_lowercase();
        let most = self.per_second * BURST.as_secs_f64();
        let mut state = self.lock();
        let pool = if state.have_answered.get(&origin).is_some() { &self.known } else { &self.strangers };
        let entry = state.origins.get_or_insert_mut(origin, || Origin {
            places: Arc::new(Semaphore::new(PLACES_PER_ORIGIN)),
            active: Arc::new(Semaphore::new(ACTIVE_PER_ORIGIN)),
            allowance: Allowance::new(now.into_std(), most),
        });
        if !entry.allowance.take(now.into_std(), most, self.per_second) {
            return Err(Busy::Rate);
        }
        let place = Arc::clone(&entry.places).try_acquire_owned().map_err(|_| Busy::Origin)?;
        let active = Arc::clone(&entry.active);
        let shared = Arc::clone(pool).try_acquire_owned().map_err(|_| Busy::All)?;
        Ok(Places { _permits: vec![place, shared], active })
    }

    /// The origin is a homeserver that vouches for its users.
    pub fn note_answer(&self, origin: &str) {
        self.lock().have_answered.put(origin.to_ascii_lowercase(), ());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
    fn start() -> Instant {
        Instant::from_std(std::time::Instant::now())
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let limits = Limits::new(10);
        let now = start();
        for _ in 0..20 {
            limits.enter("a.example", now).unwrap();
        }
        assert_eq!(limits.enter("a.example", now).unwrap_err(), Busy::Rate);
        assert_eq!(
            limits.enter("A.Example", now).unwrap_err(),
            Busy::Rate,
            "letters of another case are the same origin"
        );
        limits.enter("b.example", now).unwrap();
        let later = now + Duration::from_millis(100);
        limits.enter("a.example", later).unwrap();
        assert_eq!(limits.enter("a.example", later).unwrap_err(), Busy::Rate);
    }

    #[test]
    fn a_slow_origin_takes_its_own_places_alone() {
        let limits = Limits::new(1_000);
        let now = start();
        let held: Vec<_> =
            (0..PLACES_PER_ORIGIN).map(|_| limits.enter("slow.example", now).unwrap()).collect();
        assert_eq!(limits.enter("slow.example", now).unwrap_err(), Busy::Origin);
        limits.enter("other.example", now).unwrap();
        drop(held);
        limits.enter("slow.example", now).unwrap();
    }

    #[test]
    fn strangers_by_the_thousand_leave_room_for_those_who_have_answered_and_for_the_own() {
        let limits = Limits::new(1_000);
        let now = start();
        limits.note_answer("known.example");
        let held: Vec<_> =
            (0..STRANGERS_PLACES).map(|n| limits.enter(&format!("{n}.example"), now).unwrap()).collect();
        assert_eq!(limits.enter("one-more.example", now).unwrap_err(), Busy::All);
        limits.enter("known.example", now).unwrap();
        limits.enter_home().unwrap();
        drop(held);
        limits.enter("one-more.example", now).unwrap();
    }
}
