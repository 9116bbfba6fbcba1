//! What must survive a restart: one SQLite file in the state directory.
//!
//! Each module brings its own tables: it says them as [`Tables`], adds itself to [`TABLES`] or is named by whoever opens the
//! store for it, and reads and writes by [`Store::run`]. A thread of its own does the work, since SQLite waits for the disk and async threads may not. Every
//! closure is one transaction, in the order they came.

mod schema;
#[cfg(test)]
mod tests;
mod thread;

use std::path::{Path, PathBuf};

pub use rusqlite;
use rusqlite::Connection;
pub use schema::Tables;
use tokio::sync::{mpsc, oneshot};

/// Everybody's tables. The order does not matter: no module reads another's.
const TABLES: &[&Tables] = &[&crate::appservice::TABLES, &crate::leaves::TABLES, &crate::rooms::TABLES];

/// Transactions that may wait for the disk. Whoever comes then waits too, which slows down strangers' requests
/// instead of growing a queue.
const QUEUE: usize = 256;

/// The file's name in the state directory.
const FILE: &str = "matrix.sqlite";

/// A handle to the file's thread. Clones share it; the file is closed when the last is gone.
#[derive(Clone)]
pub struct Store {
    work: mpsc::Sender<thread::Work>,
}

/// Why there is no store, or no longer. The first kinds are an operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the state directory {} cannot be used: {source}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("{} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("{} is in use by another weir", path.display())]
    InUse { path: PathBuf },
    #[error(
        "{} was written by a newer weir: its {module} is of version {found}, and this one knows {known}",
        path.display()
    )]
    Newer { path: PathBuf, module: String, found: u32, known: u32 },
    #[error("the store's thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    #[error("the store is closed")]
    Closed,
    #[error("the store failed: {0}")]
    Failed(#[from] rusqlite::Error),
}

impl Store {
    /// Opens the file in `directory`, both made if they are not there, and brings its tables up to date, with those of
    /// others.
    ///
    /// Blocks: meant for the start, before anybody is served.
    pub fn open(directory: &Path, others: &[&Tables]) -> Result<Self, StoreError> {
        Self::open_with(directory, &[TABLES, others].concat())
    }

    fn open_with(directory: &Path, tables: &[&Tables]) -> Result<Self, StoreError> {
        let path = schema::prepare(directory, FILE)?;
        let mut connection = schema::connect(&path)?;
        schema::migrate(&path, &mut connection, tables)?;
        Self::start(connection)
    }

    /// One that forgets, for tests.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::in_memory_with(&[])
    }

    /// The same with others' tables.
    pub fn in_memory_with(others: &[&Tables]) -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        schema::migrate(Path::new(":memory:"), &mut connection, &[TABLES, others].concat())?;
        Self::start(connection)
    }

    fn start(connection: Connection) -> Result<Self, StoreError> {
        let (work, queue) = mpsc::channel(QUEUE);
        thread::start(connection, queue).map_err(StoreError::Thread)?;
        Ok(Self { work })
    }

    /// Runs one transaction, which is kept if the closure says `Ok`.
    pub async fn run<T, F>(&self, transaction: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work: thread::Work = Box::new(move |connection| {
            // Whoever asked may have gone meanwhile; what was asked holds all the same.
            let _ = answer.send(thread::transact(connection, transaction));
        });
        self.work.send(work).await.map_err(|_| StoreError::Closed)?;
        Ok(answered.await.map_err(|_| StoreError::Closed)??)
    }
}
