use std::os::unix::fs::PermissionsExt;

use super::*;

const FIRST: Tables = Tables { module: "door", steps: &["CREATE TABLE door_open (name TEXT) STRICT"] };
const SECOND: Tables = Tables {
    module: "door",
    steps: &[
        FIRST.steps[0],
        "ALTER TABLE door_open ADD COLUMN since INTEGER; UPDATE door_open SET since = 7",
    ],
};
const BROKEN: Tables = Tables { module: "wall", steps: &["CREATE TABLE wall_a (x)", "CREATE TABLE !"] };

async fn add(store: &Store, name: &'static str) -> Result<usize, StoreError> {
    store.run(move |store| store.execute("INSERT INTO door_open (name) VALUES (?1)", [name])).await
}

async fn names(store: &Store) -> Vec<String> {
    let read = |store: &rusqlite::Transaction<'_>| {
        store.prepare("SELECT name FROM door_open")?.query_map([], |row| row.get(0))?.collect()
    };
    store.run(read).await.unwrap()
}

/// The thread closes the file some time after the last handle went; the lock tells when.
fn reopen(directory: &Path, tables: &[&Tables]) -> Result<Store, StoreError> {
    for _ in 0..1_000_000 {
        match Store::open_with(directory, tables) {
            Err(StoreError::InUse { .. }) => std::thread::yield_now(),
            opened => return opened,
        }
    }
    panic!("the file was never closed");
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_with(directory.path(), &[&FIRST]).unwrap();
    add(&store, "front").await.unwrap();
    drop(store);
    let store = reopen(directory.path(), &[&FIRST]).unwrap();
    assert_eq!(names(&store).await, ["front"]);
}

#[tokio::test]
async fn a_newer_weir_brings_an_older_file_up_to_date_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_with(directory.path(), &[&FIRST]).unwrap();
    add(&store, "front").await.unwrap();
    drop(store);
    for _ in 0..2 {
        let store = reopen(directory.path(), &[&SECOND]).unwrap();
        let since = |store: &rusqlite::Transaction<'_>| {
            store.query_row("SELECT since FROM door_open", [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(store.run(since).await.unwrap(), 7);
    }
}

#[tokio::test]
async fn an_older_weir_refuses_a_newer_file() {
    let directory = tempfile::tempdir().unwrap();
    drop(Store::open_with(directory.path(), &[&SECOND]).unwrap());
    let error = reopen(directory.path(), &[&FIRST]).err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("newer weir"), "{error}");
}

#[tokio::test]
async fn a_step_that_fails_leaves_no_half_of_a_module() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open_with(directory.path(), &[&BROKEN]), Err(StoreError::Open { .. })));
    let store = reopen(directory.path(), &[]).unwrap();
    let count = |store: &rusqlite::Transaction<'_>| {
        store.query_row("SELECT count(*) FROM sqlite_master WHERE name LIKE 'wall%'", [], |row| {
            row.get::<_, i64>(0)
        })
    };
    assert_eq!(store.run(count).await.unwrap(), 0);
}

#[tokio::test]
async fn a_transaction_that_fails_changes_nothing() {
    let store = Store::open_with(tempfile::tempdir().unwrap().path(), &[&FIRST]).unwrap();
    let fail = |store: &rusqlite::Transaction<'_>| {
        store.execute("INSERT INTO door_open (name) VALUES ('half')", [])?;
        store.execute("INSERT INTO nothing VALUES (1)", [])
    };
    assert!(matches!(store.run(fail).await, Err(StoreError::Failed(_))));
    assert!(names(&store).await.is_empty());
}

#[tokio::test]
async fn only_one_weir_has_the_file_and_only_its_owner_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("deep/state");
    let store = Store::open_with(&state, &[&FIRST]).unwrap();
    let error = Store::open_with(&state, &[&FIRST]).err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
    drop(store);
}

#[tokio::test]
async fn what_is_not_a_database_is_named_by_its_path() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), "this is a letter, and not a database at all").unwrap();
    let error = Store::open_with(directory.path(), &[]).err().unwrap();
    assert!(matches!(error, StoreError::Open { .. }) && error.to_string().contains(FILE), "{error}");
    let error = Store::open_with(Path::new("/proc/nowhere"), &[]).err().unwrap();
    assert!(error.to_string().contains("/proc/nowhere"), "{error}");
}
