//! What CI checks before it runs the tests.

use crate::generated::root;
use crate::{completions, man};
use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// Checks form, lints, dependencies and generated files.
///
/// # Errors
/// The first check that fails.
pub fn run() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ])?;
    if has_deny() {
        cargo(&["deny", "--log-level", "error", "check"])?;
    } else {
        println!("SKIPPED cargo deny: not installed (cargo install cargo-deny)");
    }
    man::run(true)?;
    completions::run(true)?;
    println!("passed");
    Ok(())
}

fn has_deny() -> bool {
    let version = Command::new("cargo")
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

fn cargo(args: &[&str]) -> Result<()> {
    println!("cargo {}", args.join(" "));
    let status = Command::new("cargo")
        .args(args)
        .current_dir(root())
        .status()
        .context("cargo cannot be started")?;
    if !status.success() {
        bail!("cargo {} failed", args[0]);
    }
    Ok(())
}
