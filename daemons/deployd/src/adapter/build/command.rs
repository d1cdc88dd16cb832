//! Runs a program of the system for a build: its output goes into the build log, it ends when the
//! build does, and no build waits for it for ever.

use super::output::{Log, Outputs, Redact, say};
use super::system;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use temps_ipc::Fault;
use tokio::process::Command;
use tokio::time::timeout;

/// Where programs are looked for if nothing else was said.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Longest command that is shown whole in a message.
const MAX_SHOWN: usize = 200;

/// How a program ended, and what it said last.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    /// The last lines of both outputs.
    pub(super) tail: VecDeque<String>,
}

/// How a command ended, in words.
pub(super) fn how(status: Option<i32>, signal: Option<i32>) -> String {
    match (status, signal) {
        (Some(status), _) => format!("ended with status {status}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}

/// The fault of a source whose build command failed, in the words of `how`.
pub(super) fn failed(command: &str, how: &str, tail: &VecDeque<String>) -> Fault {
    let mut shown: String = command.chars().take(MAX_SHOWN).collect();
    if shown.len() < command.len() {
        shown.push('…');
    }
    let last = match tail.back() {
        Some(line) => format!(": {line}"),
        None => " and printed nothing".to_owned(),
    };
    Fault::invalid(format!("the build command `{shown}` {how}{last}"))
        .hint("the whole output is in the build log (`temps logs APP --build`)")
}

/// Kills the whole group of a program, unless it has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

/// Runs the program to its end. `redact` is applied to each line before anybody sees it.
pub(super) async fn run(
    mut command: Command,
    limit: Duration,
    log: &mut dyn Log,
    redact: Redact<'_>,
) -> Result<Finished, Fault> {
    let program = command.as_std().get_program().display().to_string();
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Fault::unavailable(format!("the program `{program}` is missing")).hint(format!(
                "install it: `apt-get install {program}` or `dnf install {program}`"
            ))
        }
        _ => system(&error),
    })?;
    let mut group = Group(child.id().map(|id| Pid::from_raw(id as i32)));
    let mut outputs = Outputs::new();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let finish = async {
        outputs.copy(stdout, stderr, log, redact).await?;
        child.wait().await
    };
    let status = match timeout(limit, finish).await {
        Ok(status) => status.map_err(|error| system(&error))?,
        Err(_) => {
            say(
                log,
                &format!("`{program}` was killed after {} s", limit.as_secs()),
            );
            return Err(Fault::invalid(format!(
                "`{program}` did not finish within {} s",
                limit.as_secs()
            )));
        }
    };
    group.0 = None;
    Ok(Finished {
        status,
        tail: outputs.tail(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logfile::{Reader, Writer};

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn output_is_in_the_log_redacted_and_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Writer::open(&path).unwrap();
        let redact = |line: &str| line.replace("secret", "***");
        let script = "echo a secret; printf '10%%\\r20%%\\r' >&2; printf end; exit 3";
        let finished = run(shell(script), Duration::from_secs(10), &mut log, &redact)
            .await
            .unwrap();
        assert_eq!(finished.status.code(), Some(3));
        let (lines, _) = Reader::new(&path).tail(10).unwrap();
        let mut texts: Vec<String> = lines.into_iter().map(|(.., text)| text).collect();
        texts.sort();
        assert_eq!(texts, ["10%", "20%", "a ***", "end"]);
        assert!(finished.tail.contains(&"a ***".to_owned()));
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_or_is_cancelled_ends_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let marks = ["timeout", "cancel"];
        for mark in marks {
            let mut log = Writer::open(&dir.path().join("log")).unwrap();
            let mut command = shell("sleep 600 & sleep 600");
            let variable = format!("TEMPS_TEST_COMMAND={mark}-{}", std::process::id());
            let (name, value) = variable.split_once('=').unwrap();
            command.env(name, value);
            let plain = str::to_owned;
            let limit = Duration::from_millis(300);
            if mark == "timeout" {
                let fault = run(command, limit, &mut log, &plain).await.unwrap_err();
                assert!(fault.what.contains("did not finish"), "{fault:?}");
            } else {
                let running = run(command, Duration::from_secs(600), &mut log, &plain);
                assert!(timeout(limit, running).await.is_err());
            }
            let ended = async {
                while !crate::adapter::procfs::with_variable(&variable).is_empty() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(Duration::from_secs(10), ended)
                .await
                .expect("nothing of it is left");
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_unavailable_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Writer::open(&dir.path().join("log")).unwrap();
        let missing = Command::new("no-such-program-here");
        let fault = run(missing, Duration::from_secs(1), &mut log, &str::to_owned)
            .await
            .unwrap_err();
        assert_eq!(fault.code, temps_ipc::Code::Unavailable);
        assert!(fault.what.contains("no-such-program-here"));
    }
}
