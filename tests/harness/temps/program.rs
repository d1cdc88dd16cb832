//! Which program is tested, and in which environment.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::app;

/// The program with nothing of this environment that would lead it elsewhere.
pub(super) fn clean(program: &Path, runtime: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let is_ours = name.to_str().is_some_and(|name| name.starts_with("TEMPS_"));
        // A socket or watchdog of whoever runs the tests is not for us.
        let is_systemds = [
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
        ]
        .iter()
        .any(|known| name == *known);
        if is_ours || is_systemds {
            command.env_remove(name);
        }
    }
    command.env(super::RUNTIME_DIR, runtime);
    command
}

/// `$TEMPS_BIN`; else the program beside this test; else the one in the target directory.
///
/// # Errors
/// None of them exists.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TEMPS_BIN") {
        return Ok(PathBuf::from(path));
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|test| Some(test.parent()?.parent()?.join("temps")));
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| app::root().join("target"), PathBuf::from);
    let candidates = [beside, Some(target.join("debug/temps"))];
    let found = candidates.into_iter().flatten().find(|path| path.is_file());
    found.context("no temps to test: run `cargo build` first, or set TEMPS_BIN")
}
