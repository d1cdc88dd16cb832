//! Who may replace the stored routes, and who relies on them not being replaced.
//!
//! ```text
//! STATE/handover.lock     empty; what counts is who holds a lock on it (flock(2))
//! ```
//!
//! The helper of a restart ([`crate::handover`]) reads the routes once and serves them to its end, so
//! it holds the lock for as long as it lives. The main process holds it while it replaces them. So no
//! helper ever serves routes that were replaced, and the kernel gives the lock back when a process
//! dies, however it dies.

use super::{Store, StoreError};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The right to rely on the stored routes, or to replace them. Given back when it is dropped.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "it is held, not used")] File);

impl Store {
    fn lock(&self) -> PathBuf {
        self.directory.join("handover.lock")
    }

    /// Takes the turn to replace the routes; nothing if another process serves them.
    pub fn try_turn(&self) -> Result<Option<Turn>, StoreError> {
        let path = self.lock();
        let fail = |act: &'static str| {
            let path = path.clone();
            move |source| StoreError::Io { act, path, source }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail("open"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Turn(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(fail("lock")(error)),
        }
    }

    /// Waits for the turn to rely on the routes: at most for one replacement of them. Nothing is
    /// written, and nothing made: a state directory without the file has no routes to rely on.
    pub fn turn(&self) -> Result<Turn, StoreError> {
        let path = self.lock();
        let locked = || -> io::Result<Turn> {
            let file = File::open(&path)?;
            file.lock()?;
            Ok(Turn(file))
        };
        locked().map_err(|source| StoreError::Io {
            act: "lock",
            path: path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_the_turn_and_the_next_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let (main, helper) = (Store::new(dir.path()), Store::new(dir.path()));
        assert!(helper.turn().is_err(), "no main process was ever there");
        drop(main.try_turn().unwrap().expect("it is free"));
        let held = helper.turn().unwrap();
        assert!(main.try_turn().unwrap().is_none());
        drop(held);
        let replacing = main.try_turn().unwrap();
        assert!(replacing.is_some());
        let waiting = std::thread::spawn(move || helper.turn().map(drop));
        drop(replacing);
        waiting.join().unwrap().unwrap();
    }
}
