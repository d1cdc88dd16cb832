//! The processes of this machine, read from /proc. A process whose environment cannot be read
//! (another user's, or one that just ended) has none.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One process, as it was when [`all`] looked.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    /// One letter, see proc_pid_stat(5): `Z` has ended and waits to be reaped.
    pub state: char,
    pub argv: Vec<String>,
    pub environment: HashMap<String, String>,
    /// Ends in ` (deleted)` if the directory is gone.
    pub directory: Option<PathBuf>,
    /// What its descriptors lead to; `socket:[1]` and the like are among them.
    pub files: Vec<PathBuf>,
}

impl Process {
    /// The last part of the name it was started by.
    pub fn name(&self) -> &str {
        let name = self.argv.first().map_or("", String::as_str);
        name.rsplit('/').next().unwrap_or(name)
    }

    /// Whether it works in `directory` or has a file below it open.
    pub fn uses(&self, directory: &Path) -> bool {
        let mut paths = self.directory.iter().chain(&self.files);
        paths.any(|path| path.starts_with(directory))
    }
}

/// Every process that runs, zombies too.
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(read)
        .collect()
}

/// The pids among `processes` that descend from `ancestor`, without itself.
pub fn descendants(processes: &[Process], ancestor: i32) -> Vec<i32> {
    let mut found = vec![ancestor];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        let children = processes.iter().filter(|process| process.parent == parent);
        let new: Vec<i32> = children
            .map(|child| child.pid)
            .filter(|pid| !found.contains(pid))
            .collect();
        found.extend(new);
        at += 1;
    }
    found.split_off(1)
}

/// Sends SIGKILL; a process that is gone already is as good.
pub fn kill_now(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Whether a process has ended, and so let go of all it had open. It may wait to be reaped.
pub fn is_over(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse_stat(&stat).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

fn read(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (state, parent) = parse_stat(&stat)?;
    let words = |file: &str| -> Vec<String> {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let words = bytes
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty());
        words
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect()
    };
    let environment = words("environ")
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    let descriptors = descriptors.into_iter().flatten().flatten();
    Some(Process {
        pid,
        parent,
        state,
        argv: words("cmdline"),
        environment,
        directory,
        files: descriptors
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .collect(),
    })
}

/// State and parent of a line of /proc/PID/stat; the name in it may hold anything, also `) `.
fn parse_stat(line: &str) -> Option<(char, i32)> {
    let (_, rest) = line.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_hides_nothing() {
        assert_eq!(parse_stat("42 (a) S 1 (b)) R 7 42 42 0"), Some(('R', 7)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn we_find_ourselves_and_our_grandchildren() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 30 & wait"])
            .env("HARNESS_TEST", "grandchild")
            .spawn()
            .expect("sh starts");
        let me = i32::try_from(std::process::id()).expect("a pid");
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let ours = loop {
            let all = all();
            let descendants = descendants(&all, me);
            let ours: Vec<Process> = all
                .into_iter()
                .filter(|process| descendants.contains(&process.pid))
                .filter(|process| process.environment.contains_key("HARNESS_TEST"))
                .collect();
            if ours.iter().any(|process| process.name() == "sleep") {
                break ours;
            }
            assert!(std::time::Instant::now() < end, "{ours:?}");
        };
        for process in &ours {
            kill_now(process.pid);
        }
        child.wait().expect("it ended");
        assert!(ours.len() >= 2, "{ours:?}");
    }
}
