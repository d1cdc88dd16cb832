//! The last good copy: a second file beside the database, replaced whole after changes, that takes
//! its place should it be found damaged at a start.
//!
//! ```text
//! deployd.db                       the database
//! deployd.db.last-good             a checked copy, at most some seconds behind
//! deployd.db.damaged-TIMESTAMP     what was found damaged, kept for people
//! ```
//! A database of a newer version is not damaged, and never replaced.

use super::{Store, StoreError};
use rusqlite::{Connection, OpenFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use temps_ipc::types::Timestamp;

/// What happened to a damaged database.
#[derive(Debug)]
pub struct Restored {
    /// What was wrong with it.
    pub why: StoreError,
    /// Where it is kept.
    pub damaged: PathBuf,
}

/// Opens the database at `path`; a damaged or missing one is set aside and replaced by its last good copy, if
/// there is one that is whole.
///
/// # Errors
/// As [`Store::open`]: then everything is where it was.
pub fn open_or_restore(path: &Path) -> Result<(Store, Option<Restored>), StoreError> {
    let copy = copy_of(path);
    // SQLite takes either for a new database: every app would be forgotten.
    let lost = std::fs::metadata(path).map_or(true, |found| found.len() == 0) && copy.exists();
    let opened = if lost {
        Err(StoreError::Damaged {
            path: path.to_owned(),
            found: "it is missing or empty".to_owned(),
        })
    } else {
        Store::open(path)
    };
    let why = match opened {
        Ok(store) => return Ok((store, None)),
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error),
    };
    if !copy.exists() || check(&copy).is_err() {
        return Err(why);
    }
    let damaged = beside(path, &format!(".damaged-{}", Timestamp::now().0));
    let Ok(()) = replace(path, &copy, &damaged) else {
        return Err(why);
    };
    Ok((Store::open(path)?, Some(Restored { why, damaged })))
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
    /// Replaces the last good copy, if anything was written since; whether it did.
    ///
    /// # Errors
    /// When there is no room for it, or the database is damaged: then the copy is as it was.
    pub async fn save_copy(&self) -> Result<bool, StoreError> {
        let (connection, saved) = (self.connection.clone(), self.saved.clone());
        let path = self.path.to_path_buf();
        tokio::task::spawn_blocking(move || {
            let connection = connection
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut saved = saved
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let changes = connection.total_changes();
            if *saved == Some(changes) {
                return Ok(false);
            }
            write_copy(&connection, &path)?;
            *saved = Some(changes);
            Ok(true)
        })
        .await
        .map_err(|_| StoreError::Ended)?
    }
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

/// Sets the database aside and puts a copy of the copy in its place: complete before the old one
/// goes, so that a crash in between leaves one of both.
fn replace(path: &Path, copy: &Path, damaged: &Path) -> io::Result<()> {
    let fresh = beside(path, ".restoring");
    gone(std::fs::remove_file(&fresh))?;
    super::private(&fresh);
    std::fs::copy(copy, &fresh)?;
    File::open(&fresh)?.sync_all()?;
    gone(std::fs::hard_link(path, damaged))?;
    for suffix in ["-wal", "-shm"] {
        gone(std::fs::rename(
            beside(path, suffix),
            beside(damaged, suffix),
        ))?;
    }
    std::fs::rename(&fresh, path)?;
    sync_parent(path)
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

fn copy_of(path: &Path) -> PathBuf {
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    async fn put(store: &Store, key: &'static str) {
        store
            .write(move |tx| {
                tx.execute("INSERT INTO meta(key, value) VALUES(?1, '')", [key])?;
                Ok(())
            })
            .await
            .unwrap();
    }

    async fn keys(store: &Store) -> i64 {
        store
            .read(|db| Ok(db.query_row("SELECT count(*) FROM meta", [], |row| row.get(0))?))
            .await
            .unwrap()
    }

    /// A database with a saved copy, closed; its path and how many rows it has.
    async fn saved(directory: &Path) -> (PathBuf, i64) {
        let path = directory.join("deployd.db");
        let (store, restored) = open_or_restore(&path).unwrap();
        assert!(restored.is_none());
        put(&store, "a").await;
        assert!(store.save_copy().await.unwrap());
        assert!(!store.save_copy().await.unwrap(), "nothing was written");
        let rows = keys(&store).await;
        (path, rows)
    }

    #[tokio::test]
    async fn a_damaged_database_is_set_aside_and_its_copy_takes_its_place() {
        for bytes in [
            Some(&[0x5A; 8192][..]),
            Some(b""),
            Some(b"SQLite format 3\0cut short"),
            None,
        ] {
            let directory = tempfile::tempdir().unwrap();
            let (path, rows) = saved(directory.path()).await;
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).unwrap();
            } else {
                // A page in the middle, which opening alone does not read.
                let mut whole = std::fs::read(&path).unwrap();
                assert!(whole.len() > 16 * 4096, "{}", whole.len());
                whole[5 * 4096..9 * 4096].fill(0xA5);
                std::fs::write(&path, whole).unwrap();
            }
            let (store, restored) = open_or_restore(&path).unwrap();
            let restored = restored.unwrap();
            assert!(restored.why.is_damage());
            assert_eq!(damaged(&path), [restored.damaged]);
            assert_eq!(keys(&store).await, rows);
            put(&store, "b").await;
            drop(store);
            let (store, restored) = open_or_restore(&path).unwrap();
            assert!(restored.is_none());
            assert_eq!(keys(&store).await, rows + 1);
        }
    }

    #[tokio::test]
    async fn without_a_whole_copy_nothing_is_moved() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = saved(directory.path()).await;
        std::fs::write(&path, [0x5A; 8192]).unwrap();
        std::fs::write(copy_of(&path), [0x5A; 8192]).unwrap();
        assert!(open_or_restore(&path).err().unwrap().is_damage());
        assert!(damaged(&path).is_empty());
        assert_eq!(std::fs::read(&path).unwrap(), [0x5A; 8192]);
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = saved(directory.path()).await;
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", super::super::schema::VERSION + 1)
            .unwrap();
        let error = open_or_restore(&path).err().unwrap();
        assert!(matches!(error, StoreError::Newer { .. }), "{error}");
        assert!(damaged(&path).is_empty());
    }

    #[tokio::test]
    async fn a_database_that_is_gone_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let (path, rows) = saved(directory.path()).await;
        std::fs::remove_file(&path).unwrap();
        let (store, restored) = open_or_restore(&path).unwrap();
        assert!(restored.is_some());
        assert_eq!(keys(&store).await, rows);
    }

    #[tokio::test]
    async fn the_copy_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = saved(directory.path()).await;
        let mode = std::fs::metadata(copy_of(&path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
