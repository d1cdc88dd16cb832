//! Runs a program to its end, or to a limit: its whole process group is killed then.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// More of a stream than this is cut off: a test prints pages, not volumes.
const OUTPUT_LIMIT: u64 = 16 << 20;
/// Short against every limit, long enough to cost nothing.
const POLL: Duration = Duration::from_millis(5);

/// What a program that ended left.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code, or 128 plus the signal that ended it, as a shell says it.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Whether the program exited 0.
    pub fn is_success(&self) -> bool {
        self.status == 0
    }

    /// The output itself if the program exited 0.
    ///
    /// # Errors
    /// Its status and stderr otherwise.
    pub fn success(self) -> Result<Self> {
        if !self.is_success() {
            bail!(
                "exit status {}\n{}{}",
                self.status,
                self.stdout,
                self.stderr
            );
        }
        Ok(self)
    }
}

/// Runs `command` with no stdin until it ends.
///
/// # Errors
/// It cannot be started, or runs longer than `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let Some(status) = wait(&mut child, limit)? else {
        kill_group(&child);
        child.wait().context("wait for a killed program")?;
        bail!(
            "{name} did not end within {limit:?}\n{}{}",
            joined(stdout),
            joined(stderr)
        );
    };
    // A child that outlived its parent may hold the pipes open; nothing waits for it for ever.
    kill_group_quietly(child.id());
    Ok(Output {
        status: code(status),
        stdout: joined(stdout),
        stderr: joined(stderr),
    })
}

/// Waits for `child` at most `limit`; `None` if it still runs then.
///
/// # Errors
/// The child cannot be waited for.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context("wait for a program")? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// The exit code, or 128 plus the signal.
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn kill_group(child: &Child) {
    kill_group_quietly(child.id());
}

fn kill_group_quietly(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // It fails only if the group is gone, which is what is wanted.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.by_ref().take(OUTPUT_LIMIT).read_to_end(&mut bytes);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        bytes
    })
}

fn joined(reader: thread::JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_and_the_code_come_back() {
        let output = run(
            &mut shell("echo out; echo err >&2; exit 3"),
            Duration::from_secs(5),
        )
        .expect("sh runs");
        assert_eq!(
            (output.status, &*output.stdout, &*output.stderr),
            (3, "out\n", "err\n")
        );
    }

    #[test]
    fn a_program_past_its_limit_is_killed_with_its_children() {
        let begun = Instant::now();
        let error = run(
            &mut shell("echo begun; sleep 60 & sleep 60"),
            Duration::from_millis(200),
        )
        .expect_err("it runs for a minute");
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert!(error.to_string().contains("begun"), "{error}");
    }

    #[test]
    fn an_end_by_signal_reads_as_in_a_shell() {
        let output = run(&mut shell("kill -9 $$"), Duration::from_secs(5)).expect("sh runs");
        assert_eq!(output.status, 137);
    }
}
