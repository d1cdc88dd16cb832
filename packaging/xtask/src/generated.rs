//! Files that are made from a definition elsewhere: written, or compared with what they should be.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The root of the source tree.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // packaging/xtask
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Writes `text` to `path` (below the root); with `check` only compares.
///
/// # Errors
/// When they differ, or the file cannot be written.
pub fn put(path: &str, text: &str, check: bool, task: &str) -> Result<()> {
    let full = root().join(path);
    let present = std::fs::read_to_string(&full).unwrap_or_default();
    if present == text {
        return Ok(());
    }
    if check {
        bail!("{path} is not up to date: run `cargo xtask {task}` and commit what it writes");
    }
    if let Some(parent) = full.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("making the directory of {path}"))?;
    }
    std::fs::write(&full, text).with_context(|| format!("writing {path}"))?;
    println!("wrote {path}");
    Ok(())
}
