//! The real binary: `temps up` in directories of its own, and the operator's commands against it.
//!
//! Dropping a [`Temps`] ends everything it started: the supervisor's process group and what
//! [`Temps::leftovers`] finds.

mod deployed;
mod program;
mod ready;

pub use deployed::Deployed;
pub use program::binary;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::command::{self, Output};
use crate::docker;
use crate::process::{self, Process};
use program::clean;
use ready::Ready;

const RUNTIME_DIR: &str = "TEMPS_RUNTIME_DIR";
const RELEASE: &str = "TEMPS_RELEASE";
/// A first start makes keys and databases, on a machine that may be compiling meanwhile.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// A deployment builds an image; nothing an operator types may take longer in a test.
const RUN_LIMIT: Duration = Duration::from_secs(300);
/// Longer than the drain of a proxy with a long request.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// So long a failed test waits for an orderly end before it kills.
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// How to start; the default is a new, empty instance.
#[derive(Debug, Default)]
pub struct Options {
    /// The program, instead of `$TEMPS_BIN` or the one cargo built.
    pub program: Option<PathBuf>,
    /// An existing state directory, to start again over; the caller keeps it, and drops the
    /// instance that used it before, which would take this one's apps for its own.
    pub state: Option<PathBuf>,
    /// More environment for `temps up`, and so for its daemons.
    pub env: Vec<(String, String)>,
    /// More arguments for `temps up`.
    pub args: Vec<String>,
    /// Instead of port 0: to come back where clients look.
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    /// The test deploys containers: what carries a label with one of its releases is removed at
    /// the end.
    pub docker: bool,
}

/// A running instance.
#[derive(Debug)]
pub struct Temps {
    program: PathBuf,
    child: Child,
    ready: Ready,
    state: PathBuf,
    runtime: TempDir,
    home: TempDir,
    docker: bool,
    releases: Mutex<BTreeSet<String>>,
    /// What the engine's labels call this instance; images carry nothing else.
    installation: OnceLock<String>,
    is_abandoned: bool,
}

impl Temps {
    /// Starts `temps up` on free ports and waits until it serves.
    ///
    /// # Errors
    /// There is no binary, or it is not ready in time: its log is in the error.
    pub fn up(options: Options) -> Result<Self> {
        let program = options.program.map_or_else(binary, Ok)?;
        let home = tempfile::Builder::new()
            .prefix("temps-test-")
            .tempdir()
            .context("directory")?;
        // The path of a Unix socket is limited to 107 bytes.
        let runtime = tempfile::Builder::new()
            .prefix("t-")
            .tempdir_in("/tmp")
            .context("directory")?;
        let state = options.state.unwrap_or_else(|| home.path().join("state"));
        let log = home.path().join("log");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut child = clean(&program, runtime.path())
            .arg("up")
            .arg("--state")
            .arg(&state)
            .arg("--http")
            .arg(options.http.unwrap_or(any).to_string())
            .arg("--https")
            .arg(options.https.unwrap_or(any).to_string())
            .args(options.args)
            .envs(options.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).context("make the log")?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let ready = ready::wait(&mut child, READY_LIMIT);
        let mut temps = Self {
            program,
            child,
            // Replaced below; until then Drop needs the rest of the instance.
            ready: Ready::default(),
            state,
            runtime,
            home,
            docker: options.docker,
            releases: Mutex::default(),
            installation: OnceLock::new(),
            is_abandoned: false,
        };
        temps.ready = ready.with_context(|| format!("its log:\n{}", temps.log()))?;
        Ok(temps)
    }

    /// Runs an operator's command against this instance.
    ///
    /// # Errors
    /// It cannot be started or does not end; a refusal is no error here.
    pub fn run<I>(&self, arguments: I) -> Result<Output>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut command = self.command(arguments);
        let output = command::run(&mut command, RUN_LIMIT)?;
        self.remember(&output.stdout);
        Ok(output)
    }

    /// The same command, for a test that runs it in its own way.
    pub fn command<I>(&self, arguments: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut command = clean(&self.program, self.runtime.path());
        command.args(arguments);
        command
    }

    /// `temps deploy ARGUMENTS --json`, whatever its outcome: see [`Deployed::status`].
    ///
    /// # Errors
    /// It does not end with the one JSON object that it promises.
    pub fn deploy_json<I>(&self, arguments: I) -> Result<Deployed>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut all = vec![OsString::from("deploy")];
        all.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        all.push(OsString::from("--json"));
        // `run` has kept the release's name.
        Deployed::parse(self.run(all)?)
    }

    /// Where HTTP is served.
    pub fn http(&self) -> SocketAddr {
        self.ready.http
    }

    /// Where HTTPS is served.
    pub fn https(&self) -> SocketAddr {
        self.ready.https
    }

    /// The port of [`Temps::http`].
    pub fn http_port(&self) -> u16 {
        self.ready.http.port()
    }

    /// The port of [`Temps::https`].
    pub fn https_port(&self) -> u16 {
        self.ready.https.port()
    }

    /// The `Host` header under which `app` answers over HTTP.
    pub fn host(&self, app: &str) -> String {
        format!("{app}.localhost:{}", self.http_port())
    }

    /// The same over HTTPS.
    pub fn https_host(&self, app: &str) -> String {
        format!("{app}.localhost:{}", self.https_port())
    }

    /// The state directory, as `temps up` was told.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// `TEMPS_RUNTIME_DIR`.
    pub fn runtime_dir(&self) -> &Path {
        self.runtime.path()
    }

    /// What `temps up` and its daemons wrote on stderr so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.home.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The pid of the supervisor, `temps up` itself.
    pub fn pid(&self) -> i32 {
        pid_of(&self.child)
    }

    /// The pid of a daemon (`deployd` for `temps-deployd`); `None` if it does not run.
    pub fn daemon_pid(&self, name: &str) -> Option<i32> {
        let name = format!("temps-{name}");
        let all = process::all();
        let ours = self.descendants(&all);
        all.iter()
            .filter(|process| process.name() == name && process.state != 'Z')
            .find(|process| ours.contains(&process.pid) || self.carries_runtime_dir(process))
            .map(|process| process.pid)
    }

    /// Kills a daemon with SIGKILL and returns the pid it had.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_daemon(&self, name: &str) -> Result<i32> {
        let pid = self
            .daemon_pid(name)
            .with_context(|| format!("no temps-{name} runs"))?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("kill -9")?;
        Ok(pid)
    }

    /// Every process of this instance but the supervisor: those that descend from it, carry its
    /// runtime directory, run a release that a command named, or work in its state directory or
    /// have a file there open. Zombies do not count.
    pub fn leftovers(&self) -> Vec<Process> {
        let all = process::all();
        let ours = self.descendants(&all);
        let me = i32::try_from(std::process::id()).ok();
        let state = self
            .state
            .canonicalize()
            .unwrap_or_else(|_| self.state.clone());
        all.into_iter()
            .filter(|process| process.pid != self.pid() && Some(process.pid) != me)
            .filter(|process| process.state != 'Z')
            .filter(|process| {
                ours.contains(&process.pid)
                    || self.carries_runtime_dir(process)
                    || self.runs_a_release(process)
                    || process.uses(&state)
            })
            .collect()
    }

    /// SIGTERM, then waits for the end; returns the exit status, as a shell says it.
    ///
    /// # Errors
    /// It does not end within a minute.
    pub fn stop(&mut self) -> Result<i32> {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).context("SIGTERM")?;
        match command::wait(&mut self.child, STOP_LIMIT)? {
            Some(status) => Ok(command::code(status)),
            None => bail!(
                "temps up still runs after {STOP_LIMIT:?}; its log:\n{}",
                self.log()
            ),
        }
    }

    /// Kills the supervisor alone with SIGKILL, as an out-of-memory kill would.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill_supervisor(&mut self) -> Result<()> {
        self.child.kill().context("kill -9")?;
        self.child.wait().context("wait").map(drop)
    }

    /// What the container engine's labels call it, once a container of it was seen.
    pub fn installation(&self) -> Option<String> {
        self.installation.get().cloned()
    }

    /// Lets go of it without ending anything, for a successor over the same state to find what a
    /// killed supervisor left.
    pub fn abandon(mut self) {
        self.is_abandoned = true;
    }

    /// None once the supervisor was waited for: its pid may be another's by then.
    fn descendants(&self, all: &[Process]) -> Vec<i32> {
        let me = i32::try_from(std::process::id()).ok();
        let is_ours = |process: &Process| process.pid == self.pid() && Some(process.parent) == me;
        if all.iter().any(is_ours) {
            process::descendants(all, self.pid())
        } else {
            Vec::new()
        }
    }

    fn carries_runtime_dir(&self, process: &Process) -> bool {
        let value = process.environment.get(RUNTIME_DIR);
        value.is_some_and(|value| Path::new(value) == self.runtime.path())
    }

    fn runs_a_release(&self, process: &Process) -> bool {
        let release = process.environment.get(RELEASE);
        release.is_some_and(|release| self.releases().contains(release))
    }

    /// Keeps the releases that a command named, so that what runs them is known as ours.
    fn remember(&self, stdout: &str) {
        let words = stdout.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let releases = words.filter(|word| word.len() > 4 && word.starts_with("rel_"));
        self.releases().extend(releases.map(str::to_owned));
        if self.docker && self.installation.get().is_none() {
            let known = self.releases().clone();
            if let Ok(Some(found)) = docker::installation(&known) {
                // Another thread found the same.
                let _ = self.installation.set(found);
            }
        }
    }

    fn releases(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.releases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Temps {
    fn drop(&mut self) {
        if self.is_abandoned {
            return;
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
            let _ = command::wait(&mut self.child, DROP_LIMIT);
        }
        // Looked for before the supervisor is killed: a descendant is known by its parents.
        let end = Instant::now() + DROP_LIMIT;
        loop {
            let left = self.leftovers();
            left.iter()
                .for_each(|process| process::kill_now(process.pid));
            let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
            if left.is_empty() || Instant::now() >= end {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.docker {
            let mut ours: Vec<String> = self.releases().iter().cloned().collect();
            ours.extend(self.installation.get().cloned());
            let _ = docker::remove(&ours);
        }
        if thread::panicking() {
            eprintln!("--- log of temps up\n{}---", self.log());
        }
    }
}

fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a pid fits 22 bits on Linux")
}

#[cfg(test)]
mod tests;
