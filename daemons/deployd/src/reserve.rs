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

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tracing::{debug, warn};

/// Size for whatever must be written: some thousand pages of the database with its log, and the
/// routes of every app.
pub const GENERAL: i64 = 16 << 20;

/// Size for the removal of an app.
pub const REMOVAL: i64 = 8 << 20;

/// Below this, a write may fail half-way.
const LOW: u64 = 4 << 20;

/// The reserve is kept only where it is not missed.
const PLENTY: u64 = 256 << 20;

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
        if free(&self.path).is_none_or(|free| free >= LOW) {
            return;
        }
        match std::fs::remove_file(&self.path) {
            Ok(()) => warn!("the disk is full: the room kept for this is given up"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(%error, "the room kept for a full disk cannot be given up"),
        }
    }

    /// Takes the room again if there is plenty.
    pub fn keep(&self) {
        if self.path.exists() || free(&self.path).is_none_or(|free| free < PLENTY) {
            return;
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

/// The bytes free to this user on the file system that holds `path`'s directory.
pub fn free(path: &Path) -> Option<u64> {
    let found = statvfs(path.parent()?).ok()?;
    #[allow(
        clippy::useless_conversion,
        reason = "the fields are 32 bits wide on some targets"
    )]
    let (blocks, unit) = (
        u64::from(found.blocks_available()),
        u64::from(found.fragment_size()),
    );
    Some(blocks.saturating_mul(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
