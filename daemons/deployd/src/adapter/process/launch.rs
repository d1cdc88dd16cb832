//! Starts an instance's supervisor and hands it what to run.
//!
//! Three descriptors carry everything, so that nothing is in an argument or a file: standard input
//! is the [`LaunchSpec`] as JSON (variables are secrets), standard output is the locked file, and
//! on standard error the supervisor answers with a [`Report`].

use super::directory::InstanceDirectory;
use super::{shim, unavailable};
use crate::port::{Artifact, InstanceSpec, RuntimeError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::types::{Address, RuntimeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

/// How long a supervisor may take to start the app; it takes milliseconds.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Longest answer of a supervisor in bytes.
const MAX_REPORT: u64 = 16 * 1024;

/// What a supervisor runs.
#[derive(Serialize, Deserialize)]
pub(super) struct LaunchSpec {
    /// The instance's directory.
    pub(super) instance: PathBuf,
    /// The release directory: where the command runs.
    pub(super) root: PathBuf,
    /// For `/bin/sh -c`.
    pub(super) command: String,
    /// The whole environment.
    pub(super) env: BTreeMap<String, String>,
    /// The log file.
    pub(super) log: PathBuf,
}

/// How the start went.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Report {
    /// The app was started.
    Started,
    /// It cannot be started: its command or directory is at fault.
    Refused(String),
    /// The system is at fault.
    Failed(String),
}

pub(super) async fn launch(
    shim: &Path,
    path: &str,
    directory: &InstanceDirectory,
    spec: &InstanceSpec,
) -> Result<(), RuntimeError> {
    let launch = launch_spec(path, directory, spec)?;
    let Some(lock) = directory.lock().map_err(unavailable)? else {
        return Ok(());
    };
    if !directory.has_exit_record() {
        // Nothing of a run whose supervisor was killed may hold the port.
        let id = spec.id.clone();
        super::blocking(move || super::kill_leftovers(&id)).await?;
    }
    directory.forget_last_run().map_err(unavailable)?;

    let report = start_supervisor(shim, lock, spec, &launch).await;
    let failure = match report {
        Ok(Report::Started) => return Ok(()),
        Ok(Report::Refused(why)) => RuntimeError::Refused(Fault::invalid(why)),
        Ok(Report::Failed(why)) => RuntimeError::Unavailable(Fault::unavailable(why)),
        Err(error) => unavailable(error),
    };
    let directory = directory.clone();
    let id = spec.id.clone();
    super::stop(directory, id, Duration::ZERO)
        .await
        .map_err(unavailable)?;
    Err(failure)
}

async fn start_supervisor(
    shim: &Path,
    lock: std::fs::File,
    spec: &InstanceSpec,
    launch: &LaunchSpec,
) -> io::Result<Report> {
    let mut child = {
        let mut command = Command::new(shim);
        command
            .arg0(shim::INSTANCE_APPLET.name)
            // Only for those who read the list of processes.
            .arg(spec.id.as_str())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::from(lock))
            .stderr(Stdio::piped());
        // Dropped here with our copy of the lock, which is the supervisor's alone from now on.
        command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", shim.display())))?
    };
    let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    // It outlives us; as long as we are there, we are its parent and must collect its status.
    tokio::spawn(async move { child.wait().await });
    let exchange = async {
        let text = serde_json::to_vec(launch)?;
        stdin.write_all(&text).await?;
        stdin.shutdown().await?;
        drop(stdin);
        let mut answer = Vec::new();
        (&mut stderr)
            .take(MAX_REPORT)
            .read_to_end(&mut answer)
            .await?;
        serde_json::from_slice(&answer).map_err(|_| {
            let said = String::from_utf8_lossy(&answer).trim().to_owned();
            io::Error::other(format!("the supervisor ended without an answer: {said}"))
        })
    };
    timeout(START_LIMIT, exchange)
        .await
        .map_err(|_| io::Error::other("the supervisor did not start the app in time"))?
}

fn launch_spec(
    path: &str,
    directory: &InstanceDirectory,
    spec: &InstanceSpec,
) -> Result<LaunchSpec, RuntimeError> {
    let Artifact::Directory { root, command } = &spec.artifact else {
        return Err(RuntimeError::Refused(Fault::invalid(format!(
            "release {} is not made for the {} runtime",
            spec.release,
            RuntimeKind::Process
        ))));
    };
    let Address::Tcp(address) = &spec.address else {
        return Err(RuntimeError::Refused(Fault::invalid(
            "the process runtime needs a TCP address",
        )));
    };
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("PATH", path.to_owned());
    set("LANG", "C.UTF-8".to_owned());
    set("HOME", directory.home().display().to_string());
    set("TMPDIR", directory.temporary().display().to_string());
    for var in &spec.env {
        // The supervisor needs the plain text to start the app with.
        set(var.name.as_str(), var.value.reveal().to_owned());
    }
    set("HOST", address.ip().to_string());
    set("PORT", address.port().to_string());
    set("TEMPS_APP", spec.app.to_string());
    set("TEMPS_RELEASE", spec.release.to_string());
    set("TEMPS_INSTANCE", spec.id.to_string());
    set("TEMPS_APP_URL", spec.url.clone());
    Ok(LaunchSpec {
        instance: directory.path().to_owned(),
        root: root.clone(),
        command: command.clone(),
        env,
        log: spec.log.clone(),
    })
}
