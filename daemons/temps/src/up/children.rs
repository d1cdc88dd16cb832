//! The processes that `temps up` started, and those it inherited.
//!
//! As the subreaper it becomes the parent of every descendant whose own parent ends: it reaps them
//! all, and knows which are its own. A process id is used for a signal only while its process was
//! not reaped, so it cannot mean another process by then.

use futures::FutureExt;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use temps_ipc::Fault;
use temps_unit::notify::{NotifyMessage, Receiver};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// Notifications of a daemon that wait to be read; a daemon that sends more is not heard.
const NOTES: usize = 64;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Status(i32),
    /// By a signal.
    Signal(Signal),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Status(status) => write!(f, "exited with status {status}"),
            Ended::Signal(signal) => write!(f, "was killed by {signal}"),
        }
    }
}

/// A process that we started.
#[derive(Debug)]
pub struct Child {
    /// Its id; use [`Children::signal`].
    pub pid: Pid,
    /// How it ended, once.
    pub ended: oneshot::Receiver<Ended>,
    /// What it says of itself.
    pub notes: mpsc::Receiver<NotifyMessage>,
}

#[derive(Debug)]
struct Entry {
    ended: oneshot::Sender<Ended>,
    notes: mpsc::Sender<NotifyMessage>,
}

/// Every process that we started and that was not reaped yet.
#[derive(Debug, Default)]
pub struct Children {
    entries: Mutex<HashMap<Pid, Entry>>,
}

impl Children {
    fn entries(&self) -> MutexGuard<'_, HashMap<Pid, Entry>> {
        // Nothing in between leaves the map half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, command: &mut Command) -> io::Result<Child> {
        // Held from before the start, so that its end cannot be noted before it is known.
        let mut entries = self.entries();
        // Waiting is ours alone: dropping this neither waits nor kills.
        let process = command.spawn()?;
        let pid = Pid::from_raw(process.id().cast_signed());
        let (ended, ending) = oneshot::channel();
        let (notes, noted) = mpsc::channel(NOTES);
        entries.insert(pid, Entry { ended, notes });
        Ok(Child {
            pid,
            ended: ending,
            notes: noted,
        })
    }

    /// Sends a signal to a process that we started, unless it ended.
    pub fn signal(&self, pid: Pid, signal: Signal) {
        if self.entries().contains_key(&pid) {
            // It may have ended by now without being reaped; then there is nothing to do.
            let _ = kill(pid, signal);
        }
    }

    /// Sends a signal to every process that we started.
    pub fn signal_all(&self, signal: Signal) {
        for pid in self.entries().keys() {
            let _ = kill(*pid, signal);
        }
    }

    /// Whether a process that we started was not reaped yet.
    pub fn any(&self) -> bool {
        !self.entries().is_empty()
    }

    /// The processes that became ours because their parents ended.
    pub fn inherited(&self) -> Vec<Pid> {
        let own = self.entries();
        let all = children_of(Pid::this());
        all.into_iter()
            .filter(|pid| !own.contains_key(pid))
            .collect()
    }

    /// Reaps every process that ended.
    pub fn reap(&self) {
        loop {
            let (pid, ended) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => (pid, Ended::Status(status)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Ended::Signal(signal)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            if let Some(entry) = self.entries().remove(&pid) {
                // Nobody may wait for it any more.
                let _ = entry.ended.send(ended);
            }
        }
    }

    fn note(&self, pid: u32, messages: Vec<NotifyMessage>) {
        let entries = self.entries();
        if let Some(entry) = entries.get(&Pid::from_raw(pid.cast_signed())) {
            for message in messages {
                let _ = entry.notes.try_send(message);
            }
        }
    }
}

/// Reaps processes and hands out their notifications, until that fails.
pub async fn keep(children: std::sync::Arc<Children>, mut notify: Receiver) -> Fault {
    let mut ends = match signal(SignalKind::child()) {
        Ok(ends) => ends,
        Err(error) => {
            return Fault::internal(format!("ends of processes cannot be noticed: {error}"));
        }
    };
    loop {
        // What a process said last came before its end, and is to be heard before it.
        while let Some(note) = notify.recv().now_or_never() {
            match note {
                Ok(note) => children.note(note.pid, note.messages),
                Err(error) => return deaf(&error),
            }
        }
        // Also at first: a process may have ended before we listened.
        children.reap();
        tokio::select! {
            ended = ends.recv() => if ended.is_none() {
                return Fault::internal("ends of processes are not noticed any more");
            },
            note = notify.recv() => match note {
                Ok(note) => children.note(note.pid, note.messages),
                Err(error) => return deaf(&error),
            },
        }
    }
}

fn deaf(error: &io::Error) -> Fault {
    Fault::internal(format!("readiness cannot be heard of: {error}"))
}

/// Makes this process the parent of descendants whose parents end.
///
/// # Errors
/// When the kernel does not know of it.
pub fn become_subreaper() -> Result<(), Fault> {
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| {
        Fault::internal(format!(
            "this process cannot adopt its descendants: {error}"
        ))
    })
}

/// Whether this process was started with a signal ignored, as nohup(1) does.
pub fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal as u32 - 1)) != 0)
}

/// The processes whose parent is `parent`, zombies included.
fn children_of(parent: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| parent_in(&stat) == Some(parent))
        })
        .map(Pid::from_raw)
        .collect()
}

/// The parent in `/proc/PID/stat` (proc(5)): the name before it may hold anything, also `)`.
fn parent_in(stat: &str) -> Option<Pid> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in("7 (a) b (c)) S 42 7 7"), Some(Pid::from_raw(42)));
        assert_eq!(parent_in("nonsense"), None);
    }

    #[test]
    fn an_ignored_signal_is_known() {
        assert!(!is_ignored(Signal::SIGUSR2));
        // Rust programs ignore it from the start.
        assert!(is_ignored(Signal::SIGPIPE));
    }

    #[test]
    fn ends_are_told_in_words() {
        assert_eq!(Ended::Status(78).to_string(), "exited with status 78");
        assert_eq!(
            Ended::Signal(Signal::SIGKILL).to_string(),
            "was killed by SIGKILL"
        );
    }
}
