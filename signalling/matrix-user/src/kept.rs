//! What must survive a restart: the device, and how far its user was told.

use rusqlite::{OptionalExtension, Transaction, params};
use weir_matrix::names::UserId;
use weir_matrix::store::{Store, StoreError, Tables, rusqlite};

/// What is kept over restarts.
pub const TABLES: Tables = Tables {
    module: "user",
    steps: &["CREATE TABLE user_session (
        one INTEGER PRIMARY KEY CHECK (one = 1), user_id TEXT NOT NULL,
        device_id TEXT, access_token TEXT, position TEXT
    ) STRICT"],
};

/// Of one user. Another user's is none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Kept {
    pub device_id: Option<String>,
    /// That a password was given for; another one is the operator's to keep.
    pub access_token: Option<String>,
    /// Until where `/sync` told.
    pub position: Option<String>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("device_id", &self.device_id).finish_non_exhaustive() // the token stays secret
    }
}

impl Kept {
    pub async fn load(store: &Store, user: &UserId) -> Result<Self, StoreError> {
        let user = user.clone();
        let read = move |file: &Transaction<'_>| {
            let query = "SELECT device_id, access_token, position FROM user_session WHERE user_id = ?1";
            file.query_row(query, [user.as_str()], |row| {
                Ok(Self { device_id: row.get(0)?, access_token: row.get(1)?, position: row.get(2)? })
            })
            .optional()
        };
        Ok(store.run(read).await?.unwrap_or_default())
    }

    pub async fn keep(self, store: &Store, user: &UserId) -> Result<(), StoreError> {
        let user = user.clone();
        let write = move |file: &Transaction<'_>| {
            let keep = "INSERT OR REPLACE INTO user_session VALUES (1, ?1, ?2, ?3, ?4)";
            file.execute(keep, params![user.as_str(), self.device_id, self.access_token, self.position])
                .map(drop)
        };
        store.run(write).await
    }
}

/// How far the user was told, into the transaction that keeps what it was told.
pub fn keep_position(file: &Transaction<'_>, position: &str) -> rusqlite::Result<()> {
    file.execute("UPDATE user_session SET position = ?1", [position]).map(drop)
}
