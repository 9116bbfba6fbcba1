//! Whose tokens are no longer good: those issued to somebody for a room before it last left that room.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rusqlite::{Transaction, params};

use super::seats::Holder;
use crate::names::UserId;
use crate::store::Tables;

/// No token is good for longer. What is chosen now may be less than what was chosen when a token was issued, so as long
/// is remembered who left.
pub const LONGEST_TOKEN_SECONDS: u32 = 24 * 3_600;
/// A session's refreshed tokens are good for this long, however old the first is, and clocks may differ by a minute.
const REFRESHED: Duration = Duration::from_secs(600 + 60);
/// As long as a token can be good after its holder left.
const REMEMBERED: Duration = Duration::from_secs(LONGEST_TOKEN_SECONDS as u64 + REFRESHED.as_secs());
/// People who left remembered, 300 bytes each. Beyond, all tokens are void that are older than the oldest of them, so that
/// a crowd that comes and goes reopens no door.
const MAX_VOIDS: usize = 200_000;

/// What is kept over restarts.
pub const TABLES: Tables = Tables {
    module: "rooms",
    steps: &["CREATE TABLE rooms_void (
        room_id TEXT NOT NULL, user_id TEXT NOT NULL, until_ms INTEGER NOT NULL, PRIMARY KEY (room_id, user_id)
    ) STRICT;
    CREATE INDEX rooms_void_until ON rooms_void (until_ms);
    CREATE TABLE rooms_floor (one INTEGER PRIMARY KEY CHECK (one = 1), until_ms INTEGER NOT NULL) STRICT"],
};

/// See the module's description. Times are Unix milliseconds.
#[derive(Default)]
pub struct Voids {
    /// Tokens issued until then are void.
    until: HashMap<Holder, u64>,
    by_time: BTreeSet<(u64, Holder)>,
    /// Whoever's they are.
    floor: u64,
}

impl Voids {
    pub fn is_void(&self, holder: &Holder, issued_ms: u64) -> bool {
        issued_ms <= self.floor || self.until.get(holder).is_some_and(|until| issued_ms <= *until)
    }

    /// Whether somebody has left, and not long ago. They may be back.
    pub fn has_left(&self, holder: &Holder) -> bool {
        self.until.contains_key(holder)
    }

    /// Nothing issued to this holder until then is good any more.
    pub fn void(&mut self, holder: Holder, until_ms: u64) {
        // A clock that was set back makes nothing good again.
        let until = self.until.get(&holder).map_or(until_ms, |known| until_ms.max(*known));
        if let Some(known) = self.until.insert(holder.clone(), until) {
            self.by_time.remove(&(known, holder.clone()));
        }
        self.by_time.insert((until, holder));
        let old = Self::old(until_ms);
        while let Some((at, _)) = self.by_time.first() {
            let is_old = *at < old;
            if !is_old && self.by_time.len() <= MAX_VOIDS {
                break;
            }
            if let Some((at, holder)) = self.by_time.pop_first() {
                self.until.remove(&holder);
                if !is_old {
                    self.floor = self.floor.max(at);
                }
            }
        }
    }

    /// What left before then left too long ago to matter.
    pub fn old(now_ms: u64) -> u64 {
        now_ms.saturating_sub(REMEMBERED.as_millis() as u64)
    }

    /// What the file holds, but for what is too old to matter.
    pub fn load(file: &Transaction<'_>, now_ms: u64) -> rusqlite::Result<Self> {
        let mut voids = Self::default();
        let old = Self::old(now_ms);
        file.execute("DELETE FROM rooms_void WHERE until_ms < ?1", [as_row(old)])?;
        let mut query =
            file.prepare("SELECT room_id, user_id, until_ms FROM rooms_void ORDER BY until_ms")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (room_id, user, until): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if let Some(user) = UserId::parse(&user) {
                voids.void(Holder { room_id, user }, until.max(0) as u64);
            }
        }
        let floor: i64 =
            file.query_row("SELECT coalesce(max(until_ms), 0) FROM rooms_floor", [], |row| row.get(0))?;
        voids.floor = voids.floor.max(floor.max(0) as u64);
        Ok(voids)
    }

    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// What [`Self::void`] changed, into the file; what left before `old` goes out of it.
    pub fn keep(
        file: &Transaction<'_>,
        voided: &[(Holder, u64)],
        old: u64,
        floor: u64,
    ) -> rusqlite::Result<()> {
        let mut insert = file.prepare_cached(
            "INSERT INTO rooms_void VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET until_ms = max(until_ms, ?3)",
        )?;
        for (Holder { room_id, user }, until) in voided {
            insert.execute(params![room_id, user.as_str(), as_row(*until)])?;
        }
        file.execute("DELETE FROM rooms_void WHERE until_ms < ?1", [as_row(old.max(floor))])?;
        file.execute(
            "INSERT INTO rooms_floor VALUES (1, ?1) ON CONFLICT DO UPDATE SET until_ms = ?1",
            [as_row(floor)],
        )?;
        Ok(())
    }
}

/// SQLite's integers have a sign.
fn as_row(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_790_000_000_000;

    fn holder(name: &str) -> Holder {
        let user = UserId::parse(&format!("@{name}:lab.example")).unwrap();
        Holder { room_id: "!r".to_owned(), user }
    }

    #[test]
    fn tokens_are_void_that_were_issued_until_then_and_no_others() {
        let mut voids = Voids::default();
        voids.void(holder("dana"), NOON);
        assert!(voids.is_void(&holder("dana"), NOON) && voids.is_void(&holder("dana"), 0));
        assert!(!voids.is_void(&holder("dana"), NOON + 1) && !voids.is_void(&holder("eve"), NOON));
        voids.void(holder("dana"), NOON + 5);
        assert!(voids.is_void(&holder("dana"), NOON + 5) && !voids.is_void(&holder("dana"), NOON + 6));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_token_good_again() {
        let mut file = rusqlite::Connection::open_in_memory().unwrap();
        file.execute_batch(TABLES.steps[0]).unwrap();
        let file = file.transaction().unwrap();
        let mut voids = Voids::default();
        for now in [NOON, NOON - 60_000] {
            voids.void(holder("dana"), now);
            Voids::keep(&file, &[(holder("dana"), now)], 0, 0).unwrap();
        }
        assert!(voids.is_void(&holder("dana"), NOON) && voids.by_time.len() == 1);
        assert!(Voids::load(&file, NOON).unwrap().is_void(&holder("dana"), NOON));
    }

    #[test]
    fn it_is_forgotten_when_no_such_token_can_be_good_any_more() {
        let mut voids = Voids::default();
        voids.void(holder("dana"), NOON);
        let age = REMEMBERED.as_millis() as u64;
        voids.void(holder("eve"), NOON + age);
        assert!(voids.is_void(&holder("dana"), NOON));
        voids.void(holder("eve"), NOON + age + 1);
        assert!(!voids.is_void(&holder("dana"), NOON) && voids.floor == 0);
        assert_eq!((voids.until.len(), voids.by_time.len()), (1, 1));
    }

    #[test]
    fn a_crowd_that_comes_and_goes_reopens_no_door() {
        let mut voids = Voids::default();
        voids.void(holder("dana"), NOON);
        for at in 0..MAX_VOIDS as u64 {
            voids.void(holder(&format!("u{at}")), NOON + 1);
        }
        assert_eq!(voids.until.len(), MAX_VOIDS);
        assert!(voids.is_void(&holder("dana"), NOON));
        assert!(!voids.is_void(&holder("dana"), NOON + 1), "but a new token is good");
    }

    #[test]
    fn what_was_kept_is_void_after_a_restart() {
        let mut file = rusqlite::Connection::open_in_memory().unwrap();
        file.execute_batch(TABLES.steps[0]).unwrap();
        let transaction = file.transaction().unwrap();
        Voids::keep(&transaction, &[(holder("dana"), NOON), (holder("eve"), NOON)], 0, 7).unwrap();
        Voids::keep(&transaction, &[(holder("dana"), NOON + 9)], 0, 8).unwrap();
        let voids = Voids::load(&transaction, NOON + 10).unwrap();
        assert!(voids.is_void(&holder("dana"), NOON + 9) && !voids.is_void(&holder("eve"), NOON + 1));
        assert!(voids.is_void(&holder("finn"), 8) && !voids.is_void(&holder("finn"), 9));
        let later = NOON + 10 + REMEMBERED.as_millis() as u64;
        assert!(Voids::load(&transaction, later).unwrap().until.is_empty());
    }
}
