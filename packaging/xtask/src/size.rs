//! `cargo xtask size`: how large the binary and the Debian package are.

use crate::pack::{Pack, strip};
use crate::{deb, pack};
use anyhow::{Context, Result};
use std::path::Path;

/// Prints the sizes.
///
/// # Errors
/// When there is no binary, or no package can be made of it.
pub fn run(pack: &Pack) -> Result<()> {
    let binary = pack.binary();
    let dir = tempfile::tempdir()?;
    let stripped = dir.path().join("temps");
    std::fs::copy(&binary, &stripped).with_context(|| format!("reading {}", binary.display()))?;
    strip(&stripped)?;
    let (architecture, _) = pack::architecture(&binary)?;
    let package = deb::build(pack)?;
    say("binary as built", &binary, architecture)?;
    say("binary, stripped", &stripped, architecture)?;
    say("package", &package, architecture)
}

fn say(what: &str, path: &Path, architecture: &str) -> Result<()> {
    let bytes = path.metadata()?.len();
    println!("{what:<18} {architecture} {} ({bytes} bytes)", mega(bytes));
    Ok(())
}

/// Megabytes of 1000 kB, with one digit.
fn mega(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        assert_eq!(mega(30_000_000), "30.0 MB");
        assert_eq!(mega(30_000_001), "30.1 MB");
        assert_eq!(mega(1), "0.1 MB");
    }
}
