//! What can go wrong with the database: inside a transaction, where a row is what counts, and outside,
//! where the file has a name.

use std::path::{Path, PathBuf};
use temps_ipc::{Code, Fault};

/// Why the store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's own error.
    #[error("the database {path} cannot be used: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// A file of it cannot be used.
    #[error("{path} cannot be used: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is a database, and broken.
    #[error("the database {path} is damaged: {found}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite's check says first.
        found: String,
    },
    /// Written by a newer version.
    #[error("the database has schema {found}, this version knows {known}")]
    Newer {
        /// What the file says.
        found: i64,
        /// What this build knows.
        known: i64,
    },
    /// A row that this version cannot read.
    #[error("a row of {table} cannot be read: {why}")]
    Row {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The thing named does not exist.
    #[error("{0}")]
    Missing(String),
    /// A thing of this name exists already.
    #[error("{0}")]
    Exists(String),
    /// Something else is under way that excludes this.
    #[error("{0}")]
    Busy(String),
    /// The thread that used the database is gone.
    #[error("the database thread ended")]
    Ended,
}

impl StoreError {
    /// Whether the file's bytes are damaged.
    pub fn is_damage(&self) -> bool {
        match self {
            StoreError::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            ),
            StoreError::Damaged { .. } => true,
            _ => false,
        }
    }

    /// Whether this version can do nothing with what is stored.
    fn is_unusable(&self) -> bool {
        self.is_damage() || matches!(self, StoreError::Newer { .. } | StoreError::Row { .. })
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let what = error.to_string();
        match &error {
            StoreError::Missing(_) => Fault::not_found(what).hint(
                "`temps app list`, `temps release list APP` and `temps domain list APP` show what there is",
            ),
            StoreError::Exists(_) => Fault::new(Code::Exists, what),
            StoreError::Busy(_) => Fault::new(Code::Busy, what).hint("try again when it has ended"),
            StoreError::Sqlite { source, .. }
                if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) =>
            {
                Fault::new(Code::NoSpace, "the disk is full: nothing was changed")
                    .hint("free some space, then try again; `temps doctor` shows what is left")
            }
            _ if error.is_unusable() => Fault::new(Code::Config, what)
                .hint("routes keep being served; restore the state directory from a backup"),
            _ => Fault::internal(what),
        }
    }
}

/// What can go wrong inside a transaction.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A row that this version cannot read.
    #[error("a row of {table} cannot be read: {why}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The thing named does not exist.
    #[error("{0}")]
    Missing(String),
    /// A thing of this name exists already.
    #[error("{0}")]
    Exists(String),
    /// Something else is under way that excludes this.
    #[error("{0}")]
    Busy(String),
}

impl RowError {
    /// The same, met in the database at `path`.
    pub(super) fn of(self, path: &Path) -> StoreError {
        match self {
            RowError::Sqlite(source) => StoreError::Sqlite {
                path: path.to_owned(),
                source,
            },
            RowError::Unreadable { table, why } => StoreError::Row { table, why },
            RowError::Missing(what) => StoreError::Missing(what),
            RowError::Exists(what) => StoreError::Exists(what),
            RowError::Busy(what) => StoreError::Busy(what),
        }
    }
}
