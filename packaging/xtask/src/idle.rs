//! `cargo xtask idle`: what the platform costs while nothing happens, as the sum of the proportional
//! set sizes (PSS) of its daemons. Idle is: no request from outside, one app deployed, some time after
//! the last call. What the app itself takes is the app's.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

/// What is measured.
#[derive(Debug, Args)]
pub struct Idle {
    /// These units instead of all in temps-daemons.slice
    #[arg(long, value_name = "UNIT")]
    unit: Vec<String>,

    /// These processes: where there is no service manager
    #[arg(long, value_name = "PID", conflicts_with = "unit")]
    pid: Vec<u32>,

    /// Seconds to wait first: the platform counts as idle five minutes after the last call
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    after: u64,

    /// Fail if the sum is larger, in KiB
    #[arg(long, value_name = "KIB")]
    at_most: Option<u64>,
}

/// The slice of the daemons.
const SLICE: &str = "temps-daemons.slice";
/// Where the unified hierarchy is mounted (cgroups(7)).
const CGROUPS: &str = "/sys/fs/cgroup";

/// A unit, or a process, and what it takes.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: String,
    processes: usize,
    memory: Memory,
}

/// In KiB, as the kernel counts (`/proc/PID/smaps_rollup`, proc(5)).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Memory {
    /// Private pages, and of shared ones the part that falls to this process.
    pss: u64,
    /// Pages that would be free if it ended.
    private: u64,
}

/// Waits, measures and prints a line for each, and their sum.
///
/// # Errors
/// When something cannot be measured, or takes more than it may.
#[allow(
    clippy::disallowed_methods,
    reason = "a program that waits and measures, without any runtime"
)]
pub fn run(idle: &Idle) -> Result<()> {
    sleep(Duration::from_secs(idle.after));
    let rows = if idle.pid.is_empty() {
        units(&idle.unit)?
    } else {
        let one = |pid: &u32| row(format!("pid {pid}"), &[*pid]);
        idle.pid.iter().map(one).collect::<Result<_>>()?
    };
    println!(
        "{:<34} {:>9} {:>10} {:>12}",
        "", "processes", "PSS KiB", "private KiB"
    );
    for row in &rows {
        show(row);
    }
    let total = total(&rows);
    show(&total);
    if let Some(limit) = idle.at_most {
        ensure!(
            total.memory.pss <= limit,
            "idle takes {} KiB, and may take {limit} KiB",
            total.memory.pss
        );
    }
    Ok(())
}

fn show(row: &Row) {
    println!(
        "{:<34} {:>9} {:>10} {:>12}",
        row.name, row.processes, row.memory.pss, row.memory.private
    );
}

fn total(rows: &[Row]) -> Row {
    Row {
        name: "sum".to_owned(),
        processes: rows.iter().map(|row| row.processes).sum(),
        memory: Memory {
            pss: rows.iter().map(|row| row.memory.pss).sum(),
            private: rows.iter().map(|row| row.memory.private).sum(),
        },
    }
}

/// The units that are named, else all that run in the slice.
fn units(named: &[String]) -> Result<Vec<Row>> {
    if !named.is_empty() {
        let one = |unit: &String| row(unit.clone(), &processes(&control_group(unit)?)?);
        return named.iter().map(one).collect();
    }
    let slice = control_group(SLICE)?;
    let mut rows = Vec::new();
    for entry in
        std::fs::read_dir(&slice).with_context(|| format!("reading {}", slice.display()))?
    {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pids = processes(&entry.path())?;
            if !pids.is_empty() {
                rows.push(row(name, &pids)?);
            }
        }
    }
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(rows)
}

/// Where the processes of a unit are.
fn control_group(unit: &str) -> Result<PathBuf> {
    let done = Command::new("systemctl")
        .args(["show", "--value", "--property=ControlGroup", unit])
        .output()
        .context("systemctl cannot be started; --pid measures without it")?;
    let path = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    if path.is_empty() {
        bail!("{unit} does not run here");
    }
    Ok(Path::new(CGROUPS).join(path.trim_start_matches('/')))
}

fn processes(group: &Path) -> Result<Vec<u32>> {
    let path = group.join("cgroup.procs");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    // 0 stands for a process that this namespace does not see: another container's, where several share
    // one hierarchy.
    let seen = text.lines().filter_map(|line| line.parse().ok());
    Ok(seen.filter(|pid| *pid != 0).collect())
}

fn row(name: String, pids: &[u32]) -> Result<Row> {
    let mut memory = Memory::default();
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {path} (root may read everybody's)"))?;
        let one = Memory::parse(&text).with_context(|| format!("{path} says nothing of Pss"))?;
        memory.pss += one.pss;
        memory.private += one.private;
    }
    Ok(Row {
        name,
        processes: pids.len(),
        memory,
    })
}

impl Memory {
    fn parse(rollup: &str) -> Option<Self> {
        let value = |wanted: &str| -> Option<u64> {
            let rest = rollup.lines().find_map(|line| line.strip_prefix(wanted))?;
            rest.trim().trim_end_matches("kB").trim().parse().ok()
        };
        Some(Self {
            pss: value("Pss:")?,
            private: value("Private_Clean:")? + value("Private_Dirty:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_account_is_read() {
        let text = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  4096 kB\nPss:     1024 kB\nPss_Dirty: 7 kB\nPrivate_Clean:  512 kB\nPrivate_Dirty:   256 kB\n";
        let memory = Memory {
            pss: 1024,
            private: 768,
        };
        assert_eq!(Memory::parse(text), Some(memory));
        assert_eq!(Memory::parse("nothing"), None);
    }

    #[test]
    fn this_process_takes_something_and_the_sum_is_of_all() {
        let own = row("own".to_owned(), &[std::process::id()]).unwrap();
        assert!(
            own.memory.pss >= own.memory.private && own.memory.private > 0,
            "{own:?}"
        );
        let twice = total(&[row("one".to_owned(), &[]).unwrap(), own]);
        assert_eq!(twice.processes, 1);
    }

    #[test]
    fn a_process_that_is_gone_is_not_counted_as_nothing() {
        assert!(row("gone".to_owned(), &[u32::MAX]).is_err());
    }
}
