//! Where the work of a build is done that a stranger's content decides about: unpacking, fetching,
//! and the source's own build command.

use super::output::Log;
use crate::archive::Summary;
use crate::port::BuildJob;
use async_trait::async_trait;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use temps_ipc::Fault;
use temps_ipc::types::AppName;

/// Does that work, in the directory of a job. Dropping a future ends the work.
#[async_trait]
pub(super) trait Workshop: Send + Sync + Debug {
    /// Unpacks an archive as the job's [`source`].
    async fn unpack(
        &self,
        archive: &Path,
        job: &BuildJob,
        log: &mut dyn Log,
    ) -> Result<Summary, Fault>;

    /// Fetches a git repository as the job's [`source`]; says what was fetched, for people.
    async fn fetch(
        &self,
        url: &str,
        reference: Option<&str>,
        job: &BuildJob,
        log: &mut dyn Log,
    ) -> Result<String, Fault>;

    /// Runs the source's build command; afterwards the job's [`source`] is what it made of it.
    async fn build(&self, command: &str, job: &BuildJob, log: &mut dyn Log) -> Result<(), Fault>;

    /// Removes what is kept of the app from one build to the next.
    async fn forget(&self, app: &AppName) -> Result<(), Fault>;

    /// The apps of which something is kept.
    async fn kept(&self) -> Result<Vec<AppName>, Fault>;

    /// Ends what an earlier process left at work.
    async fn recover(&self) -> Result<(), Fault> {
        // What was a child of it ended with it.
        Ok(())
    }
}

/// Where the source of a job lies, and what becomes of it.
pub(super) fn source(job: &BuildJob) -> PathBuf {
    job.directory.join("root")
}
