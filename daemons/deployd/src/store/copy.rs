//! The last good copy: a second file beside the database, replaced whole after changes, that takes
//! its place should it be found damaged at a start.
//!
//! ```text
//! deployd.db                       the database, and what was written last in deployd.db-wal
//! deployd.db.last-good             a checked copy, at most some seconds behind
//! deployd.db.damaged-TIMESTAMP     what was found damaged, kept for people
//! ```
//! Every transaction raises a number in the database. A database with a lower one than its copy has
//! lost what was written last, though every page of it may be whole: that is what is left when its
//! `-wal` is lost. A database of a newer version is not damaged, and never replaced.

use super::{Store, StoreError};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use temps_ipc::types::Timestamp;
use tracing::warn;

/// Damaged databases that are kept: damage that comes back shall not fill the disk.
const KEPT: usize = 3;

/// What happened to a damaged database.
#[derive(Debug)]
pub struct Restored {
    /// What was wrong with it.
    pub why: StoreError,
    /// Where it is kept; nowhere if nothing was left of it.
    pub damaged: Option<PathBuf>,
}

/// How the copy is.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// The number of the last transaction in it.
    number: Option<i64>,
    /// Why it is not made anew, if it should be.
    problem: Option<String>,
}

/// Opens the database at `path`; a damaged or missing one is set aside and replaced by its last good
/// copy, if there is one that is whole.
///
/// # Errors
/// As [`Store::open`]: then everything is where it was.
pub fn open_or_restore(path: &Path) -> Result<(Store, Option<Restored>), StoreError> {
    let copy = copy_of(path);
    let copied = number_in(&copy).ok().flatten();
    let opened = judge(path, copied).and_then(|()| Store::open(path));
    let why = match opened {
        Ok(store) => return Ok((store.with_copied(copied), None)),
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error),
    };
    if copied.is_none() || check(&copy).is_err() {
        return Err(why);
    }
    match replace(path, &copy) {
        Ok(damaged) => {
            let store = Store::open(path)?.with_copied(copied);
            Ok((store, Some(Restored { why, damaged })))
        }
        Err(error) => {
            warn!(%error, "the last good copy of the database cannot be put in its place");
            let _ = std::fs::remove_file(beside(path, RESTORING));
            Err(why)
        }
    }
}

/// Whether the database at `path` has everything that its copy has, whose last transaction is
/// `copied`. Writes nothing: what is made of a database without its tables is an empty one.
fn judge(path: &Path, copied: Option<i64>) -> Result<(), StoreError> {
    let Some(copied) = copied else {
        return Ok(());
    };
    let damaged = |found: String| StoreError::Damaged {
        path: path.to_owned(),
        found,
    };
    let is_gone = match std::fs::metadata(path) {
        Ok(found) => found.len() == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if is_gone {
        return Err(damaged("it is missing or empty".to_owned()));
    }
    let number = number_in(path)?.unwrap_or(0);
    if number < copied {
        return Err(damaged(format!(
            "what was written last is missing (it has {number} changes, its copy {copied})"
        )));
    }
    Ok(())
}

/// Raises the number of the last transaction, as a part of it.
pub(super) fn count(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO meta(key, value) VALUES('changes', '1')
             ON CONFLICT(key) DO UPDATE SET value = CAST(value AS INTEGER) + 1",
        )?
        .execute([])
        .map(drop)
}

/// The number of the last transaction; none in a file without our tables.
fn number(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let tables: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE name = 'meta'",
        [],
        |row| row.get(0),
    )?;
    if tables == 0 {
        return Ok(None);
    }
    let number = connection
        .query_row(
            "SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'changes'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    Ok(Some(number.unwrap_or(0)))
}

/// The same of the file at `path`, which is left as it is.
fn number_in(path: &Path) -> Result<Option<i64>, StoreError> {
    let fail = |source| StoreError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fail)?;
    // What is in a -wal that it cannot read would be removed otherwise, and people may want it.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(fail)?;
    number(&connection).map_err(fail)
}

/// The damaged databases that are kept beside the one at `path`.
pub fn damaged(path: &Path) -> Vec<PathBuf> {
    let Some((parent, name)) = path.parent().zip(path.file_name()) else {
        return Vec::new();
    };
    let mut start = name.to_owned();
    start.push(".damaged-");
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            name.starts_with(start.as_encoded_bytes())
                && !name.ends_with(b"-wal")
                && !name.ends_with(b"-shm")
        })
        .collect();
    found.sort();
    found
}

impl Store {
    fn with_copied(self, number: Option<i64>) -> Self {
        let copied = Copied {
            number,
            problem: None,
        };
        Self {
            copied: Arc::new(Mutex::new(copied)),
            ..self
        }
    }

    /// Why the last good copy is older than the database, if it is and should not be.
    pub fn copy_problem(&self) -> Option<String> {
        let copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        copied.problem.clone()
    }

    /// Replaces the last good copy, if anything was written since; whether it did.
    ///
    /// # Errors
    /// When there is no room for it, or the database is damaged: then the copy is as it was.
    pub async fn save_copy(&self) -> Result<bool, StoreError> {
        let (connection, copied) = (Arc::clone(&self.connection), Arc::clone(&self.copied));
        let path = self.path.to_path_buf();
        let saved = tokio::task::spawn_blocking(move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let mut copied = copied.lock().unwrap_or_else(PoisonError::into_inner);
            let saved = save(&connection, &path, copied.number);
            copied.problem = saved.as_ref().err().map(ToString::to_string);
            if let Ok(Some(number)) = saved {
                copied.number = Some(number);
            }
            saved.map(|number| number.is_some())
        })
        .await
        .map_err(|_| StoreError::Ended)?;
        if saved.as_ref().is_err_and(StoreError::is_damage) {
            self.damage.cancel();
        }
        saved
    }
}

/// Makes the copy anew unless its last transaction, `copied`, is the database's; the one it has now.
fn save(
    connection: &Connection,
    path: &Path,
    copied: Option<i64>,
) -> Result<Option<i64>, StoreError> {
    let number = number(connection)
        .map_err(|source| StoreError::Sqlite {
            path: path.to_owned(),
            source,
        })?
        .unwrap_or(0);
    if copied == Some(number) {
        return Ok(None);
    }
    if copied > Some(number) {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            found: "what was written last is missing".to_owned(),
        });
    }
    write_copy(connection, path)?;
    Ok(Some(number))
}

fn write_copy(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let fresh = beside(path, ".last-good.new");
    let sqlite = |source| StoreError::Sqlite {
        path: fresh.clone(),
        source,
    };
    let io = |source| StoreError::Io {
        path: fresh.clone(),
        source,
    };
    gone(std::fs::remove_file(&fresh)).map_err(io)?;
    // VACUUM INTO takes an empty file as a new one, and keeps its mode.
    super::private(&fresh);
    let name = fresh.to_str().ok_or_else(|| {
        io(io::Error::new(
            io::ErrorKind::InvalidInput,
            "its path is not UTF-8",
        ))
    })?;
    let copied = connection
        .execute("VACUUM INTO ?1", [name])
        .map_err(sqlite)
        .and_then(|_| {
            File::open(&fresh)
                .and_then(|file| file.sync_all())
                .map_err(io)
        })
        .and_then(|()| std::fs::rename(&fresh, copy_of(path)).map_err(io))
        .and_then(|()| sync_parent(path).map_err(io));
    if copied.is_err() {
        // Half a copy is worth nothing, and its room may be what is missing.
        let _ = std::fs::remove_file(&fresh);
    }
    copied
}

/// Ends the name of a copy that is being put in place.
const RESTORING: &str = ".restoring";

/// Sets the database aside and puts a copy of the copy in its place; where what was there is kept.
///
/// The `-wal` goes before the database does, since it would be applied to the copy; a crash in between
/// leaves a database that lacks what was written last, which the next start finds.
fn replace(path: &Path, copy: &Path) -> io::Result<Option<PathBuf>> {
    let fresh = beside(path, RESTORING);
    gone(std::fs::remove_file(&fresh))?;
    super::private(&fresh);
    std::fs::copy(copy, &fresh)?;
    File::open(&fresh)?.sync_all()?;
    let damaged = beside(path, &format!(".damaged-{}", Timestamp::now().0));
    let is_kept = match std::fs::hard_link(path, &damaged) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        done => done.map(|()| true)?,
    };
    for suffix in ["-wal", "-shm"] {
        gone(std::fs::rename(
            beside(path, suffix),
            beside(&damaged, suffix),
        ))?;
    }
    std::fs::rename(&fresh, path)?;
    sync_parent(path)?;
    forget_oldest(path);
    Ok(is_kept.then_some(damaged))
}

fn forget_oldest(path: &Path) {
    let kept = self::damaged(path);
    for old in kept.iter().rev().skip(KEPT) {
        for suffix in ["", "-wal", "-shm"] {
            // What cannot be removed is only kept longer.
            let _ = std::fs::remove_file(beside(old, suffix));
        }
    }
}

/// Whether the whole file can be read as a database.
fn check(path: &Path) -> Result<(), StoreError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|source| {
            StoreError::Sqlite {
                path: path.to_owned(),
                source,
            }
        })?;
    super::check(&connection, path)
}

/// Where the last good copy of the database at `path` is.
pub(crate) fn copy_of(path: &Path) -> PathBuf {
    beside(path, ".last-good")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
