//! Writes below one directory and nowhere else: every path is walked from a descriptor of the
//! directory, component by component, without following a link.

use super::{ArchiveError, Links};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};
use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the kernel allows in one name and in one path.
const MAX_COMPONENT: usize = 255;
const MAX_PATH: usize = 4_000;

/// How many links are followed when a link is checked, as in the kernel.
const MAX_LINKS: usize = 40;

/// How directories on the way are opened.
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The components of an entry's name; none for the directory itself.
pub(super) fn components(name: &[u8], depth: usize) -> Result<Vec<OsString>, ArchiveError> {
    let refuse = |why: &str| Err(ArchiveError::entry(name, why));
    if name.is_empty() {
        return refuse("has no name");
    }
    if name.len() > MAX_PATH {
        return refuse("has a name that is too long");
    }
    if name.starts_with(b"/") {
        return refuse("has an absolute name");
    }
    let mut found = Vec::new();
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return refuse("leads out of the source"),
            _ if component.contains(&0) => return refuse("has a NUL byte in its name"),
            _ if component.len() > MAX_COMPONENT => return refuse("has a name that is too long"),
            _ => found.push(OsStr::from_bytes(component).to_owned()),
        }
    }
    if found.len() > depth {
        return refuse("is nested too deeply");
    }
    Ok(found)
}

/// The directory that is filled.
pub(super) struct Tree {
    root: OwnedFd,
    /// The links made so far, to be checked when everything is there.
    links: RefCell<Vec<(Vec<u8>, Vec<OsString>)>>,
    /// Directories made on the way to an entry, which have no entry of their own.
    on_the_way: Cell<u64>,
}

impl Tree {
    pub(super) fn open(directory: &Path) -> Result<Self, ArchiveError> {
        let root = File::open(directory).map_err(ArchiveError::io)?;
        Ok(Self {
            root: root.into(),
            links: RefCell::new(Vec::new()),
            on_the_way: Cell::new(0),
        })
    }

    /// A new file in the place of whatever has its name.
    pub(super) fn create_file(
        &self,
        name: &[u8],
        path: &[OsString],
        is_executable: bool,
    ) -> Result<File, ArchiveError> {
        let (parent, last) = self.parent(name, path)?;
        clear(&parent, last, name)?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&parent, last, flags, Mode::from_bits_truncate(0o600)).map_err(failed)?;
        let mode = if is_executable { 0o755 } else { 0o644 };
        // Not by `open`, which takes the umask away.
        fchmod(&file, Mode::from_bits_truncate(mode)).map_err(failed)?;
        Ok(file.into())
    }

    pub(super) fn create_directory(
        &self,
        name: &[u8],
        path: &[OsString],
    ) -> Result<(), ArchiveError> {
        let Some((last, before)) = path.split_last() else {
            return Ok(());
        };
        let parent = self.walk(name, before, true)?;
        if status(&parent, last)?.is_some_and(|found| !is(&found, SFlag::S_IFDIR)) {
            clear(&parent, last, name)?;
        }
        make_directory(&parent, last)?;
        Ok(())
    }

    pub(super) fn create_symlink(
        &self,
        name: &[u8],
        path: &[OsString],
        target: &[u8],
        links: Links,
    ) -> Result<(), ArchiveError> {
        if target.len() > MAX_PATH || target.contains(&0) {
            return Err(ArchiveError::entry(
                name,
                "is a link with an impossible target",
            ));
        }
        if target.starts_with(b"/") && links == Links::Within {
            return Err(ArchiveError::entry(name, "is a link to an absolute path"));
        }
        let (parent, last) = self.parent(name, path)?;
        clear(&parent, last, name)?;
        symlinkat(OsStr::from_bytes(target), &parent, last).map_err(failed)?;
        self.links.borrow_mut().push((name.to_vec(), path.to_vec()));
        Ok(())
    }

    pub(super) fn create_hard_link(
        &self,
        name: &[u8],
        path: &[OsString],
        target: &[OsString],
    ) -> Result<(), ArchiveError> {
        let refuse = |why: &str| Err(ArchiveError::entry(name, why));
        let Some((file, before)) = target.split_last() else {
            return refuse("is a link to a directory");
        };
        if path == target {
            return refuse("is a link to itself");
        }
        let from = self.walk(name, before, false)?;
        match status(&from, file)? {
            Some(found) if is(&found, SFlag::S_IFREG) => {}
            Some(_) => return refuse("is a hard link to something that is no file"),
            None => return refuse("is a hard link to a file that does not come before it"),
        }
        let (parent, last) = self.parent(name, path)?;
        clear(&parent, last, name)?;
        linkat(&from, file.as_os_str(), &parent, last, AtFlags::empty()).map_err(failed)
    }

    /// How many directories were made on the way to an entry.
    pub(super) fn made_on_the_way(&self) -> u64 {
        self.on_the_way.get()
    }

    /// A link that was there already, to be checked with the others.
    pub(super) fn note_link(&self, path: Vec<OsString>) {
        let name: PathBuf = path.iter().collect();
        let name = name.as_os_str().as_bytes().to_vec();
        self.links.borrow_mut().push((name, path));
    }

    /// Refuses links that lead out of the tree, by whatever way, now that all are there.
    pub(super) fn check_links(&self) -> Result<(), ArchiveError> {
        for (name, path) in self.links.borrow().iter() {
            if self.leads_out(path)? {
                return Err(ArchiveError::entry(
                    name,
                    "is a link that leads out of the source",
                ));
            }
        }
        Ok(())
    }

    /// Resolves the path as the kernel would, and says whether it passes above the root.
    fn leads_out(&self, path: &[OsString]) -> Result<bool, ArchiveError> {
        let mut left: Vec<OsString> = path.iter().rev().cloned().collect();
        let mut here: Vec<OsString> = Vec::new();
        let mut followed = 0;
        while let Some(component) = left.pop() {
            match component.as_bytes() {
                b"" | b"." => continue,
                b".." => {
                    if here.pop().is_none() {
                        return Ok(true);
                    }
                    continue;
                }
                _ => {}
            }
            let parent = match self.walk(b"", &here, false) {
                Ok(parent) => parent,
                // A way through something that is no directory leads nowhere.
                Err(ArchiveError::Entry { .. }) => return Ok(false),
                Err(error) => return Err(error),
            };
            match readlinkat(&parent, component.as_os_str()) {
                Ok(target) => {
                    followed += 1;
                    if followed > MAX_LINKS {
                        return Ok(false);
                    }
                    if target.as_bytes().starts_with(b"/") {
                        return Ok(true);
                    }
                    let parts = target.as_bytes().split(|&byte| byte == b'/').rev();
                    left.extend(parts.map(|part| OsStr::from_bytes(part).to_owned()));
                }
                // No link, or nothing: a name like any other.
                Err(Errno::EINVAL | Errno::ENOENT) => here.push(component),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(false)
    }

    /// The directory that holds the path's last component, made if need be, and that component.
    fn parent<'p>(
        &self,
        name: &[u8],
        path: &'p [OsString],
    ) -> Result<(OwnedFd, &'p OsStr), ArchiveError> {
        let Some((last, before)) = path.split_last() else {
            return Err(ArchiveError::entry(
                name,
                "has the name of the directory itself",
            ));
        };
        Ok((self.walk(name, before, true)?, last))
    }

    /// Opens the directory; missing ones are made if wanted.
    fn walk(&self, name: &[u8], path: &[OsString], make: bool) -> Result<OwnedFd, ArchiveError> {
        let mut here = self.root.try_clone().map_err(ArchiveError::io)?;
        for component in path {
            if make && make_directory(&here, component)? {
                self.on_the_way.set(self.on_the_way.get() + 1);
            }
            here = match openat(&here, component.as_os_str(), DIRECTORY, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::ELOOP | Errno::ENOTDIR) => {
                    let what = component.display();
                    return Err(ArchiveError::entry(
                        name,
                        format!("goes through {what}, which is no directory"),
                    ));
                }
                Err(Errno::ENOENT) => {
                    return Err(ArchiveError::entry(
                        name,
                        "goes through a directory that does not exist",
                    ));
                }
                Err(error) => return Err(failed(error)),
            };
        }
        Ok(here)
    }
}

/// Makes the directory; false if there is something of that name.
fn make_directory(parent: impl AsFd, name: &OsStr) -> Result<bool, ArchiveError> {
    match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) => {
            let made = openat(&parent, name, DIRECTORY, Mode::empty()).map_err(failed)?;
            fchmod(made, Mode::from_bits_truncate(0o755)).map_err(failed)?;
            Ok(true)
        }
        Err(Errno::EEXIST) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// Removes what has the name, unless it is a directory.
fn clear(parent: impl AsFd, last: &OsStr, name: &[u8]) -> Result<(), ArchiveError> {
    match unlinkat(parent, last, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => Err(ArchiveError::entry(
            name,
            "has the name of a directory before it",
        )),
        Err(error) => Err(failed(error)),
    }
}

fn status(parent: impl AsFd, name: &OsStr) -> Result<Option<FileStat>, ArchiveError> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn is(found: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == kind
}

fn failed(error: Errno) -> ArchiveError {
    ArchiveError::io(io::Error::from(error))
}
