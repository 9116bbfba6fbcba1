//! The thread that waits for the disk, so that nobody else does.

use rusqlite::{Connection, Transaction};
use tokio::sync::mpsc;

pub(super) type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// It ends when the last handle is gone, and with it the connection, which tidies the file up.
pub(super) fn start(mut connection: Connection, mut queue: mpsc::Receiver<Work>) -> std::io::Result<()> {
    let run = move || {
        while let Some(work) = queue.blocking_recv() {
            work(&mut connection);
        }
    };
    std::thread::Builder::new().name("store".to_owned()).spawn(run).map(drop)
}

pub(super) fn transact<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction()?;
    let value = work(&transaction)?; // dropped on an error, it is rolled back
    transaction.commit()?;
    Ok(value)
}
