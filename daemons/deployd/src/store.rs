//! The state directory's database: every app, release, deployment and instance, and what shall
//! happen next. SQLite in WAL mode with full synchronisation: what a transaction wrote is on disk
//! when it returns.
//!
//! Rules: deployd is its only user; a step of a deployment is written here before it is taken;
//! secrets are sealed before they come here ([`seal`]); a damaged file is replaced by its last good
//! copy ([`copy`]).

pub mod app;
pub mod audit;
pub mod copy;
pub mod deployment;
mod error;
pub mod instance;
pub mod release;
pub mod schema;
pub mod seal;

pub use error::{RowError, StoreError};

use crate::reserve::Reserve;
use rusqlite::{Connection, OpenFlags};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// The open database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    path: Arc<Path>,
    copied: Arc<Mutex<copy::Copied>>,
    reserve: Option<Reserve>,
    damage: CancellationToken,
}

impl Store {
    /// Opens (or makes) the database at `path` and brings it to this version's schema.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::is_damage`] tells a damaged file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let fail = |source| StoreError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        private(path);
        let mut connection = Connection::open_with_flags(path, flags).map_err(fail)?;
        schema::prepare(&mut connection).map_err(fail)?;
        let found = schema::migrate(&mut connection).map_err(fail)?;
        if found > schema::VERSION {
            return Err(StoreError::Newer {
                found,
                known: schema::VERSION,
            });
        }
        check(&connection, path)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            path: path.into(),
            copied: Arc::default(),
            reserve: None,
            damage: CancellationToken::new(),
        })
    }

    /// The same store, which gives up `reserve` when the disk is full and something is written.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> Self {
        Self {
            reserve: Some(reserve),
            ..self
        }
    }

    /// Waits until a call met damage in the file; at once if one has.
    pub async fn damaged(&self) {
        self.damage.cancelled().await;
    }

    /// Runs `work` in one transaction on a thread that may block; committed if it succeeds. On a full
    /// disk it may use the reserve: this is for what has to be written.
    ///
    /// # Errors
    /// What `work` says, or the commit.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Transaction<'_>) -> Result<T, RowError> + Send + 'static,
    {
        self.transact(self.reserve.clone(), work).await
    }

    /// As [`write`](Self::write), for a wish that can wait until there is room: a full disk refuses it.
    ///
    /// # Errors
    /// What `work` says, or the commit.
    pub async fn change<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Transaction<'_>) -> Result<T, RowError> + Send + 'static,
    {
        self.transact(None, work).await
    }

    async fn transact<T, F>(&self, reserve: Option<Reserve>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Transaction<'_>) -> Result<T, RowError> + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        let done = tokio::task::spawn_blocking(move || {
            if let Some(reserve) = reserve {
                reserve.spend_if_full();
            }
            // A panic in a closure rolled its transaction back, so the connection stays usable.
            let mut connection = connection
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            copy::count(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
        .await
        .map_err(|_| StoreError::Ended)?;
        done.map_err(|error| self.name(error))
    }

    /// Runs `work`, which only reads.
    ///
    /// # Errors
    /// What `work` says.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, RowError> + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        let done = tokio::task::spawn_blocking(move || {
            let connection = connection
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            work(&connection)
        })
        .await
        .map_err(|_| StoreError::Ended)?;
        done.map_err(|error| self.name(error))
    }

    fn name(&self, error: RowError) -> StoreError {
        let error = error.of(&self.path);
        if error.is_damage() {
            self.damage.cancel();
        }
        error
    }
}

/// Reads every page once: damage in the middle is otherwise met by whoever needs that page.
/// A database of a thousand releases is some MB.
fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| StoreError::Sqlite {
            path: path.to_owned(),
            source,
        })?;
    if found == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged {
        path: path.to_owned(),
        found: found.lines().collect::<Vec<_>>().join("; "),
    })
}

/// Makes a new database readable by this user only, whatever the umask; SQLite gives the files
/// beside it the same mode. What goes wrong here goes wrong again, and is told, when it is opened.
fn private(path: &Path) {
    let _ = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
}

/// Reads a text column that holds a parsed type.
pub(crate) fn parsed<T>(table: &'static str, text: &str) -> Result<T, RowError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| RowError::Unreadable {
        table,
        why: error.to_string(),
    })
}

/// Reads a text column that holds JSON.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    table: &'static str,
    text: &str,
) -> Result<T, RowError> {
    serde_json::from_str(text).map_err(|error| RowError::Unreadable {
        table,
        why: error.to_string(),
    })
}

/// Writes a value as JSON for a text column.
pub(crate) fn to_json<T: serde::Serialize>(
    table: &'static str,
    value: &T,
) -> Result<String, RowError> {
    serde_json::to_string(value).map_err(|error| RowError::Unreadable {
        table,
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use temps_ipc::{Code, Fault};

    #[test]
    fn a_file_that_is_no_database_is_refused_as_corrupt() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deployd.db");
        std::fs::write(&path, vec![b'x'; 8192]).unwrap();
        let error = Store::open(&path).err().unwrap();
        assert!(error.is_damage(), "{error}");
        assert_eq!(Fault::from(error).code, Code::Config);
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deployd.db");
        drop(Store::open(&path).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "user_version", schema::VERSION + 1)
            .unwrap();
        drop(connection);
        assert!(matches!(Store::open(&path), Err(StoreError::Newer { .. })));
    }

    #[tokio::test]
    async fn a_failed_transaction_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("deployd.db")).unwrap();
        let failed: Result<(), _> = store
            .write(|tx| {
                tx.execute("INSERT INTO meta(key, value) VALUES('a', '1')", [])?;
                Err(RowError::Missing("on purpose".into()))
            })
            .await;
        assert!(failed.is_err());
        let rows: i64 = store
            .read(|db| {
                Ok(
                    db.query_row("SELECT count(*) FROM meta WHERE key = 'a'", [], |row| {
                        row.get(0)
                    })?,
                )
            })
            .await
            .unwrap();
        assert_eq!(rows, 0);
    }
}
