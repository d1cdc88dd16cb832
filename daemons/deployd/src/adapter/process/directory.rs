//! An instance's directory: its lock, its supervisor's process id, and how it ended.

use crate::port::InstanceState;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::poll::{PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use temps_ipc::id::InstanceId;
use temps_ipc::types::Timestamp;

/// How an app ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExitRecord {
    /// Its exit status, unless a signal killed it.
    pub(super) status: Option<i32>,
    /// The signal that killed it.
    pub(super) signal: Option<i32>,
    /// We had asked it to stop.
    pub(super) asked: bool,
    /// When.
    pub(super) at: Timestamp,
}

impl ExitRecord {
    fn in_words(self) -> String {
        match (self.status, self.signal) {
            (Some(status), _) => format!("exited with status {status}"),
            (None, Some(signal)) => {
                let name = Signal::try_from(signal).map_or("", Signal::as_str);
                let memory = if signal == libc::SIGKILL {
                    ", perhaps because memory ran out"
                } else {
                    ""
                };
                format!("was killed by signal {signal} ({name}{memory})")
            }
            (None, None) => "ended in an unknown way".to_owned(),
        }
    }
}

/// The directory of one instance.
#[derive(Debug, Clone)]
pub(super) struct InstanceDirectory(PathBuf);

impl InstanceDirectory {
    pub(super) fn new(instances: &Path, id: &InstanceId) -> Self {
        Self(instances.join(id.as_str()))
    }

    pub(super) fn from_path(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// Makes the directory and takes its lock; nothing if the instance holds it.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for directory in [&self.0, &self.home(), &self.temporary()] {
            builder.create(directory)?;
        }
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.0.join("lock"))?;
        // A lock of the open file, not of the process: it goes to the supervisor with the
        // descriptor, without a moment at which nobody holds it, and it can be looked at without
        // being taken.
        match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => Ok(Some(file)),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether anything of the instance lives.
    pub(super) fn is_locked(&self) -> io::Result<bool> {
        let file = match File::open(self.0.join("lock")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut found = whole_file();
        fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut found))?;
        Ok(i32::from(found.l_type) != libc::F_UNLCK)
    }

    /// The supervisor, while it holds the lock and has said who it is.
    pub(super) fn supervisor(&self) -> io::Result<Option<Pid>> {
        let text = match fs::read_to_string(self.0.join("pid")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // After reading: a supervisor that lived now was the one that wrote the file.
        if !self.is_locked()? {
            return Ok(None);
        }
        let pid = text.trim().parse().ok().filter(|&pid: &i32| pid > 1);
        Ok(pid.map(Pid::from_raw))
    }

    pub(super) fn write_pid(&self) -> io::Result<()> {
        fs::write(self.0.join("pid"), format!("{}\n", std::process::id()))
    }

    /// Removes what an earlier run under the same id left.
    pub(super) fn forget_last_run(&self) -> io::Result<()> {
        for name in ["pid", "exit.json"] {
            gone(fs::remove_file(self.0.join(name)))?;
        }
        Ok(())
    }

    pub(super) fn write_exit_record(&self, record: &ExitRecord) -> io::Result<()> {
        let fresh = self.0.join("exit.json.new");
        fs::write(&fresh, serde_json::to_vec(record)?)?;
        fs::rename(fresh, self.0.join("exit.json"))
    }

    pub(super) fn has_exit_record(&self) -> bool {
        self.0.join("exit.json").exists()
    }

    /// How the instance is. What a killed supervisor left behind is killed on the way.
    pub(super) fn state(&self, id: &InstanceId) -> io::Result<InstanceState> {
        if self.is_locked()? {
            return Ok(InstanceState::Running);
        }
        if !self.0.exists() {
            return Ok(InstanceState::Absent);
        }
        match fs::read(self.0.join("exit.json")) {
            Ok(record) => {
                let record: ExitRecord = serde_json::from_slice(&record)?;
                Ok(if record.asked {
                    InstanceState::Absent
                } else {
                    InstanceState::Exited {
                        how: record.in_words(),
                        at: Some(record.at),
                    }
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                super::kill_leftovers(id)?;
                Ok(InstanceState::Exited {
                    how: "was killed together with its supervisor".to_owned(),
                    at: None,
                })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        gone(fs::remove_dir_all(&self.0))
    }
}

/// The instances that have a directory.
pub(super) fn list(instances: &Path) -> io::Result<Vec<InstanceId>> {
    let entries = match fs::read_dir(instances) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok()),
        );
    }
    Ok(found)
}

/// Waits in a thread that may block.
pub(super) fn pause(time: Duration) {
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
    // An interrupted wait is only a shorter one.
    let _ = poll(&mut [], timeout);
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
