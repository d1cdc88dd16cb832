//! The files of the spool: appended to, closed at a size, removed oldest first.

use nix::sys::statvfs::statvfs;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How a segment begins.
pub const MAGIC: &[u8] = b"TEMPSSP1";

/// What is left on a full disk is for routes, certificates and the instances that must be started
/// again: more than deployd gives up of its own room then.
const LEAVE: u64 = 24 << 20;

/// Numbers that are tried for a new segment: at a restart two processes write, and each takes a few.
const TRIES: u64 = 8;

/// The segments of one directory. Nothing is touched before the first append.
#[derive(Debug)]
pub struct Ring {
    directory: PathBuf,
    /// All segments together.
    limit: u64,
    /// One segment.
    segment: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    number: u64,
    size: u64,
}

impl Ring {
    /// A ring of at most `limit` bytes in segments of `segment`.
    pub fn new(directory: PathBuf, limit: u64, segment: u64) -> Self {
        let segment = segment.min((limit / 2).max(1));
        Self {
            directory,
            limit,
            segment,
            open: None,
        }
    }

    /// Appends whole records in one write, so that no other record can come between.
    pub fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if nearly_full(&self.directory) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self
            .open
            .as_ref()
            .is_none_or(|open| open.size >= self.segment)
        {
            self.rotate()?;
        }
        let Some(open) = self.open.as_mut() else {
            return Ok(());
        };
        if let Err(error) = open.file.write_all(records) {
            // It may end in half a record: readers stop there, so the rest goes elsewhere.
            self.open = None;
            return Err(error);
        }
        open.size += records.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let mut segments = segments(&self.directory)?;
        let newest = segments.last().map_or(0, |(number, _)| *number);
        let newest = newest.max(self.open.as_ref().map_or(0, |open| open.number));
        let mut total: u64 = segments.iter().map(|(_, size)| size).sum();
        segments.reverse();
        while total + self.segment > self.limit {
            let Some((oldest, size)) = segments.pop() else {
                break;
            };
            match fs::remove_file(path(&self.directory, oldest)) {
                // The other process was faster.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= size,
            }
        }
        let (mut file, number) = self.create_above(newest)?;
        file.write_all(MAGIC)?;
        self.open = Some(Open {
            file,
            number,
            size: MAGIC.len() as u64,
        });
        Ok(())
    }
}

impl Ring {
    /// A new segment, with the next number that no other process has taken meanwhile.
    fn create_above(&self, newest: u64) -> io::Result<(File, u64)> {
        for number in newest + 1..=newest + TRIES {
            let created = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path(&self.directory, number));
            match created {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(file) => {
                    file.try_lock().map_err(io::Error::from)?;
                    return Ok((file, number));
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// Whether the rest of the disk is needed more elsewhere.
fn nearly_full(directory: &Path) -> bool {
    // Before the first append the directory is not there, and the write tells.
    statvfs(directory).is_ok_and(|found| {
        #[allow(
            clippy::useless_conversion,
            reason = "the fields are 32 bits wide on some targets"
        )]
        let (blocks, unit) = (
            u64::from(found.blocks_available()),
            u64::from(found.fragment_size()),
        );
        blocks.saturating_mul(unit) < LEAVE
    })
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.seg"))
}

/// Numbers and sizes of the segments there are, oldest first.
fn segments(directory: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".seg")?.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_segments_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = Ring::new(dir.path().to_owned(), 1000, 100);
        for _ in 0..100 {
            ring.append(&[1; 50]).unwrap();
        }
        let found = segments(dir.path()).unwrap();
        let total: u64 = found.iter().map(|(_, size)| size).sum();
        assert!(total <= 1100, "{total}");
        assert!(found.len() > 3 && found[0].0 > 1, "{found:?}");
    }

    #[test]
    fn two_processes_write_beside_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut rings = [0, 1].map(|_| Ring::new(dir.path().to_owned(), 1000, 100));
        for step in 0..200 {
            rings[step % 2].append(&[1; 50]).unwrap();
        }
        let found = segments(dir.path()).unwrap();
        assert!(found.iter().map(|(_, size)| size).sum::<u64>() <= 1200);
        // What is being written is known by its lock, whatever its number.
        let free = found.iter().filter(|(number, _)| {
            let segment = File::open(path(dir.path(), *number)).unwrap();
            segment.try_lock().is_ok()
        });
        assert_eq!(free.count(), found.len() - 2);
    }

    #[test]
    fn a_new_process_begins_a_new_segment() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            Ring::new(dir.path().to_owned(), 1 << 20, 1 << 16)
                .append(b"x")
                .unwrap();
        }
        let numbers: Vec<u64> = segments(dir.path())
            .unwrap()
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        assert_eq!(numbers, [1, 2, 3]);
    }
}
