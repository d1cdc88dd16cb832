//! Runs the units of builds as children, without their sandbox: what is tested with it is everything but
//! the service manager.

use async_trait::async_trait;
use std::process::Stdio;
use temps_deployd::adapter::build::units::end::End;
use temps_deployd::adapter::build::units::launch::{Launcher, Streams};
use temps_deployd::adapter::build::units::unit::{Identity, PROGRAM, Unit};
use temps_ipc::Fault;
use tokio::process::Command;

/// Where caches are, in place of `/var/cache`.
#[derive(Debug)]
pub struct Children(pub std::path::PathBuf);

#[async_trait]
impl Launcher for Children {
    async fn run(&self, unit: Unit, streams: Streams) -> Result<End, Fault> {
        let program = match unit.command[0].as_str() {
            PROGRAM => env!("CARGO_BIN_EXE_temps-job-for-tests"),
            other => other,
        };
        let mut command = Command::new(program);
        command
            .args(&unit.command[1..])
            .stdin(Stdio::from(streams.stdin))
            .stdout(Stdio::from(streams.stdout))
            .stderr(Stdio::from(streams.stderr))
            .process_group(0)
            .kill_on_drop(true);
        let mut passing = Vec::new();
        match &unit.identity {
            Identity::Owner { directory } => {
                command.current_dir(directory);
            }
            Identity::Stranger {
                work,
                temporary,
                home,
                ..
            } => {
                passing = vec![self.0.join(work), self.0.join(temporary)];
                empty(&passing);
                command.current_dir(&passing[0]).env("TMPDIR", &passing[1]);
                if let Some(home) = home.as_ref().map(|home| self.0.join(home)) {
                    std::fs::create_dir_all(&home).unwrap();
                    command.env("HOME", home);
                }
            }
        }
        let mut child = command.spawn().unwrap();
        drop(command);
        let ended = tokio::time::timeout(unit.limits.time, child.wait()).await;
        empty(&passing);
        let failure = |result: &str, status| End::Failure {
            result: result.to_owned(),
            status,
        };
        Ok(match ended {
            Ok(status) => match status.unwrap().code() {
                Some(0) => End::Success,
                Some(status) => failure("exit-code", status),
                None => failure("signal", 9),
            },
            Err(_) => {
                let group = nix::unistd::Pid::from_raw(child.id().unwrap() as i32);
                nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
                failure("timeout", 9)
            }
        })
    }

    async fn sweep(&self) -> Result<(), Fault> {
        Ok(())
    }
}

fn empty(directories: &[std::path::PathBuf]) {
    for directory in directories {
        let _ = std::fs::remove_dir_all(directory);
        std::fs::create_dir_all(directory).unwrap();
    }
}
