//! Room kept for a full disk: a file that is given up when almost nothing else is left, so that what
//! must still be written can be: an instance that is started again, an app that is destroyed.
//!
//! ```text
//! kept ──(less than LOW free, something is to be written)──> given up
//!   ^                                                           │
//!   └────────────(more than PLENTY free again)──────────────────┘
//! ```
//! There are two: one for whatever must be written, and a smaller one that only the removal of an app
//! may use, since that is the way out of a full disk. Uploads and builds are refused long before (256 MiB), and the proxy stops recording access events
//! at 24 MiB, so that neither eats what is given up.

use crate::room::Room;
use nix::fcntl::posix_fallocate;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::{debug, warn};

/// Size for whatever must be written: some thousand pages of the database with its log, and the
/// routes of every app.
pub const GENERAL: i64 = 16 << 20;

/// Size for the removal of an app.
pub const REMOVAL: i64 = 8 << 20;

/// Below this, a write may fail half-way.
const LOW: u64 = 4 << 20;

/// The same in files and directories, of which a file that is given up leaves one: the database's own
/// are there already, and an instance has a handful.
const FEW: u64 = 16;

/// The reserve is kept only where it is not missed.
const PLENTY: u64 = 256 << 20;

/// A file of the right length whose blocks are not there is not made anew for so long: where the file
/// system keeps nothing for zeros (one that compresses), that would help nobody.
const MADE_ANEW: Duration = Duration::from_secs(15 * 60);

/// Size of the blocks in which room is counted (stat(2), `st_blocks`).
const BLOCK: u64 = 512;

/// The reserve of one state directory.
#[derive(Debug, Clone)]
pub struct Reserve {
    path: PathBuf,
    size: i64,
}

impl Reserve {
    /// The reserve is the file at `path`, of `size` bytes, there or not.
    pub fn new(path: PathBuf, size: i64) -> Self {
        Self { path, size }
    }

    /// Gives the room up if the disk is full. Call it before writing what must be written.
    pub fn spend_if_full(&self) {
        if room(&self.path).is_none_or(|room| !is_low(&room)) {
            return;
        }
        match std::fs::remove_file(&self.path) {
            Ok(()) => warn!("the disk is full: the room kept for this is given up"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(%error, "the room kept for a full disk cannot be given up"),
        }
    }

    /// Whether all of the room is really taken: a file that is empty, cut short or a hole keeps none.
    pub fn is_kept(&self) -> bool {
        let found = self.path.symlink_metadata();
        found.is_ok_and(|file| file.is_file() && self.holds(file.blocks().saturating_mul(BLOCK)))
    }

    fn holds(&self, bytes: u64) -> bool {
        u64::try_from(self.size).is_ok_and(|size| bytes >= size)
    }

    fn was_just_made(&self) -> bool {
        let age = |file: &Metadata| file.modified().ok()?.elapsed().ok();
        let found = self.path.symlink_metadata();
        found.is_ok_and(|file| {
            self.holds(file.len()) && age(&file).is_some_and(|age| age < MADE_ANEW)
        })
    }

    /// Takes the room again if there is plenty.
    pub fn keep(&self) {
        if self.is_kept()
            || self.was_just_made()
            || room(&self.path).is_none_or(|room| !is_plenty(&room))
        {
            return;
        }
        match std::fs::remove_file(&self.path) {
            Ok(()) => warn!("the room kept for a full disk was not all there: it is taken again"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                debug!(%error, "what is in the place of the room kept for a full disk stays");
                return;
            }
        }
        if let Err(error) = self.allocate() {
            debug!(%error, "no room is kept for a full disk");
            // A part of it would look like all of it.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn allocate(&self) -> io::Result<()> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)?;
        posix_fallocate(file.as_fd(), 0, self.size)?;
        Ok(())
    }
}

/// What is left on the file system that holds `path`'s directory.
fn room(path: &Path) -> Option<Room> {
    Room::of(path.parent()?)
}

/// Whether a write may fail half-way.
fn is_low(room: &Room) -> bool {
    room.bytes < LOW || room.files.is_some_and(|files| files.free < FEW)
}

/// Whether what is kept is not missed.
fn is_plenty(room: &Room) -> bool {
    room.bytes >= PLENTY && room.few_files().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Files;

    #[test]
    fn it_is_kept_where_there_is_plenty_and_not_spent_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reserve");
        let reserve = Reserve::new(path.clone(), REMOVAL);
        reserve.keep();
        let size = i64::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
        assert_eq!(size, REMOVAL);
        reserve.spend_if_full();
        assert!(path.exists());
    }

    #[test]
    fn one_that_is_empty_short_or_a_hole_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reserve");
        let reserve = Reserve::new(path.clone(), REMOVAL);
        assert!(!reserve.is_kept(), "there is none");
        for (length, age) in [(0, 0), (4096, 0), (REMOVAL.unsigned_abs(), 3600)] {
            let file = File::create(&path).unwrap();
            file.set_len(length).unwrap();
            let made = std::time::SystemTime::now() - Duration::from_secs(age);
            file.set_modified(made).unwrap();
            assert!(!reserve.is_kept(), "{length}");
            reserve.keep();
            assert!(reserve.is_kept(), "{length}");
        }
    }

    #[test]
    fn a_file_system_that_keeps_nothing_for_zeros_is_not_asked_again_and_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reserve");
        let reserve = Reserve::new(path.clone(), REMOVAL);
        let hole = File::create(&path).unwrap();
        hole.set_len(REMOVAL.unsigned_abs()).unwrap();
        let made = hole.metadata().unwrap().ino();
        reserve.keep();
        assert!(!reserve.is_kept());
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), made);
    }

    #[test]
    fn a_disk_is_full_too_when_it_has_files_for_nobody() {
        let room = |free| Room {
            bytes: PLENTY,
            all_bytes: PLENTY,
            files: Some(Files { free, all: 100_000 }),
        };
        assert!(is_low(&room(FEW - 1)) && !is_plenty(&room(FEW - 1)));
        assert!(!is_low(&room(FEW)) && !is_plenty(&room(FEW)));
        assert!(is_plenty(&room(50_000)));
    }
}
