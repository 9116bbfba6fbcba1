//! Opening the file, and bringing each module's tables to the version that this weir knows.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::StoreError;

/// A module's tables, as the steps that lead there.
///
/// A released step is never changed: what comes later is appended, and runs once on files that lack it. Tables begin
/// with the module's name, so that modules cannot meet.
#[derive(Debug)]
pub struct Tables {
    pub module: &'static str,
    /// SQL, perhaps several statements each. Their count is the version.
    pub steps: &'static [&'static str],
}

/// Makes the directory and an empty file that only its owner can read: delayed events' ids act for people.
pub(super) fn prepare(directory: &Path, file: &str) -> Result<PathBuf, StoreError> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

    let path = directory.join(file);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .and_then(|()| std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path))
        .map_err(|source| StoreError::Directory { path: directory.to_owned(), source })?;
    Ok(path)
}

pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::ZERO)?; // nobody else has it, or we do not want it
        // Two that write one file would each undo what the other remembers.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        // What was answered must hold after a power cut as well: a voided token must not come back.
        connection.pragma_update(None, "synchronous", "FULL")?;
        // The lock is taken by the first write only.
        connection.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
        Ok(connection)
    };
    open().map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::InUse { path: path.to_owned() }
        }
        _ => StoreError::Open { path: path.to_owned(), source: error },
    })
}

pub(super) fn migrate(
    path: &Path,
    connection: &mut Connection,
    tables: &[&Tables],
) -> Result<(), StoreError> {
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let schema =
        "CREATE TABLE IF NOT EXISTS schema (module TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT";
    connection.execute_batch(schema).map_err(failed)?;
    for tables in tables {
        let found = version(connection, tables.module).map_err(failed)?;
        let known = u32::try_from(tables.steps.len()).unwrap_or(u32::MAX);
        if found > known {
            let module = tables.module.to_owned();
            return Err(StoreError::Newer { path: path.to_owned(), module, found, known });
        }
        step(connection, tables, found as usize).map_err(failed)?;
    }
    Ok(())
}

fn version(connection: &Connection, module: &str) -> rusqlite::Result<u32> {
    let query = "SELECT version FROM schema WHERE module = ?1";
    Ok(connection.query_row(query, [module], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// All steps of a module or none: a weir that is killed here begins again at the old version.
fn step(connection: &mut Connection, tables: &Tables, from: usize) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for step in &tables.steps[from..] {
        transaction.execute_batch(step)?;
    }
    let keep = "INSERT INTO schema VALUES (?1, ?2) ON CONFLICT (module) DO UPDATE SET version = ?2";
    transaction.execute(keep, params![tables.module, tables.steps.len()])?;
    transaction.commit()
}
