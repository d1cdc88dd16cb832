//! The work of a build as `temps up` does it: in this process and in children of it, under its user.

use super::command::{self, Finished};
use super::output::{Log, say};
use super::workshop::{Workshop, source};
use super::{BuildSettings, blocking, git, prepare, remove, space, system};
use crate::archive::{self, Links, Summary};
use crate::port::BuildJob;
use async_trait::async_trait;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use temps_ipc::Fault;
use temps_ipc::types::AppName;
use tokio::process::Command;

/// Gives a build command what a shell of its own would have, without core files.
pub(super) const SHELL: &str = "ulimit -c 0; umask 022; exec /bin/sh -c \"$1\"";

/// Works in this process.
#[derive(Debug)]
pub(super) struct Here(pub(super) BuildSettings);

impl Here {
    fn home(&self, app: &AppName) -> PathBuf {
        self.0.homes.join(app.as_str())
    }
}

#[async_trait]
impl Workshop for Here {
    async fn unpack(
        &self,
        archive: &Path,
        job: &BuildJob,
        _: &mut dyn Log,
    ) -> Result<Summary, Fault> {
        let root = prepare(&job.directory)?;
        let (archive, limits) = (archive.to_owned(), self.0.limits);
        blocking(move |cancelled| {
            let archive = File::open(archive).map_err(|error| system(&error))?;
            archive::unpack(archive, &root, limits, Links::Within, cancelled).map_err(Fault::from)
        })
        .await
    }

    async fn fetch(
        &self,
        url: &str,
        reference: Option<&str>,
        job: &BuildJob,
        log: &mut dyn Log,
    ) -> Result<String, Fault> {
        prepare(&job.directory)?;
        let limit = self.0.git_limit;
        let checkout = git::checkout(url, reference, &job.directory, limit, log).await?;
        let limits = self.0.limits;
        blocking(move |_| {
            archive::check_tree(&checkout.root, limits, Links::Within).map_err(Fault::from)
        })
        .await?;
        Ok(checkout.source)
    }

    async fn build(&self, command: &str, job: &BuildJob, log: &mut dyn Log) -> Result<(), Fault> {
        let (root, home) = (source(job), self.home(&job.app));
        let temporary = job.directory.join("tmp");
        for directory in [&home, &temporary] {
            fs::create_dir_all(directory).map_err(|error| system(&error))?;
        }
        let path = std::env::var_os("PATH").unwrap_or_else(|| command::PATH.into());
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", SHELL, "sh", command])
            .current_dir(&root)
            .env_clear()
            .env("PATH", path)
            .env("LANG", "C.UTF-8")
            .env("HOME", &home)
            .env("TMPDIR", &temporary)
            .envs(job.variables());
        let running = command::run(shell, self.0.build_limit, log, &str::to_owned);
        let finished = tokio::select! {
            finished = running => finished?,
            full = space::exhausted(vec![root.clone(), home.clone()]) => {
                say(log, "the build was stopped before it filled the disk");
                return Err(full);
            }
        };
        judge(command, &finished)?;
        remove(temporary).await?;
        let limits = self.0.built_limits();
        blocking(move |_| archive::check_tree(&root, limits, Links::Anywhere).map_err(Fault::from))
            .await
    }

    async fn forget(&self, app: &AppName) -> Result<(), Fault> {
        remove(self.home(app)).await
    }

    async fn kept(&self) -> Result<Vec<AppName>, Fault> {
        let homes = self.0.homes.clone();
        blocking(move |_| match fs::read_dir(homes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(system(&error)),
            Ok(homes) => Ok(homes
                .flatten()
                .filter_map(|home| home.file_name().to_string_lossy().parse().ok())
                .collect()),
        })
        .await
    }
}

/// What the end of the build command means.
fn judge(command: &str, finished: &Finished) -> Result<(), Fault> {
    use std::os::unix::process::ExitStatusExt;
    if finished.status.success() {
        return Ok(());
    }
    let how = command::how(finished.status.code(), finished.status.signal());
    Err(command::failed(command, &how, &finished.tail))
}
