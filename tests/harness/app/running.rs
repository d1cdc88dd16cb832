//! A sample app run directly, without Temps: for suites that need only something that answers.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::App;
use crate::command::{self, Output};

/// An interpreter starts within a second, on a busy machine within a few.
const LISTEN_LIMIT: Duration = Duration::from_secs(20);
/// Longer than any delay a suite gives to a variant.
const END_LIMIT: Duration = Duration::from_secs(30);

/// An app that runs; its process group is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    addr: SocketAddr,
    output: TempDir,
    _app: App,
}

impl Running {
    pub(super) fn start(app: App, release: &str) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .context("find a free port")?
            .port();
        let output = tempfile::tempdir().context("directory")?;
        let stream = |name| File::create(output.path().join(name)).context("make a log");
        let mut command = match std::fs::read_to_string(app.path().join("Procfile")) {
            Ok(procfile) => {
                let line = procfile
                    .strip_prefix("web: ")
                    .context("a Procfile with a web line")?;
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("exec {line}")]);
                shell
            }
            Err(_) => Command::new(app.path().join("app")),
        };
        let child = command
            .current_dir(app.path())
            .env("HOST", "127.0.0.1")
            .env("PORT", port.to_string())
            .env("TEMPS_RELEASE", release)
            .stdin(Stdio::null())
            .stdout(stream("stdout")?)
            .stderr(stream("stderr")?)
            .process_group(0)
            .spawn()
            .context("start the app")?;
        Ok(Self {
            child,
            addr: (Ipv4Addr::LOCALHOST, port).into(),
            output,
            _app: app,
        })
    }

    /// Where it was told to listen.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits 22 bits on Linux")
    }

    /// Whether it listens where it was told to.
    pub fn is_listening(&self) -> bool {
        TcpStream::connect(self.addr).is_ok()
    }

    /// Waits until it listens where it was told to.
    ///
    /// # Errors
    /// It ended, or does not within 20 seconds.
    pub fn wait_until_listening(&mut self) -> Result<()> {
        let end = Instant::now() + LISTEN_LIMIT;
        while !self.is_listening() {
            if self.child.try_wait().context("wait")?.is_some() || Instant::now() >= end {
                bail!("the app does not listen\n{}", self.read("stderr"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// As [`Running::wait`].
    pub fn stop(self) -> Result<Output> {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).context("SIGTERM")?;
        self.wait()
    }

    /// Waits for it to end by itself; what it started may still run.
    ///
    /// # Errors
    /// It does not within 30 seconds.
    pub fn wait(mut self) -> Result<Output> {
        let status = command::wait(&mut self.child, END_LIMIT)?.context("the app does not end")?;
        Ok(Output {
            status: command::code(status),
            stdout: self.read("stdout"),
            stderr: self.read("stderr"),
        })
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.output.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails only if the group is gone.
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
