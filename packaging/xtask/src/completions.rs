//! The completions of the command line, for the shells that Debian and Fedora ship.

use crate::generated;
use anyhow::{Context, Result};
use clap_complete::{Shell, generate};

/// Shell and file, by the names under which the shells look for them.
const FILES: [(Shell, &str); 3] = [
    (Shell::Bash, "packaging/completions/temps.bash"),
    (Shell::Zsh, "packaging/completions/_temps"),
    (Shell::Fish, "packaging/completions/temps.fish"),
];

/// Writes or checks them.
///
/// # Errors
/// When they differ from what they should be, or cannot be written.
pub fn run(check: bool) -> Result<()> {
    for (shell, path) in FILES {
        let mut bytes = Vec::new();
        generate(shell, &mut temps::cli::definition(), "temps", &mut bytes);
        let text =
            String::from_utf8(bytes).with_context(|| format!("the completions for {shell}"))?;
        generated::put(path, &text, check, "completions")?;
    }
    Ok(())
}
