//! Unpacks a tar archive that a stranger made.
//!
//! What holds when [`unpack`] returns `Ok`: everything that was written is below the directory, no
//! link leads out of it (unless [`Links::Anywhere`] was said), every entry is a regular file, a directory or a link, modes are 0755 or
//! 0644 (owner, set-id and sticky bits of the archive are ignored), and the limits were kept. The
//! archive is never trusted about what is already there: each path is walked component by
//! component from a descriptor of the directory, and no link is followed on the way.
//!
//! An entry that breaks a rule ends the whole, and its name is in the error. What was unpacked by
//! then is for the caller to remove.

mod header;
pub mod pack;
mod tree;

#[cfg(test)]
mod tests;

use header::{Kind, Member, Members};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use temps_ipc::{Code, Fault};
use tree::Tree;

/// What an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Entries, links and directories included, also those that have no entry and are made for others.
    pub entries: u64,
    /// Components of a path.
    pub depth: usize,
}

impl Default for Limits {
    /// Large enough for any source tree that is not mostly data: 4 GiB, 200,000 entries.
    fn default() -> Self {
        Self {
            bytes: 4 * 1024 * 1024 * 1024,
            entries: 200_000,
            // node_modules nests some 30 deep; this is for archives that mean harm.
            depth: 128,
        }
    }
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is no tar archive, or ends too early.
    #[error("the archive is broken: {0}")]
    Broken(String),
    /// It holds nothing.
    #[error("the archive is empty")]
    Empty,
    /// An entry that may not be there.
    #[error("the entry {name} {why}")]
    Entry {
        /// Its name, quoted.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Too much of something.
    #[error("the source holds more than {0}")]
    TooLarge(String),
    /// The disk is full.
    #[error("no space is left to unpack the archive")]
    NoSpace(#[source] io::Error),
    /// The caller went away.
    #[error("unpacking was cancelled")]
    Cancelled,
    /// The system failed.
    #[error("the archive cannot be unpacked: {0}")]
    Io(#[source] io::Error),
}

impl ArchiveError {
    fn entry(name: &[u8], why: impl Into<String>) -> Self {
        // Quoted, so that a name with line breaks or escapes cannot draw on a terminal.
        let shown = format!("{:?}", OsStr::from_bytes(&name[..name.len().min(300)]));
        Self::Entry {
            name: shown,
            why: why.into(),
        }
    }

    fn io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace(error),
            _ => Self::Io(error),
        }
    }
}

impl From<ArchiveError> for Fault {
    fn from(error: ArchiveError) -> Self {
        let what = error.to_string();
        match error {
            ArchiveError::Broken(_) => Fault::invalid(what)
                .hint("send a plain, uncompressed tar archive, as `temps deploy` makes it"),
            ArchiveError::Empty => {
                Fault::invalid(what).hint("deploy a directory that holds the app's files")
            }
            ArchiveError::Entry { .. } => Fault::invalid(what)
                .hint("remove it from the directory, or list it in .tempsignore"),
            ArchiveError::TooLarge(_) => Fault::new(Code::NoSpace, what)
                .hint("leave out what is not source (dependencies, build output, data)"),
            ArchiveError::NoSpace(_) => Fault::new(Code::NoSpace, what)
                .hint("free some space on the file system of the state directory"),
            ArchiveError::Cancelled | ArchiveError::Io(_) => Fault::internal(what),
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Where symbolic links may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Links {
    /// Nowhere but into the directory: the platform reads and serves what it finds there.
    Within,
    /// Anywhere, as a build makes them (a Python environment's `bin/python3`): nobody follows them but
    /// the app, with its own rights.
    Anywhere,
}

/// Unpacks `archive` into `directory`, which must exist and be empty. Blocks; looks at `cancelled`
/// now and then.
///
/// # Errors
/// See [`ArchiveError`]; some entries may have been unpacked then.
pub fn unpack(
    archive: impl Read,
    directory: &Path,
    limits: Limits,
    links: Links,
    cancelled: &AtomicBool,
) -> Result<Summary, ArchiveError> {
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(128 * 1024, archive));
    let tree = Tree::open(directory)?;
    let mut summary = Summary::default();
    let mut members = Members::new(&mut archive)?;
    let mut entries = 0_u64;
    while let Some(Member {
        name,
        kind,
        mode,
        size,
        mut content,
    }) = members.next()?
    {
        if cancelled.load(Ordering::Relaxed) {
            return Err(ArchiveError::Cancelled);
        }
        entries += 1;
        // One entry may take as many files and directories as its name has components.
        if entries + tree.made_on_the_way() > limits.entries {
            return Err(ArchiveError::TooLarge(format!(
                "{} entries",
                limits.entries
            )));
        }
        // Before a byte is written: what an entry says it holds counts.
        summary.bytes = summary.bytes.saturating_add(size);
        if summary.bytes > limits.bytes {
            return Err(ArchiveError::TooLarge(format!("{} bytes", limits.bytes)));
        }
        let path = tree::components(&name, limits.depth)?;
        match kind {
            Kind::File => {
                let mut to = tree.create_file(&name, &path, mode & 0o100 != 0)?;
                copy(&mut content, &mut to, size, cancelled)?;
                summary.files += 1;
            }
            Kind::Directory => tree.create_directory(&name, &path)?,
            Kind::Symlink(target) => tree.create_symlink(&name, &path, &target, links)?,
            Kind::HardLink(target) => {
                let target = tree::components(&target, limits.depth).map_err(|_| {
                    ArchiveError::entry(&name, "is a link to a place outside of the archive")
                })?;
                tree.create_hard_link(&name, &path, &target)?;
                summary.files += 1;
            }
        }
    }
    if entries == 0 {
        return Err(ArchiveError::Empty);
    }
    if links == Links::Within {
        tree.check_links()?;
    }
    Ok(summary)
}

/// Copies exactly `size` bytes.
fn copy(
    from: &mut impl Read,
    to: &mut File,
    size: u64,
    cancelled: &AtomicBool,
) -> Result<(), ArchiveError> {
    let mut left = size;
    while left > 0 {
        if cancelled.load(Ordering::Relaxed) {
            return Err(ArchiveError::Cancelled);
        }
        // Small enough to notice a cancellation soon.
        let piece = left.min(4 * 1024 * 1024);
        let copied = io::copy(&mut from.take(piece), to).map_err(ArchiveError::io)?;
        if copied == 0 {
            return Err(ArchiveError::Broken("it ends within a file".to_owned()));
        }
        left -= copied;
    }
    Ok(())
}

/// Holds a directory that something else filled (git, a build) to the rules of an archive: its limits,
/// and where its links may lead. Blocks.
///
/// # Errors
/// See [`ArchiveError`].
pub fn check_tree(directory: &Path, limits: Limits, links: Links) -> Result<(), ArchiveError> {
    let tree = Tree::open(directory)?;
    let (mut entries, mut bytes) = (0, 0_u64);
    let mut waiting = vec![Vec::<OsString>::new()];
    while let Some(below) = waiting.pop() {
        let path: PathBuf = below.iter().collect();
        for entry in fs::read_dir(directory.join(&path)).map_err(ArchiveError::io)? {
            let entry = entry.map_err(ArchiveError::io)?;
            let kind = entry.file_type().map_err(ArchiveError::io)?;
            let mut name = below.clone();
            name.push(entry.file_name());
            entries += 1;
            if entries > limits.entries {
                return Err(ArchiveError::TooLarge(format!(
                    "{} entries",
                    limits.entries
                )));
            }
            if kind.is_dir() {
                waiting.push(name);
            } else if kind.is_symlink() {
                if links == Links::Within {
                    tree.note_link(name);
                }
            } else {
                bytes = bytes.saturating_add(entry.metadata().map_err(ArchiveError::io)?.len());
                if bytes > limits.bytes {
                    return Err(ArchiveError::TooLarge(format!("{} bytes", limits.bytes)));
                }
            }
        }
    }
    tree.check_links()
}
