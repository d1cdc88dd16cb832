//! The directories of a unit: `StateDirectory=` and the like, read from the environment.
//!
//! Paths are never written into the program: systemd says where they are, and so does `temps up`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a directory is not usable.
#[derive(Debug, thiserror::Error)]
pub enum DirsError {
    /// The variable is not set, or empty.
    #[error("{variable} is not set; the unit needs {directive}")]
    Missing {
        /// Name of the variable.
        variable: &'static str,
        /// What would set it.
        directive: &'static str,
    },
    /// A path that depends on where the process was started.
    #[error("{variable} is {value:?}, not an absolute path")]
    Relative {
        /// Name of the variable.
        variable: &'static str,
        /// What it says.
        value: PathBuf,
    },
    /// It could not be made or examined.
    #[error("the directory {path} cannot be used")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Others have access to it.
    #[error("the directory {path} {problem}")]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// What is wrong and how to mend it.
        problem: String,
    },
}

/// The directories this process was given. Each is asked for when needed, since few units have all.
#[derive(Debug, Clone, Default)]
pub struct Dirs {
    /// `$STATE_DIRECTORY`: survives reboots.
    pub state: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY`: gone after a reboot.
    pub runtime: Option<PathBuf>,
    /// `$CACHE_DIRECTORY`: may be deleted at any time.
    pub cache: Option<PathBuf>,
    /// `$CONFIGURATION_DIRECTORY`: read-only.
    pub config: Option<PathBuf>,
}

impl Dirs {
    /// Reads the variables. Of several paths in one, the first counts.
    pub fn from_env() -> Result<Self, DirsError> {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, DirsError> {
        let get = |variable| first(variable, lookup(variable).as_deref());
        Ok(Self {
            state: get("STATE_DIRECTORY")?,
            runtime: get("RUNTIME_DIRECTORY")?,
            cache: get("CACHE_DIRECTORY")?,
            config: get("CONFIGURATION_DIRECTORY")?,
        })
    }

    /// The state directory, or an error that says what is missing.
    pub fn state(&self) -> Result<&Path, DirsError> {
        required(&self.state, "STATE_DIRECTORY", "StateDirectory=")
    }

    /// The runtime directory, or an error that says what is missing.
    pub fn runtime(&self) -> Result<&Path, DirsError> {
        required(&self.runtime, "RUNTIME_DIRECTORY", "RuntimeDirectory=")
    }

    /// The cache directory, or an error that says what is missing.
    pub fn cache(&self) -> Result<&Path, DirsError> {
        required(&self.cache, "CACHE_DIRECTORY", "CacheDirectory=")
    }

    /// The configuration directory, or an error that says what is missing.
    pub fn config(&self) -> Result<&Path, DirsError> {
        required(
            &self.config,
            "CONFIGURATION_DIRECTORY",
            "ConfigurationDirectory=",
        )
    }
}

fn first(variable: &'static str, value: Option<&OsStr>) -> Result<Option<PathBuf>, DirsError> {
    let first = value.and_then(|value| value.as_bytes().split(|byte| *byte == b':').next());
    match first {
        None | Some([]) => Ok(None),
        Some(path) => {
            let value = PathBuf::from(OsStr::from_bytes(path));
            if value.is_absolute() {
                Ok(Some(value))
            } else {
                Err(DirsError::Relative { variable, value })
            }
        }
    }
}

fn required<'a>(
    path: &'a Option<PathBuf>,
    variable: &'static str,
    directive: &'static str,
) -> Result<&'a Path, DirsError> {
    path.as_deref().ok_or(DirsError::Missing {
        variable,
        directive,
    })
}

/// Makes `path` with mode 0700, with its parents, or accepts it if it is already private and ours.
/// An empty one of ours that others could only read (a plain `mkdir`) is made private.
pub fn create_private(path: &Path) -> Result<(), DirsError> {
    let fail = |source| DirsError::Io {
        path: path.to_owned(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(fail)?;
    // Not followed: a link could be turned to another directory later.
    let metadata = path.symlink_metadata().map_err(fail)?;
    let exposed = |problem: String| {
        Err(DirsError::Exposed {
            path: path.to_owned(),
            problem,
        })
    };
    let own = own_uid();
    if !metadata.is_dir() {
        return exposed("is a link; name the directory itself".to_owned());
    }
    if metadata.uid() != own {
        return exposed(format!(
            "belongs to uid {}, not to uid {own}",
            metadata.uid()
        ));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 && mode & 0o022 == 0 && is_empty(path).map_err(fail)? {
        // Nobody else could put anything there, and nobody relies on reading what is not there.
        let private = std::fs::Permissions::from_mode(0o700);
        return std::fs::set_permissions(path, private).map_err(fail);
    }
    if mode & 0o077 != 0 {
        return exposed(format!(
            "has mode {mode:04o}: others have access; `chmod 700` it"
        ));
    }
    Ok(())
}

fn is_empty(path: &Path) -> io::Result<bool> {
    Ok(std::fs::read_dir(path)?.next().is_none())
}

/// The user whose files count as our own.
pub(crate) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn dirs(state: &str) -> Result<Dirs, DirsError> {
        Dirs::from_lookup(|name| (name == "STATE_DIRECTORY").then(|| state.into()))
    }

    #[test]
    fn the_first_of_several_paths_counts() {
        let dirs = dirs("/var/lib/temps/proxy:/var/lib/other").unwrap();
        assert_eq!(dirs.state().unwrap(), Path::new("/var/lib/temps/proxy"));
    }

    #[test]
    fn a_missing_directory_is_named_by_variable_and_directive() {
        let error = dirs("").unwrap().state().unwrap_err().to_string();
        assert_eq!(
            error,
            "STATE_DIRECTORY is not set; the unit needs StateDirectory="
        );
        assert!(dirs("relative").is_err());
    }

    #[test]
    fn a_private_directory_is_made_and_accepted_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        create_private(&path).unwrap();
        create_private(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn an_empty_directory_made_by_hand_becomes_private_unless_others_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plain");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        create_private(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(create_private(&path).is_err());
    }

    #[test]
    fn directories_that_others_can_reach_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("open");
        create_private(&path).unwrap();
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(
            create_private(&link)
                .unwrap_err()
                .to_string()
                .contains("is a link")
        );
        std::fs::write(path.join("file"), "").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o750)).unwrap();
        assert!(
            create_private(&path)
                .unwrap_err()
                .to_string()
                .contains("has mode 0750")
        );
        if own_uid() != 0 {
            assert!(
                create_private(Path::new("/usr"))
                    .unwrap_err()
                    .to_string()
                    .contains("uid 0")
            );
        }
    }
}
