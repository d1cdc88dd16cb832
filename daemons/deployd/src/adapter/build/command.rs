//! Runs a program of the system for a build: its output goes into the build log, it ends when the
//! build does, and no build waits for it for ever.

use super::{say, system};
use crate::logfile::{Splitter, Writer, clean};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::types::LogStream;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

/// How many of the last lines are kept for the message of a failure.
const TAIL: usize = 20;

/// Longest line kept for it.
const MAX_TAIL_LINE: usize = 1_000;

/// How a program ended, and what it said last.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    /// The last lines of both outputs.
    pub(super) tail: VecDeque<String>,
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
    log: &mut Writer,
    redact: &(dyn Fn(&str) -> String + Sync),
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
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let mut chunks = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let finish = async {
        while stdout.is_some() || stderr.is_some() {
            tokio::select! {
                read = read(&mut stdout, &mut chunks.0) => outputs.take(0, &chunks.0[..read?], log, redact),
                read = read(&mut stderr, &mut chunks.1) => outputs.take(1, &chunks.1[..read?], log, redact),
            }
        }
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
    outputs.finish(log, redact);
    Ok(Finished {
        status,
        tail: outputs.tail,
    })
}

/// Reads what there is; at the end the stream is taken away, and nothing is ever read again.
async fn read(from: &mut Option<impl AsyncRead + Unpin>, into: &mut [u8]) -> io::Result<usize> {
    let Some(stream) = from else {
        return std::future::pending().await;
    };
    let length = stream.read(into).await?;
    if length == 0 {
        *from = None;
    }
    Ok(length)
}

/// Both outputs on their way into the log.
struct Outputs {
    partial: [Vec<u8>; 2],
    tail: VecDeque<String>,
}

impl Outputs {
    fn new() -> Self {
        Self {
            partial: [Vec::new(), Vec::new()],
            tail: VecDeque::new(),
        }
    }

    fn take(
        &mut self,
        output: usize,
        bytes: &[u8],
        log: &mut Writer,
        redact: &(dyn Fn(&str) -> String + Sync),
    ) {
        for &byte in bytes {
            // Progress that draws over itself is one line per state.
            if byte == b'\n' || byte == b'\r' {
                self.finish_line(output, log, redact);
            } else if self.partial[output].len() < crate::logfile::MAX_LINE {
                self.partial[output].push(byte);
            }
        }
        log.flush();
    }

    fn finish(&mut self, log: &mut Writer, redact: &(dyn Fn(&str) -> String + Sync)) {
        for output in 0..2 {
            self.finish_line(output, log, redact);
        }
        log.flush();
    }

    fn finish_line(
        &mut self,
        output: usize,
        log: &mut Writer,
        redact: &(dyn Fn(&str) -> String + Sync),
    ) {
        if self.partial[output].is_empty() {
            return;
        }
        let line = redact(&clean(&self.partial[output]));
        self.partial[output].clear();
        let stream = if output == 0 {
            LogStream::Stdout
        } else {
            LogStream::Stderr
        };
        let mut splitter = Splitter::new(stream);
        splitter.feed(line.as_bytes(), log);
        splitter.finish(log);
        self.tail
            .push_back(line.chars().take(MAX_TAIL_LINE).collect());
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logfile::Reader;

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
