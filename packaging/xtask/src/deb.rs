//! `cargo xtask deb`: the Debian package, made by `dpkg-deb` from the staged tree and from
//! `packaging/deb/`, without debhelper: what its helpers would add is written out there, where it can be
//! read and differs from the usual (sockets that never stop, the proxy last).

use crate::generated::root;
use crate::install::{List, Package, gzip};
use crate::pack::{HOMEPAGE, MAINTAINER, Pack, Units, architecture, epoch, said, stage};
use anyhow::{Context, Result};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Scripts of the maintainer (deb-*(5)).
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// Builds the package; prints where it is.
///
/// # Errors
/// When something is missing, or one of Debian's tools fails.
pub fn run(pack: &Pack) -> Result<()> {
    let path = build(pack)?;
    println!("{}", path.display());
    Ok(())
}

/// Builds the package.
///
/// # Errors
/// As [`run`].
pub fn build(pack: &Pack) -> Result<PathBuf> {
    let list = List::read()?;
    let staged = stage(&list, &pack.binary(), Package::Deb)?;
    let (tree, version) = (&staged.tree, debian_version(pack.version()));
    let binary = tree.join("usr/bin/temps");
    let (architecture, _) = architecture(&binary)?;

    let copyright = tree.join("usr/share/doc/temps/copyright");
    let text = std::fs::read_to_string(&copyright).context("reading the copyright")?;
    std::fs::write(&copyright, text.replace("@HOMEPAGE@", HOMEPAGE))?;
    let changelog = tree.join("usr/share/doc/temps/changelog.Debian.gz");
    std::fs::write(&changelog, gzip(changes(&version)?.as_bytes())?)?;
    std::fs::set_permissions(&changelog, Permissions::from_mode(0o644))?;

    let libraries = libraries(&binary, staged.work.path())?;
    let (size, sums) = (installed_size(tree)?, sums(tree)?);
    let control = tree.join("DEBIAN");
    std::fs::create_dir(&control)?;
    std::fs::set_permissions(&control, Permissions::from_mode(0o755))?;
    let fill = |text: &str| {
        text.replace("@VERSION@", &version)
            .replace("@ARCHITECTURE@", architecture)
            .replace("@LIBRARIES@", &libraries)
            .replace("@SIZE@", &size.to_string())
            .replace("@SCHEMA@", &temps::SCHEMA.to_string())
            .replace("@MAINTAINER@", MAINTAINER)
            .replace("@HOMEPAGE@", HOMEPAGE)
    };
    let units = Units::of(&list)?;
    put(
        &control.join("control"),
        &fill(&template("control")?),
        0o644,
    )?;
    put(&control.join("md5sums"), &sums, 0o644)?;
    for script in SCRIPTS {
        let text = units.fill(&fill(&template(script)?));
        put(&control.join(script), &text, 0o755)?;
    }

    let package = pack
        .out()?
        .join(format!("temps_{version}_{architecture}.deb"));
    let compression: &[&str] = if pack.fast {
        &["-Zgzip", "-z1"]
    } else {
        &["-Zxz"]
    };
    said(
        Command::new("dpkg-deb")
            .arg("--root-owner-group")
            .args(compression)
            .env("SOURCE_DATE_EPOCH", epoch().to_string())
            .arg("--build")
            .args([tree, &package]),
    )?;
    Ok(package)
}

/// The version as Debian orders it: `1.0.0-rc.1` comes before `1.0.0`, and a revision follows.
fn debian_version(version: &str) -> String {
    format!("{}-1", version.replacen('-', "~", 1))
}

fn template(name: &str) -> Result<String> {
    let path = root().join("packaging/deb").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

fn put(path: &Path, text: &str, mode: u32) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(())
}

/// The changes of the package itself; those of the program are in `changelog.gz`.
fn changes(version: &str) -> Result<String> {
    let date = said(
        Command::new("date")
            .args(["--utc", "--rfc-email", "--date"])
            .arg(format!("@{}", epoch())),
    )?;
    Ok(format!(
        "temps ({version}) unstable; urgency=medium\n\n  * Temps as of this version: changelog.gz says what is new.\n\n -- {MAINTAINER}  {}\n",
        date.trim()
    ))
}

/// The libraries that the binary is linked with, as packages; nothing if it is static.
fn libraries(binary: &Path, work: &Path) -> Result<String> {
    // All that dpkg-shlibdeps wants of a source tree.
    std::fs::create_dir_all(work.join("debian"))?;
    std::fs::write(
        work.join("debian/control"),
        "Source: temps\n\nPackage: temps\nArchitecture: any\n",
    )?;
    let output = said(
        Command::new("dpkg-shlibdeps")
            .args(["-O", "-e"])
            .arg(binary)
            .current_dir(work),
    )
    .context("which packages the binary needs is not known (apt-get install dpkg-dev)")?;
    let depends = output
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="))
        .unwrap_or_default();
    Ok(if depends.is_empty() {
        String::new()
    } else {
        format!("{depends}, ")
    })
}

/// KiB on the disk, as Debian counts: each file rounded up, one for everything else.
fn installed_size(tree: &Path) -> Result<u64> {
    let mut size = 0;
    for (path, is_file) in walk(tree)? {
        size += match is_file {
            true => path.metadata()?.len().div_ceil(1024),
            false => 1,
        };
    }
    Ok(size)
}

/// The checksums of the files, for `dpkg --verify`.
fn sums(tree: &Path) -> Result<String> {
    let files = walk(tree)?.into_iter().filter(|(_, is_file)| *is_file);
    let files = files.filter_map(|(path, _)| Some(path.strip_prefix(tree).ok()?.to_owned()));
    said(Command::new("md5sum").args(files).current_dir(tree))
}

/// Everything below `tree` in a fixed order, and whether it is a file.
fn walk(tree: &Path) -> Result<Vec<(PathBuf, bool)>> {
    let mut found = Vec::new();
    let mut open = vec![tree.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory)? {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
            let kind = kind?;
            if kind.is_dir() {
                open.push(path.clone());
            }
            found.push((path, kind.is_file()));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_before_a_release_is_lower_than_the_release() {
        assert_eq!(debian_version("0.1.0"), "0.1.0-1");
        assert_eq!(debian_version("0.1.0-rc.1"), "0.1.0~rc.1-1");
    }

    #[test]
    fn scripts_never_ask_and_are_for_any_shell() {
        for script in SCRIPTS {
            let text = template(script).unwrap();
            assert!(text.starts_with("#!/bin/sh\n"), "{script}");
            assert!(text.contains("set -e"), "{script}");
            assert!(!text.contains("debconf"), "{script} asks");
        }
    }
}
