//! The sample apps of tests/apps, made ready to deploy.

mod running;

pub use running::Running;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::command;

/// Making the container app compiles it once.
const MAKE_LIMIT: Duration = Duration::from_secs(120);

/// A sample app in a directory that goes when this is dropped.
#[derive(Debug)]
pub struct App {
    dir: TempDir,
}

impl App {
    /// Where the app lies.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The same as text, for an argument of a command.
    pub fn arg(&self) -> &str {
        self.dir
            .path()
            .to_str()
            .expect("the directory was named by us, in ASCII")
    }
}

impl App {
    /// Runs it directly, on a free port of 127.0.0.1, as `release`. It may not listen yet.
    ///
    /// # Errors
    /// What would run it is missing.
    pub fn start(self, release: &str) -> Result<Running> {
        Running::start(self, release)
    }
}

impl AsRef<OsStr> for App {
    fn as_ref(&self) -> &OsStr {
        self.dir.path().as_os_str()
    }
}

/// Makes `app` (`static`, `python`, `node`, `container`) with the given variant
/// (`NAME[:SECONDS]`, see tests/apps/README.md) and version.
///
/// # Errors
/// The maker's own message.
pub fn make(app: &str, variant: &str, version: &str) -> Result<App> {
    let dir = tempfile::Builder::new()
        .prefix("app-")
        .tempdir()
        .context("make a directory")?;
    let mut maker = Command::new(root().join("tests/apps/make"));
    maker.args([app, variant, version]).arg(dir.path());
    command::run(&mut maker, MAKE_LIMIT)?
        .success()
        .with_context(|| format!("make {app} {variant} {version}"))?;
    Ok(App { dir })
}

/// The top of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in a folder of the tree")
        .to_owned()
}

#[cfg(test)]
mod tests;
