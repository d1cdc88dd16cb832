//! What both packages need: the version, the architecture, the units and what is done with each, and a
//! staged tree with a stripped binary.

use crate::generated::root;
use crate::install::{self, Built, List, Package};
use crate::linked;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Who maintains the packages: the workspace's `authors`.
pub const MAINTAINER: &str = env!("CARGO_PKG_AUTHORS");
/// Where the project is found.
pub const HOMEPAGE: &str = env!("CARGO_PKG_HOMEPAGE");

/// What a package is made of, and where it goes.
#[derive(Debug, Args)]
pub struct Pack {
    /// The binary to pack [default: that of `cargo build --profile dist`]
    #[arg(long, value_name = "PATH")]
    pub bin: Option<PathBuf>,

    /// The directory for the package
    #[arg(long, value_name = "DIR", default_value = "target/packages")]
    pub out: PathBuf,

    /// A version other than that of Cargo.toml: for tests of an upgrade
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,

    /// Compress little: for tests
    #[arg(long)]
    pub fast: bool,
}

impl Pack {
    /// The version as Cargo.toml has it.
    pub fn version(&self) -> &str {
        self.version.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"))
    }

    /// The binary to pack.
    pub fn binary(&self) -> PathBuf {
        self.bin
            .clone()
            .unwrap_or_else(crate::install::usual_binary)
    }

    /// The directory for the package, made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn out(&self) -> Result<PathBuf> {
        let out = root().join(&self.out);
        std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
        Ok(out)
    }
}

/// A staged tree that goes when this is dropped.
#[derive(Debug)]
pub struct Staged {
    /// Its root: `tree` in a directory that holds nothing else.
    pub tree: PathBuf,
    /// The directory.
    pub work: TempDir,
}

/// Stages the files of a package, the binary without its symbols.
///
/// # Errors
/// When a file is missing, or `strip` is, or the binary needs more than every system has.
pub fn stage(list: &List, bin: &Path, package: Package) -> Result<Staged> {
    let work = tempfile::tempdir().context("making a directory to stage in")?;
    let tree = work.path().join("tree");
    install::there(bin)?;
    linked::check(bin)?;
    let notices = install::notices(bin)?;
    let built = Built {
        binary: bin,
        notices: &notices,
    };
    list.stage(&tree, &built, Some(package))?;
    strip(&tree.join("usr/bin/temps"))?;
    Ok(Staged { tree, work })
}

/// Takes from a binary what only a debugger reads.
///
/// # Errors
/// When there is no `strip`.
pub fn strip(path: &Path) -> Result<()> {
    said(
        Command::new("strip")
            .args(["--strip-unneeded", "--remove-section=.comment"])
            .arg(path),
    )?;
    Ok(())
}

/// What a program prints; an error unless it succeeds.
///
/// # Errors
/// With what it printed about it.
pub fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .output()
        .with_context(|| format!("{name} cannot be started"))?;
    ensure!(
        done.status.success(),
        "{name} failed: {}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// When the source was last changed, so that one commit makes one package: in seconds since 1970.
pub fn epoch() -> u64 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let commit = || {
        let mut git = Command::new("git");
        git.args(["log", "-1", "--format=%ct"]).current_dir(root());
        said(&mut git).ok()
    };
    given
        .or_else(commit)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_default()
}

/// The architecture a binary is for, as Debian and as Fedora call it.
///
/// # Errors
/// When it is no program for Linux that is packed.
pub fn architecture(bin: &Path) -> Result<(&'static str, &'static str)> {
    let mut head = Vec::new();
    std::fs::File::open(bin)
        .and_then(|file| file.take(20).read_to_end(&mut head))
        .with_context(|| format!("reading {}", bin.display()))?;
    // ELF: e_machine, little-endian at offset 18 (elf(5)).
    match (head.get(..4), head.get(18..20)) {
        (Some(b"\x7fELF"), Some([0x3e, 0])) => Ok(("amd64", "x86_64")),
        (Some(b"\x7fELF"), Some([0xb7, 0])) => Ok(("arm64", "aarch64")),
        _ => bail!("{} is no program for amd64 or arm64", bin.display()),
    }
}

/// The units of the package, by what its scripts do with them.
#[derive(Debug, PartialEq, Eq)]
pub struct Units {
    /// Enabled when the package is installed: those that say by whom they are wanted.
    pub enabled: Vec<String>,
    /// Sockets, which listen as long as the package is installed.
    pub sockets: Vec<String>,
    /// Timers.
    pub timers: Vec<String>,
    /// Services that may be running when the binary is replaced; the proxy is the last.
    pub daemons: Vec<String>,
    /// All that can be stopped.
    pub all: Vec<String>,
}

/// The service that is restarted last: requests pass through it.
pub const PROXY: &str = "temps-proxy.service";

impl Units {
    /// Sorts the units of the list.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn of(list: &List) -> Result<Self> {
        let mut units = Vec::new();
        for (name, path) in list.units() {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("reading {}", path.display()))?;
            units.push((name, text));
        }
        Ok(Self::sort(&units))
    }

    fn sort(units: &[(String, String)]) -> Self {
        let of = |wanted: &dyn Fn(&str, &str) -> bool| -> Vec<String> {
            let units = units.iter().filter(|(name, text)| wanted(name, text));
            units.map(|(name, _)| name.clone()).collect()
        };
        let mut daemons = of(&|name, text| {
            name.ends_with(".service")
                && !name.contains('@')
                && !has(text, "Type", "oneshot")
                // It stands in for the proxy, and only while that is restarted.
                && name != "temps-proxy-handover.service"
        });
        daemons.sort_by_key(|name| name == PROXY);
        Self {
            enabled: of(&|_, text| text.lines().any(|line| line.starts_with("WantedBy="))),
            sockets: of(&|name, _| name.ends_with(".socket")),
            timers: of(&|name, _| name.ends_with(".timer")),
            daemons,
            all: of(&|name, _| !name.contains('@') && !name.ends_with(".slice")),
        }
    }

    /// Replaces `@ENABLED@`, `@SOCKETS@`, `@TIMERS@`, `@DAEMONS@` and `@UNITS@` in a script.
    pub fn fill(&self, text: &str) -> String {
        [
            ("@ENABLED@", &self.enabled),
            ("@SOCKETS@", &self.sockets),
            ("@TIMERS@", &self.timers),
            ("@DAEMONS@", &self.daemons),
            ("@UNITS@", &self.all),
        ]
        .iter()
        .fold(text.to_owned(), |text, (name, units)| {
            text.replace(name, &units.join(" "))
        })
    }
}

fn has(text: &str, key: &str, value: &str) -> bool {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .any(|(found, says)| found == key && says == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    #[test]
    fn units_are_sorted_by_what_is_done_with_them() {
        let units = Units::sort(&[
            unit(PROXY, "[Service]\nType=notify\n[Install]\nWantedBy=x\n"),
            unit(
                "temps-deployd.service",
                "[Service]\nType=notify\n[Install]\nAlso=y\n",
            ),
            unit(
                "temps-deployd.socket",
                "[Install]\nWantedBy=sockets.target\n",
            ),
            unit("temps-failure@.service", "[Service]\nType=oneshot\n"),
            unit("temps-reconcile.service", "[Service]\nType=oneshot\n"),
            unit("temps-proxy-handover.service", "[Service]\nType=notify\n"),
            unit("temps.slice", ""),
        ]);
        assert_eq!(units.enabled, [PROXY, "temps-deployd.socket"]);
        assert_eq!(units.daemons, ["temps-deployd.service", PROXY]);
        assert_eq!(units.sockets, ["temps-deployd.socket"]);
        assert_eq!(units.all.len(), 5);
        assert_eq!(
            units.fill("for x in @SOCKETS@;"),
            "for x in temps-deployd.socket;"
        );
    }

    #[test]
    fn the_units_of_the_tree_are_known() {
        let units = Units::of(&List::read().unwrap()).unwrap();
        assert_eq!(units.daemons.last().map(String::as_str), Some(PROXY));
        for wanted in ["temps-proxy-http.socket", "temps.target", PROXY] {
            assert!(units.enabled.iter().any(|unit| unit == wanted), "{wanted}");
        }
    }

    #[test]
    fn a_script_is_no_program_for_an_architecture() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        std::fs::write(&path, "#!/bin/sh\necho a long enough script\n").unwrap();
        assert!(architecture(&path).is_err());
        let own = std::env::current_exe().unwrap();
        assert_eq!(architecture(&own).unwrap().1, std::env::consts::ARCH);
    }
}
