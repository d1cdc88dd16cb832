//! Packs a directory into a tar stream, for an upload.
//!
//! - The same tree gives the same bytes: entries in order of their names, no owner, whole seconds.
//! - `.git` is never packed. What `.tempsignore` names is left out, for source also what
//!   `.gitignore` names; `.tempsignore` wins.
//! - A link stays a link, and has to stay inside the tree. What is neither file, directory nor link
//!   is refused by name, as is what cannot be read: a release is whole or it is not made.

use ignore::WalkBuilder;
use nix::libc;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use tar::{Builder, EntryType, Header};
use temps_ipc::{Code, Fault};

/// The file whose rules name what is left out, in the syntax of `.gitignore`.
const IGNORE_FILE: &str = ".tempsignore";

/// What a directory is packed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Source to build: `.gitignore` counts.
    Source,
    /// Files to serve, often made by a build and thus named in a `.gitignore`: it does not count.
    Files,
}

/// What was packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files and links.
    pub files: u64,
}

/// Why a directory cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is not a directory, or not there.
    #[error("`{}` is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Something in it cannot be read.
    #[error("{what}: {source}")]
    Unreadable {
        /// What, and that it cannot be read.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A link leads out of it.
    #[error("the link `{}` leads out of the directory, to `{}`", link.display(), target.display())]
    Outside {
        /// The link, relative to the directory.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Neither file, directory nor link.
    #[error("`{}` is a {kind}, which a release cannot hold", path.display())]
    Special {
        /// What it is.
        kind: &'static str,
        /// Relative to the directory.
        path: PathBuf,
    },
    /// It changed while it was read.
    #[error("`{}` changed while it was packed", .0.display())]
    Changed(PathBuf),
    /// Nothing is left to pack.
    #[error("there is nothing to deploy in `{}`", .0.display())]
    Empty(PathBuf),
    /// The receiver went away.
    #[error("the archive cannot be written: {0}")]
    Receiver(io::Error),
}

impl From<ArchiveError> for Fault {
    fn from(error: ArchiveError) -> Self {
        let (code, hint) = match &error {
            ArchiveError::NotADirectory(_) => (Code::Invalid, "name an existing directory"),
            ArchiveError::Unreadable { .. } => (
                Code::Denied,
                "make it readable, or name it in .tempsignore to leave it out",
            ),
            ArchiveError::Outside { .. } => (
                Code::Invalid,
                "copy what it leads to into the directory, or name the link in .tempsignore to leave it out",
            ),
            ArchiveError::Special { .. } => (
                Code::Invalid,
                "remove it, or name it in .tempsignore to leave it out",
            ),
            ArchiveError::Changed(_) => (
                Code::Busy,
                "wait until nothing writes to the directory, and deploy again",
            ),
            ArchiveError::Empty(_) => (
                Code::Invalid,
                "is it the right directory, and do .gitignore and .tempsignore leave something over?",
            ),
            ArchiveError::Receiver(_) => (Code::Unavailable, "try again"),
        };
        Fault::new(code, error.to_string()).hint(hint)
    }
}

/// Packs the directory `root` and writes the archive to `to`.
///
/// # Errors
/// See [`ArchiveError`]; what was written is of no use then.
pub fn pack<W: Write>(root: &Path, rules: Rules, to: W) -> Result<Packed, ArchiveError> {
    if !root.is_dir() {
        return Err(ArchiveError::NotADirectory(root.to_owned()));
    }
    let mut packed = Packed::default();
    let mut builder = Builder::new(to);
    for entry in walk(root, rules).build() {
        let entry = entry.map_err(|error| unreadable_entry(root, error))?;
        let path = entry.path();
        let relative = path.strip_prefix(root).unwrap_or(path);
        if relative.as_os_str().is_empty() {
            continue;
        }
        let metadata = path
            .symlink_metadata()
            .map_err(|source| unreadable(relative, source))?;
        packed.files += add(&mut builder, path, relative, &metadata)?;
    }
    if packed.files == 0 {
        return Err(ArchiveError::Empty(root.to_owned()));
    }
    let mut to = builder.into_inner().map_err(ArchiveError::Receiver)?;
    to.flush().map_err(ArchiveError::Receiver)?;
    Ok(packed)
}

/// Walks what shall be packed, in order of names.
fn walk(root: &Path, rules: Rules) -> WalkBuilder {
    let mut walk = WalkBuilder::new(root);
    walk.standard_filters(false)
        .git_ignore(rules == Rules::Source)
        // The tree is what counts, not whether it is checked out.
        .require_git(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .follow_links(false)
        .sort_by_file_name(|one, other| one.cmp(other))
        .filter_entry(|entry| entry.file_name() != ".git");
    walk
}

/// Adds one entry; how many files it is.
fn add<W: Write>(
    builder: &mut Builder<W>,
    path: &Path,
    relative: &Path,
    metadata: &Metadata,
) -> Result<u64, ArchiveError> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        let mut header = header(EntryType::Directory, metadata);
        builder
            .append_data(&mut header, relative, io::empty())
            .map_err(ArchiveError::Receiver)?;
        return Ok(0);
    }
    if kind.is_symlink() {
        let target = path
            .read_link()
            .map_err(|source| unreadable(relative, source))?;
        if !stays_inside(relative, &target) {
            return Err(ArchiveError::Outside {
                link: relative.to_owned(),
                target,
            });
        }
        let mut header = header(EntryType::Symlink, metadata);
        builder
            .append_link(&mut header, relative, &target)
            .map_err(ArchiveError::Receiver)?;
        return Ok(1);
    }
    if !kind.is_file() {
        return Err(special(relative, metadata));
    }
    let (file, metadata) = open(path, relative)?;
    let mut header = header(EntryType::Regular, &metadata);
    header.set_size(metadata.len());
    let mut exact = Exact {
        file,
        left: metadata.len(),
        failed: None,
    };
    let appended = builder.append_data(&mut header, relative, &mut exact);
    match exact.failed {
        Some(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            Err(ArchiveError::Changed(relative.to_owned()))
        }
        Some(source) => Err(unreadable(relative, source)),
        None => appended.map(|()| 1).map_err(ArchiveError::Receiver),
    }
}

/// Opens a file, unless it became something else since it was listed.
fn open(path: &Path, relative: &Path) -> Result<(File, Metadata), ArchiveError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::ELOOP | libc::ENOENT) => ArchiveError::Changed(relative.to_owned()),
            _ => unreadable(relative, source),
        })?;
    let metadata = file
        .metadata()
        .map_err(|source| unreadable(relative, source))?;
    if !metadata.is_file() {
        return Err(ArchiveError::Changed(relative.to_owned()));
    }
    Ok((file, metadata))
}

/// A header without owner; only what a release needs of the mode.
fn header(kind: EntryType, metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// Whether a link at `link` (relative to the root) to `target` stays below the root.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count() - 1;
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

fn special(relative: &Path, metadata: &Metadata) -> ArchiveError {
    let kind = match metadata.mode() & libc::S_IFMT {
        libc::S_IFIFO => "named pipe",
        libc::S_IFSOCK => "socket",
        libc::S_IFBLK | libc::S_IFCHR => "device",
        _ => "special file",
    };
    ArchiveError::Special {
        kind,
        path: relative.to_owned(),
    }
}

fn unreadable(relative: &Path, source: io::Error) -> ArchiveError {
    ArchiveError::Unreadable {
        what: format!("`{}` cannot be read", relative.display()),
        source,
    }
}

/// An error of the walk, which names its path itself.
fn unreadable_entry(root: &Path, error: ignore::Error) -> ArchiveError {
    let what = format!("`{}` cannot be read whole", root.display());
    let text = error.to_string();
    let source = error.into_io_error().map_or_else(
        || io::Error::other(text.clone()),
        |source| io::Error::new(source.kind(), text.clone()),
    );
    ArchiveError::Unreadable { what, source }
}

/// Reads exactly as many bytes as the header says, and remembers why it could not.
struct Exact {
    file: File,
    left: u64,
    failed: Option<io::Error>,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let failure = match self.file.read(&mut buffer[..most]) {
            Ok(0) => io::Error::from(io::ErrorKind::UnexpectedEof),
            Ok(length) => {
                self.left -= length as u64;
                return Ok(length);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => error,
        };
        let copy = io::Error::new(failure.kind(), failure.to_string());
        self.failed = Some(failure);
        Err(copy)
    }
}

#[cfg(test)]
mod tests;
