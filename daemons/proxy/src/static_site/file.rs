//! Opening files below a directory and nowhere else.
//!
//! The kernel resolves the path (`openat2` with `RESOLVE_BENEATH` and no links), so there is no
//! moment between looking and opening. Where the kernel or a sandbox lacks that call, each segment
//! is opened relative to the one before it, refusing links.

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open as open_at_path, openat, openat2};
use nix::sys::stat::Mode;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes read at a time: few hops to the disk's threads, little memory per request.
const PIECE: u64 = 128 * 1024;

/// A file, opened.
#[derive(Debug)]
pub struct Opened {
    /// Open for reading.
    pub file: File,
    /// Of the open file, not of the name.
    pub metadata: Metadata,
}

/// What a name stands for.
#[derive(Debug)]
pub enum Found {
    /// A regular file.
    File(Opened),
    /// A directory.
    Directory,
    /// Nothing that is served: no such name, a link, a device.
    Nothing,
}

/// Opens the release directory.
pub fn open_root(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open_at_path(root, flags, Mode::empty())?)
}

/// Opens `path` below `root`; the root itself if it is empty.
pub fn open(root: &OwnedFd, path: &[u8]) -> io::Result<Found> {
    if path.is_empty() {
        return Ok(Found::Directory);
    }
    let opened = match beneath(root, path) {
        Err(Errno::ENOSYS | Errno::EPERM) => walk(root, path),
        other => other,
    };
    let file = match opened {
        Ok(fd) => File::from(fd),
        Err(
            Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::ELOOP
            | Errno::EXDEV
            | Errno::ENAMETOOLONG
            | Errno::ENXIO,
        ) => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    Ok(if metadata.is_file() {
        Found::File(Opened { file, metadata })
    } else if metadata.is_dir() {
        Found::Directory
    } else {
        Found::Nothing
    })
}

/// A pipe without a writer must not hold the thread.
const FLAGS: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY);

fn beneath(root: &OwnedFd, path: &[u8]) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(
        root,
        OsStr::from_bytes(path),
        OpenHow::new().flags(FLAGS).resolve(resolve),
    )
}

fn walk(root: &OwnedFd, path: &[u8]) -> nix::Result<OwnedFd> {
    let mut segments = path.split(|byte| *byte == b'/').peekable();
    let mut here: Option<OwnedFd> = None;
    while let Some(segment) = segments.next() {
        if segment.is_empty() || segment == b"." || segment == b".." {
            return Err(Errno::ENOENT);
        }
        let last = segments.peek().is_none();
        let flags = if last {
            FLAGS
        } else {
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
        };
        let at = here.as_ref().unwrap_or(root).as_fd();
        here = Some(openat(
            at,
            OsStr::from_bytes(segment),
            flags | OFlag::O_NOFOLLOW,
            Mode::empty(),
        )?);
    }
    here.ok_or(Errno::ENOENT)
}

/// The status that an error means for the visitor.
pub fn status(error: &io::Error) -> u16 {
    match error.kind() {
        io::ErrorKind::PermissionDenied => 403,
        io::ErrorKind::NotFound => 404,
        // Out of descriptors, a failing disk: it may be better in a moment.
        _ => 503,
    }
}

/// Reads a part of a file, piece by piece.
#[derive(Debug)]
pub struct Reader {
    file: File,
    at: u64,
    left: u64,
}

impl Reader {
    /// Reads `count` bytes from `start`.
    pub fn new(opened: Opened, start: u64, count: u64) -> Self {
        Self {
            file: opened.file,
            at: start,
            left: count,
        }
    }

    /// Whether everything has been read.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// The next bytes; blocks on the disk.
    pub fn next_piece(&mut self) -> io::Result<Vec<u8>> {
        let size = self.left.min(PIECE);
        let mut piece = vec![0; usize::try_from(size).unwrap_or(0)];
        self.file.read_exact_at(&mut piece, self.at)?;
        self.at += size;
        self.left -= size;
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn site() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/a.txt"), "inside").unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("sub/a.txt", root.join("in")).unwrap();
        symlink("/etc", root.join("etc")).unwrap();
        symlink("sub", root.join("subdir")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
        dir
    }

    #[test]
    fn files_and_directories_are_found_and_nothing_else() {
        let dir = site();
        let root = open_root(&dir.path().join("root")).unwrap();
        assert!(matches!(open(&root, b"sub/a.txt").unwrap(), Found::File(_)));
        assert!(matches!(open(&root, b"sub").unwrap(), Found::Directory));
        assert!(matches!(open(&root, b"").unwrap(), Found::Directory));
        for path in [
            "none",
            "sub/a.txt/x",
            "out",
            "in",
            "etc/passwd",
            "subdir/a.txt",
            "../secret",
            "pipe",
            "/etc/passwd",
        ] {
            let found = open(&root, path.as_bytes());
            assert!(matches!(found, Ok(Found::Nothing)), "{path}: {found:?}");
        }
    }

    #[test]
    fn the_walk_without_openat2_refuses_the_same() {
        let dir = site();
        let root = open_root(&dir.path().join("root")).unwrap();
        assert!(walk(&root, b"sub/a.txt").is_ok());
        for path in [
            "none",
            "out",
            "in",
            "etc/passwd",
            "subdir/a.txt",
            "../secret",
            "sub/../../secret",
            "/etc/passwd",
        ] {
            assert!(walk(&root, path.as_bytes()).is_err(), "{path}");
        }
    }

    #[test]
    fn a_part_is_read_piece_by_piece() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..PIECE * 2 + 10).map(|at| at as u8).collect();
        fs::write(dir.path().join("big"), &content).unwrap();
        let root = open_root(dir.path()).unwrap();
        let Found::File(opened) = open(&root, b"big").unwrap() else {
            panic!()
        };
        let mut reader = Reader::new(opened, 5, PIECE * 2);
        let mut read = Vec::new();
        while !reader.is_done() {
            read.extend(reader.next_piece().unwrap());
        }
        assert_eq!(read, content[5..5 + PIECE as usize * 2]);
    }
}
