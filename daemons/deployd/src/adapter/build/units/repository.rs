//! A repository at a path of this machine, as a job that fetches from it is shown it.

use crate::adapter::build::job::place::Place;
use crate::adapter::build::system;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use temps_ipc::Fault;

/// How directories on the way are held: they need not be readable for that, and a link is not followed.
const HELD: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// A repository that everybody may read: who fetches is nobody, and sees nothing else of its
/// neighbourhood.
#[derive(Debug)]
pub(super) struct Repository {
    path: PathBuf,
    place: Place,
    /// As long as it is open, nothing else can become what it is.
    _held: File,
}

impl Repository {
    /// Looks at each directory on the way once it is held, so that it cannot become another meanwhile.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let hint = "put the repository where everybody may read it, such as below /srv";
        let missing = || {
            let what = format!("there is no git repository at {}", path.display());
            Fault::invalid(what).hint(hint)
        };
        let path = path.canonicalize().map_err(|_| missing())?;
        let closed = |at: &Path| {
            let what = format!(
                "the git repository at {} cannot be read by others, because of {}",
                path.display(),
                at.display()
            );
            Fault::invalid(what).hint(hint)
        };
        let mut here = File::open("/").map_err(|error| system(&error))?;
        let mut at = PathBuf::from("/");
        for component in path.components() {
            if let Component::Normal(name) = component {
                check(&here, 0o001).map_err(|_| closed(&at))?;
                at.push(name);
                here = match openat(&here, name, HELD, Mode::empty()) {
                    Ok(next) => next.into(),
                    Err(Errno::EACCES) => return Err(closed(&at)),
                    Err(_) => return Err(missing()),
                };
            }
        }
        check(&here, 0o005).map_err(|_| closed(&at))?;
        let found = here.metadata().map_err(|error| system(&error))?;
        Ok(Self {
            place: Place::new(path.clone(), &found),
            path,
            _held: here,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What a job must find there.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }
}

/// Whether others have these rights.
fn check(directory: &File, wanted: u32) -> Result<(), ()> {
    let mode = directory.metadata().map_err(|_| ())?.permissions().mode();
    if mode & wanted == wanted {
        Ok(())
    } else {
        Err(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn directory(path: &Path, mode: u32) {
        if !path.exists() {
            fs::create_dir(path).unwrap();
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_repository_that_is_not_for_everybody_is_not_shown_to_a_stranger() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let repository = dir.path().join("repository");
        directory(dir.path(), 0o755);
        directory(&repository, 0o755);
        let found = Repository::open(&repository).unwrap();
        assert_eq!(found.path(), repository.canonicalize().unwrap());
        directory(&repository, 0o751);
        let fault = Repository::open(&repository).unwrap_err();
        assert!(fault.what.contains("because of"), "{fault:?}");
        directory(&repository, 0o755);
        directory(dir.path(), 0o700);
        let fault = Repository::open(&repository).unwrap_err();
        assert!(
            fault.what.ends_with(&dir.path().display().to_string()),
            "{fault:?}"
        );
        assert!(Repository::open(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn one_that_was_replaced_is_not_what_was_looked_at() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (repository, secret) = (dir.path().join("repository"), dir.path().join("secret"));
        directory(dir.path(), 0o755);
        directory(&repository, 0o755);
        directory(&secret, 0o755);
        let found = Repository::open(&repository).unwrap();
        assert!(found.place().is_there());
        fs::rename(&repository, dir.path().join("elsewhere")).unwrap();
        assert!(!found.place().is_there());
        std::os::unix::fs::symlink(&secret, &repository).unwrap();
        assert!(!found.place().is_there());
    }
}
