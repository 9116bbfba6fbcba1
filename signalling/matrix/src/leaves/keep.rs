//! Jobs over a restart: a table of them, and a ledger of what is not in it yet.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use rusqlite::{Row, Transaction, params};
use tokio::sync::{Notify, oneshot};

use super::{Authentication, Delegation, JobId};
use crate::store::{Store, StoreError, Tables};

pub const TABLES: Tables = Tables {
    module: "leaves",
    steps: &["CREATE TABLE leaves_jobs (
        id INTEGER PRIMARY KEY,
        user TEXT NOT NULL,
        conference TEXT NOT NULL,
        identities TEXT NOT NULL, -- JSON, an array of strings
        delay_id TEXT NOT NULL,
        timeout_ms INTEGER NOT NULL,
        homeserver TEXT NOT NULL,
        is_leaving INTEGER NOT NULL
    ) STRICT"],
};

/// A job as it was kept.
pub(super) struct Kept {
    pub id: JobId,
    pub delegation: Delegation,
    pub is_leaving: bool,
}

/// What is to become of a job's row.
enum Change {
    Keep(Box<Delegation>, bool),
    Leaving,
    Forget,
}

/// What is not on the disk yet. One change for each job at most, so it is bounded as they are.
#[derive(Default)]
pub(super) struct Ledger {
    pending: Mutex<Pending>,
    changed: Notify,
}

#[derive(Default)]
struct Pending {
    changes: IndexMap<JobId, Change>,
    /// Those who want to know when everything up to now is kept.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Ledger {
    pub fn keep(&self, id: JobId, delegation: Box<Delegation>) {
        self.note(|changes| drop(changes.insert(id, Change::Keep(delegation, false))));
    }

    pub fn leaving(&self, id: JobId) {
        self.note(|changes| match changes.get_mut(&id) {
            Some(Change::Keep(_, is_leaving)) => *is_leaving = true,
            _ => drop(changes.insert(id, Change::Leaving)),
        });
    }

    pub fn forget(&self, id: JobId) {
        self.note(|changes| drop(changes.insert(id, Change::Forget)));
    }

    fn note(&self, change: impl FnOnce(&mut IndexMap<JobId, Change>)) {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner).changes);
        self.changed.notify_one();
    }

    /// Resolves when all that was noted before is on the disk.
    pub fn kept(&self) -> oneshot::Receiver<()> {
        let (told, kept) = oneshot::channel();
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).waiting.push(told);
        self.changed.notify_one();
        kept
    }

    fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Brings the table up to date, for ever. What comes while the disk is busy goes into one transaction.
pub(super) async fn write(ledger: Arc<Ledger>, store: Store) {
    loop {
        ledger.changed.notified().await;
        let Pending { changes, waiting } = ledger.take();
        if !changes.is_empty()
            && let Err(error) = store.run(move |transaction| apply(transaction, changes)).await
        {
            // The job goes on; only a restart would forget it.
            tracing::error!(%error, "delegated leaves cannot be kept over a restart");
        }
        for told in waiting {
            let _ = told.send(());
        }
    }
}

fn apply(transaction: &Transaction<'_>, changes: IndexMap<JobId, Change>) -> rusqlite::Result<()> {
    for (JobId(id), change) in changes {
        match change {
            Change::Keep(delegation, is_leaving) => keep(transaction, id, &delegation, is_leaving)?,
            Change::Leaving => {
                transaction
                    .prepare_cached("UPDATE leaves_jobs SET is_leaving = 1 WHERE id = ?1")?
                    .execute([id])?;
            }
            Change::Forget => {
                transaction.prepare_cached("DELETE FROM leaves_jobs WHERE id = ?1")?.execute([id])?;
            }
        }
    }
    Ok(())
}

fn keep(
    transaction: &Transaction<'_>,
    id: u64,
    delegation: &Delegation,
    is_leaving: bool,
) -> rusqlite::Result<()> {
    let insert = "INSERT OR REPLACE INTO leaves_jobs
        (id, user, conference, identities, delay_id, timeout_ms, homeserver, is_leaving)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let identities = serde_json::to_string(&delegation.identities).unwrap_or_default();
    transaction.prepare_cached(insert)?.execute(params![
        id,
        delegation.user,
        delegation.conference,
        identities,
        delegation.delay_id,
        u64::try_from(delegation.timeout.as_millis()).unwrap_or(u64::MAX),
        &*delegation.homeserver,
        is_leaving,
    ])?;
    Ok(())
}

/// All jobs that were kept.
pub(super) async fn load(store: &Store) -> Result<Vec<Kept>, StoreError> {
    let query = "SELECT id, user, conference, identities, delay_id, timeout_ms, homeserver, is_leaving
        FROM leaves_jobs ORDER BY id";
    store.run(|transaction| transaction.prepare(query)?.query_map([], read)?.collect()).await
}

fn read(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let identities: String = row.get(3)?;
    let homeserver: String = row.get(6)?;
    let delegation = Delegation {
        user: row.get(1)?,
        conference: row.get(2)?,
        identities: serde_json::from_str(&identities).unwrap_or_default(),
        delay_id: row.get(4)?,
        timeout: Duration::from_millis(row.get(5)?),
        homeserver: homeserver.into(),
        authentication: Authentication::Never, // whoever starts says so anew
    };
    Ok(Kept { id: JobId(row.get(0)?), delegation, is_leaving: row.get(7)? })
}

#[cfg(test)]
mod tests {
    use super::super::tests::world::{delegation, seconds};
    use super::*;

    async fn settle(ledger: &Ledger) {
        ledger.kept().await.unwrap();
    }

    #[tokio::test]
    async fn jobs_are_there_after_a_restart_as_they_were() {
        let store = Store::in_memory().unwrap();
        let ledger = Arc::new(Ledger::default());
        let writer = tokio::spawn(write(Arc::clone(&ledger), store.clone()));
        let of = |name: &str| Box::new(delegation(name, &format!("syd_{name}"), seconds(10.5)));
        for (id, name) in [(1, "stays"), (2, "leaves"), (3, "ends"), (5, "returns")] {
            ledger.keep(JobId(id), of(name));
        }
        settle(&ledger).await;
        ledger.leaving(JobId(2));
        ledger.forget(JobId(3));
        ledger.leaving(JobId(5));
        settle(&ledger).await;
        ledger.keep(JobId(5), of("returns")); // it came back
        ledger.keep(JobId(7), of("brief"));
        ledger.leaving(JobId(7)); // before it was written at all
        ledger.keep(JobId(8), of("briefer"));
        ledger.forget(JobId(8));
        settle(&ledger).await;
        writer.abort();
        let kept = load(&store).await.unwrap();
        let all: Vec<_> = kept.iter().map(|job| (job.id.0, job.is_leaving)).collect();
        assert_eq!(all, [(1, false), (2, true), (5, false), (7, true)]);
        assert_eq!(kept[0].delegation, *of("stays"));
    }
}
