//! A directory of the machine that a job is shown, by what it is.
//!
//! deployd has looked at it, and the service manager finds it again by its name: whoever owns a
//! directory on the way could have put another in its place meanwhile, which only the manager may read.
//! So the job looks at what it was given before it reads any of it.

use serde::{Deserialize, Serialize};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::adapter::build) struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    /// That was found at the path.
    pub(in crate::adapter::build) fn new(path: PathBuf, found: &Metadata) -> Self {
        Self {
            path,
            device: found.dev(),
            inode: found.ino(),
        }
    }

    /// Where it is.
    pub(in crate::adapter::build) fn shown(&self) -> impl std::fmt::Display {
        self.path.display()
    }

    /// Whether it is what is there now.
    pub(in crate::adapter::build) fn is_there(&self) -> bool {
        fs::metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }
}
