//! Where this platform lives: its state and runtime directories, each held by one `temps up` only.
//!
//! ```text
//! STATE/    lock  proxy/  deployd/  config/ (yours)
//! RUNTIME/  lock  proxy.sock  deployd.sock  deployd-upload.sock  notify.sock  bin/  config/  proxy/  deployd/
//! ```
//! Both are private to the user. The locks are the kernel's (`flock(2)`): they end with the process,
//! however it ends.

use crate::instance::{self, DEPLOYD, PROXY, UPLOAD};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use temps_ipc::{Code, Fault};

/// Longest path of a Unix socket in bytes: `sun_path` has 108 with its end (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// The socket for readiness.
const NOTIFY: &str = "notify.sock";

/// The directories, held as long as this lives.
#[derive(Debug)]
pub struct Place {
    /// What outlives the process.
    pub state: PathBuf,
    /// Sockets and the like.
    pub runtime: PathBuf,
    _locks: [Flock<File>; 2],
}

impl Place {
    /// Makes the directories and takes hold of them.
    ///
    /// # Errors
    /// [`Code::Busy`] if another `temps up` has them, [`Code::Denied`] if somebody else could reach
    /// into them, [`Code::Invalid`] if their paths are too long for sockets.
    pub fn take(state: Option<&Path>, runtime: Option<&Path>) -> Result<Self, Fault> {
        let state = match state {
            Some(path) => path.to_owned(),
            None => default_state(|name| std::env::var_os(name))?,
        };
        let state = std::path::absolute(&state).map_err(|error| {
            Fault::invalid(format!(
                "{} cannot be made absolute: {error}",
                state.display()
            ))
        })?;
        let runtime = instance::own_dir(runtime)?;
        check_length(&runtime)?;
        private(&state, "--state")?;
        private(&runtime, "--runtime-dir")?;
        let locks = [lock(&runtime, "--runtime-dir")?, lock(&state, "--state")?];
        for dir in ["proxy", "deployd"] {
            private(&state.join(dir), "--state")?;
            private(&runtime.join(dir), "--runtime-dir")?;
        }
        let place = Self {
            state,
            runtime,
            _locks: locks,
        };
        // What one that was killed left behind is not true of us.
        place.clean_up();
        Ok(place)
    }

    /// Deployd's state directory.
    pub fn deployd_state(&self) -> PathBuf {
        self.state.join("deployd")
    }

    /// The directories of the daemons' configuration, ours first: what is in yours wins.
    pub fn configs(&self) -> [PathBuf; 2] {
        [self.runtime.join("config"), self.state.join("config")]
    }

    /// The path of the socket for readiness.
    pub fn notify(&self) -> PathBuf {
        self.runtime.join(NOTIFY)
    }

    /// Removes the sockets, so that nobody waits for an answer there.
    pub fn clean_up(&self) {
        for name in [PROXY, DEPLOYD, UPLOAD, NOTIFY] {
            // One that is left behind is replaced by the next start.
            let _ = std::fs::remove_file(self.runtime.join(name));
        }
        for daemon in ["proxy", "deployd"] {
            let _ = std::fs::remove_file(instance::notice(&self.runtime, daemon));
        }
    }
}

/// `$XDG_STATE_HOME/temps`, else `~/.local/state/temps`.
fn default_state(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Fault> {
    let set = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = || {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .ok()
            .flatten()?;
        Some(user.dir).filter(|path| path.is_absolute())
    };
    if let Some(path) = set("XDG_STATE_HOME") {
        return Ok(path.join("temps"));
    }
    let home = set("HOME").or_else(home).ok_or_else(|| {
        Fault::invalid("there is no home directory to keep the state in")
            .hint("name a directory with --state DIR")
    })?;
    Ok(home.join(".local/state/temps"))
}

fn check_length(runtime: &Path) -> Result<(), Fault> {
    let longest = runtime.join(UPLOAD);
    let length = longest.as_os_str().as_bytes().len();
    if length <= MAX_SOCKET_PATH {
        return Ok(());
    }
    let what = format!(
        "{} is too long for a socket: {length} bytes, where the kernel takes {MAX_SOCKET_PATH}",
        longest.display()
    );
    Err(Fault::invalid(what).hint("choose a shorter directory with --runtime-dir DIR"))
}

fn private(dir: &Path, flag: &str) -> Result<(), Fault> {
    temps_unit::dirs::create_private(dir).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        Fault::new(
            Code::Denied,
            format!("{error}{}", cause.unwrap_or_default()),
        )
        .hint(format!(
            "mend that, or choose another directory with {flag} DIR"
        ))
    })
}

/// Takes the lock of `dir`, and leaves our process id in it for others to read.
fn lock(dir: &Path, flag: &str) -> Result<Flock<File>, Fault> {
    let path = dir.join("lock");
    let failed = |error: std::io::Error| {
        Fault::new(
            Code::Denied,
            format!("{} cannot be locked: {error}", path.display()),
        )
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed)?;
    let mut locked = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => locked,
        Err((file, Errno::EWOULDBLOCK)) => return Err(held(file, dir, flag)),
        Err((_, error)) => return Err(failed(error.into())),
    };
    locked.set_len(0).map_err(failed)?;
    locked.rewind().map_err(failed)?;
    writeln!(locked, "{}", std::process::id()).map_err(failed)?;
    Ok(locked)
}

fn held(file: File, dir: &Path, flag: &str) -> Fault {
    let mut text = String::new();
    // Only for the message: an unreadable number is left out.
    let _ = file.take(16).read_to_string(&mut text);
    let (who, stop) = match text.trim().parse::<u32>() {
        Ok(pid) => (
            format!(" (process {pid})"),
            format!("stop it with `kill {pid}`"),
        ),
        Err(_) => (String::new(), "stop it".to_owned()),
    };
    let what = format!("another `temps up`{who} uses {}", dir.display());
    Fault::new(Code::Busy, what).hint(format!(
        "{stop}, or choose another directory with {flag} DIR"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_supervisor_is_refused_and_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let (state, runtime) = (dir.path().join("s"), dir.path().join("r"));
        let first = Place::take(Some(&state), Some(&runtime)).unwrap();
        let other = dir.path().join("other");
        for (state, runtime, flag) in [
            (&state, &other, "--state"),
            (&other, &runtime, "--runtime-dir"),
        ] {
            let fault = Place::take(Some(state), Some(runtime)).unwrap_err();
            assert_eq!(fault.code, Code::Busy);
            assert!(
                fault
                    .what
                    .contains(&format!("process {}", std::process::id())),
                "{}",
                fault.what
            );
            assert!(fault.hint.contains(flag), "{}", fault.hint);
        }
        drop(first);
        Place::take(Some(&state), Some(&runtime)).unwrap();
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = dir.path().join("r".repeat(100));
        let fault = Place::take(Some(&dir.path().join("s")), Some(&runtime)).unwrap_err();
        assert!(fault.hint.contains("--runtime-dir"));
        assert!(!runtime.exists() && !dir.path().join("s").exists());
    }

    #[test]
    fn a_directory_that_others_can_reach_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        // An empty one would be made private instead.
        std::fs::write(open.join("file"), "").unwrap();
        std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let fault = Place::take(Some(&open), Some(&dir.path().join("r"))).unwrap_err();
        assert_eq!(fault.code, Code::Denied);
        assert!(fault.what.contains("0755"), "{}", fault.what);
    }

    #[test]
    fn the_state_is_kept_where_the_user_keeps_state() {
        let found = |variables: &[(&str, &str)]| {
            default_state(|name| {
                let found = variables.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| value.into())
            })
            .unwrap()
        };
        let home = ("HOME", "/home/ann");
        assert_eq!(
            found(&[("XDG_STATE_HOME", "/s"), home]),
            Path::new("/s/temps")
        );
        assert_eq!(
            found(&[("XDG_STATE_HOME", "relative"), home]),
            Path::new("/home/ann/.local/state/temps")
        );
    }
}
