//! What is left on a file system: bytes, and files and directories (inodes), of which many file systems
//! have so many from their making on. Either ends alone, and then nothing can be written.

use nix::sys::statvfs::statvfs;
use std::path::Path;

/// The part of all files that builds and uploads leave, and the most that they leave: a build may make
/// some tens of thousands before somebody looks again.
const LEFT_PART: u64 = 20;
const LEFT_MOST: u64 = 100_000;

/// What is left, and what there is in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes free to this user.
    pub bytes: u64,
    /// Bytes in all.
    pub all_bytes: u64,
    /// Files and directories that this user can make; nothing where they are not counted.
    pub files: Option<Files>,
}

/// Of files and directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    /// So many can be made.
    pub free: u64,
    /// So many can there be.
    pub all: u64,
}

impl Room {
    /// On the file system of something that exists.
    pub fn of(existing: &Path) -> Option<Self> {
        let found = statvfs(existing).ok()?;
        #[allow(
            clippy::useless_conversion,
            reason = "the fields are 32 bits wide on some targets"
        )]
        let (unit, free, all) = (
            u64::from(found.fragment_size()),
            u64::from(found.blocks_available()),
            u64::from(found.blocks()),
        );
        #[allow(
            clippy::useless_conversion,
            reason = "the fields are 32 bits wide on some targets"
        )]
        let files = Files {
            free: u64::from(found.files_available()),
            all: u64::from(found.files()),
        };
        Some(Self {
            bytes: free.saturating_mul(unit),
            all_bytes: all.saturating_mul(unit),
            // Btrfs and others make them as they are needed.
            files: (files.all > 0).then_some(files),
        })
    }

    /// How many files can still be made, if those are too few for a build or an upload, and how many
    /// there should be.
    pub fn few_files(&self) -> Option<(u64, u64)> {
        let Files { free, all } = self.files?;
        let wanted = (all / LEFT_PART).min(LEFT_MOST);
        (free < wanted).then_some((free, wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(free: u64, all: u64) -> Room {
        Room {
            bytes: 1 << 40,
            all_bytes: 1 << 40,
            files: (all > 0).then_some(Files { free, all }),
        }
    }

    #[test]
    fn files_end_alone_where_they_are_counted() {
        assert_eq!(room(0, 0).few_files(), None);
        assert_eq!(room(60_000, 1_000_000).few_files(), None);
        assert_eq!(room(49_999, 1_000_000).few_files(), Some((49_999, 50_000)));
        assert_eq!(room(100_000, 60_000_000).few_files(), None);
        assert_eq!(
            room(99_999, 60_000_000).few_files(),
            Some((99_999, 100_000))
        );
        assert_eq!(room(1, 10).few_files(), None);
    }

    #[test]
    fn what_is_left_is_no_more_than_there_is() {
        let room = Room::of(&std::env::temp_dir()).unwrap();
        assert!(room.bytes <= room.all_bytes && room.all_bytes > 0);
        assert!(room.files.is_none_or(|files| files.free <= files.all));
        assert_eq!(Room::of(Path::new("/nowhere")), None);
    }
}
