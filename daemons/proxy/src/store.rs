//! The state directory's record of the routes, so that the proxy serves them again after a reboot
//! without asking anybody.
//!
//! ```text
//! snapshot              what is served         magic, version, SHA-256 of the rest, postcard
//! snapshot.previous     what was served before it
//! snapshot.corrupt-N    set aside, N seconds since 1970; for people
//! handover.lock         see [`turn`]
//! ```
//!
//! A snapshot is durable before it is published: written beside, fsynced, renamed, the directory
//! fsynced. `snapshot` is never missing once it was there.

pub mod turn;

use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use temps_ipc::types::Snapshot;

const MAGIC: &[u8; 8] = b"TEMPSNAP";

/// Raised when the postcard form of [`Snapshot`] changes.
const VERSION: u16 = 1;

const HEADER: usize = MAGIC.len() + 2 + 32;

/// A snapshot came in one frame of at most 1 MiB; anything much larger is no snapshot.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Why a snapshot could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {act} {path}: {source}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The snapshot cannot be put into bytes.
    #[error("the snapshot cannot be encoded: {0}")]
    Encode(postcard::Error),
}

impl StoreError {
    /// Whether room, not a defect, is what is missing.
    pub fn is_no_space(&self) -> bool {
        matches!(self, StoreError::Io { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        ))
    }
}

/// Why a stored snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is not a snapshot, or was cut short")]
    Form,
    #[error("it has version {0}, this build reads {VERSION}")]
    Version(u16),
    #[error("its checksum does not match")]
    Checksum,
    #[error("it cannot be decoded: {0}")]
    Decode(postcard::Error),
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The snapshot to serve, if there is one.
    pub snapshot: Option<Snapshot>,
    /// Files that cannot be used, with the reason, in words.
    pub set_aside: Vec<String>,
}

/// The files.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store in the state directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    fn current(&self) -> PathBuf {
        self.directory.join("snapshot")
    }

    fn previous(&self) -> PathBuf {
        self.directory.join("snapshot.previous")
    }

    /// The newest snapshot that is whole. Files that are not are renamed, never deleted.
    pub fn load(&self) -> Loaded {
        self.newest(|path, why| self.set_aside(path, why))
    }

    /// The newest snapshot that is whole. Nothing is written.
    pub fn peek(&self) -> Loaded {
        self.newest(|path, why| format!("{}: {why}", path.display()))
    }

    fn newest(&self, unusable: impl Fn(&Path, &Unusable) -> String) -> Loaded {
        let mut loaded = Loaded::default();
        for path in [self.current(), self.previous()] {
            match read(&path) {
                Ok(Some(snapshot)) => {
                    loaded.snapshot = Some(snapshot);
                    break;
                }
                Ok(None) => {}
                Err(why) => loaded.set_aside.push(unusable(&path, &why)),
            }
        }
        loaded
    }

    fn set_aside(&self, path: &Path, why: &Unusable) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut aside = self.directory.join(format!("snapshot.corrupt-{now}"));
        let mut count = 1;
        while aside.exists() && count < 100 {
            aside = self
                .directory
                .join(format!("snapshot.corrupt-{now}.{count}"));
            count += 1;
        }
        match fs::rename(path, &aside) {
            Ok(()) => format!("{}: {why}; kept as {}", path.display(), aside.display()),
            Err(error) => format!("{}: {why}; it cannot be renamed: {error}", path.display()),
        }
    }

    /// Makes `snapshot` the stored one. Blocks on the disk.
    pub fn save(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let payload = postcard::to_allocvec(snapshot).map_err(StoreError::Encode)?;
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&Sha256::digest(&payload));
        bytes.extend_from_slice(&payload);

        let fresh = self.directory.join("snapshot.new");
        let fail = |act: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { act, path, source }
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(fail("create", &fresh))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(fail("write", &fresh))?;
        // A second name for what is replaced: at no moment is there no `snapshot`.
        let (current, previous) = (self.current(), self.previous());
        remove(&previous).map_err(fail("remove", &previous))?;
        match fs::hard_link(&current, &previous) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fail("link", &previous)(error));
            }
            _ => {}
        }
        fs::rename(&fresh, &current).map_err(fail("replace", &current))?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(fail("sync", &self.directory))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The snapshot in `path`; nothing if there is no such file.
fn read(path: &Path) -> Result<Option<Snapshot>, Unusable> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_FILE).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or(Unusable::Form)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(Unusable::Form)?;
    let version = u16::from_le_bytes(*version);
    if version != VERSION {
        return Err(Unusable::Version(version));
    }
    let (checksum, payload) = rest.split_first_chunk::<32>().ok_or(Unusable::Form)?;
    if Sha256::digest(payload).as_slice() != checksum {
        return Err(Unusable::Checksum);
    }
    postcard::from_bytes(payload)
        .map(Some)
        .map_err(Unusable::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::snapshot::tests::{route, target};

    fn snapshot(generation: u64) -> Snapshot {
        Snapshot {
            generation,
            routes: vec![route("a.test", "/", "a", vec![target(1)])],
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        assert!(store.load().snapshot.is_none());
        for generation in 1..4 {
            let snapshot = snapshot(generation);
            store.save(&snapshot).unwrap();
            assert_eq!(store.load().snapshot, Some(snapshot));
        }
    }

    #[test]
    fn a_damaged_snapshot_is_set_aside_and_the_previous_one_served() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let first = snapshot(1);
        store.save(&first).unwrap();
        store.save(&snapshot(2)).unwrap();
        let mut bytes = fs::read(store.current()).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(store.current(), bytes).unwrap();
        let loaded = store.load();
        assert_eq!(loaded.snapshot, Some(first));
        assert_eq!(loaded.set_aside.len(), 1);
        assert!(
            loaded.set_aside[0].contains("checksum"),
            "{:?}",
            loaded.set_aside
        );
        assert!(!store.current().exists());
        let aside = fs::read_dir(dir.path()).unwrap().filter_map(Result::ok);
        assert!(
            aside
                .into_iter()
                .any(|e| e.file_name().to_string_lossy().contains("corrupt-"))
        );
    }

    #[test]
    fn no_cut_or_foreign_file_is_taken_for_a_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        store.save(&snapshot(1)).unwrap();
        let whole = fs::read(store.current()).unwrap();
        for length in 0..whole.len() {
            fs::write(store.current(), &whole[..length]).unwrap();
            assert!(read(&store.current()).is_err(), "{length} bytes");
        }
        let mut newer = whole.clone();
        newer[8] = 9;
        fs::write(store.current(), newer).unwrap();
        assert!(matches!(read(&store.current()), Err(Unusable::Version(9))));
    }
}
