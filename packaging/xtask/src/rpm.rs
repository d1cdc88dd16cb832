//! `cargo xtask rpm`: the package for Fedora and its relatives, from the staged tree and
//! `packaging/rpm/temps.spec`. Debian's rpmbuild will do.

use crate::generated::root;
use crate::install::{List, Package};
use crate::pack::{HOMEPAGE, MAINTAINER, Pack, Units, architecture, epoch, said, stage};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories that belong to this package alone, with those below, and go with it.
const OWN: [&str; 3] = [
    "usr/libexec/temps",
    "usr/share/doc/temps",
    "usr/share/licenses/temps",
];

/// Builds the package; prints where it is.
///
/// # Errors
/// When something is missing, or rpmbuild fails.
pub fn run(pack: &Pack) -> Result<()> {
    let list = List::read()?;
    let staged = stage(&list, &pack.binary(), Package::Rpm)?;
    let (_, architecture) = architecture(&staged.tree.join("usr/bin/temps"))?;
    let work = staged.work.path();
    let files = work.join("files");
    std::fs::write(&files, entries(&staged.tree)?)?;

    let units = Units::of(&list)?;
    // rpm has no `-` in a version; `~` comes before the release, as in Debian.
    let version = pack.version().replacen('-', "~", 1);
    // As %changelog wants it: in English, without the time of day.
    let changed = said(
        Command::new("date")
            .env("LC_ALL", "C")
            .args(["--utc", "+%a %b %d %Y", "--date"])
            .arg(format!("@{}", epoch())),
    )?;
    let defines = [
        ("_topdir", work.join("rpm").display().to_string()),
        ("_rpmdir", work.join("out").display().to_string()),
        (
            "_rpmfilename",
            "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm".to_owned(),
        ),
        (
            "_binary_payload",
            if pack.fast { "w1.gzdio" } else { "w19.zstdio" }.to_owned(),
        ),
        ("temps_version", version.clone()),
        ("changed", changed.trim().to_owned()),
        ("homepage", HOMEPAGE.to_owned()),
        ("maintainer", MAINTAINER.to_owned()),
        ("staged", staged.tree.display().to_string()),
        ("list", files.display().to_string()),
        ("schema", temps::SCHEMA.to_string()),
        ("enabled", units.enabled.join(" ")),
        ("units", units.all.join(" ")),
        ("daemons", units.daemons.join(" ")),
    ];
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild
        .args(["-bb", "--target", architecture])
        .env("SOURCE_DATE_EPOCH", epoch().to_string());
    for (name, value) in defines {
        rpmbuild.arg("--define").arg(format!("{name} {value}"));
    }
    rpmbuild.arg(root().join("packaging/rpm/temps.spec"));
    said(&mut rpmbuild).context("building the package (apt-get install rpm)")?;

    let name = format!("temps-{version}-1.{architecture}.rpm");
    let package = pack.out()?.join(&name);
    std::fs::copy(work.join("out").join(&name), &package)
        .with_context(|| format!("rpmbuild did not make {name}"))?;
    println!("{}", package.display());
    Ok(())
}

/// The lines of `%files`.
fn entries(tree: &Path) -> Result<String> {
    let mut lines = vec!["%defattr(-,root,root,-)".to_owned()];
    let mut open = vec![tree.to_owned()];
    let mut directories = Vec::new();
    let mut paths = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
                directories.push(entry.path());
            } else {
                paths.push(entry.path());
            }
        }
    }
    let below = |paths: Vec<PathBuf>| -> Vec<PathBuf> {
        let paths = paths.iter();
        let mut below: Vec<PathBuf> = paths
            .filter_map(|path| Some(path.strip_prefix(tree).ok()?.to_owned()))
            .collect();
        below.sort();
        below
    };
    let own = below(directories).into_iter();
    let own = own.filter(|path| OWN.iter().any(|own| path.starts_with(own)));
    lines.extend(own.map(|path| format!("%dir /{}", path.display())));
    lines.extend(below(paths).iter().map(|path| {
        let text = path.display();
        if path.starts_with("usr/share/licenses") {
            format!("%license /{text}")
        } else if path.starts_with("usr/share/doc") || path.starts_with("usr/share/man") {
            format!("%doc /{text}")
        } else {
            format!("/{text}")
        }
    }));
    Ok(format!("{}\n", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_alone_and_what_is_read_is_marked_as_such() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "usr/bin/temps",
            "usr/share/man/man1/temps.1.gz",
            "usr/share/licenses/temps/LICENSE",
            "usr/share/doc/temps/examples/proxy.toml",
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let text = entries(dir.path()).unwrap();
        assert!(!text.contains("%dir /usr/bin"), "{text}");
        for line in [
            "/usr/bin/temps",
            "%doc /usr/share/man/man1/temps.1.gz",
            "%license /usr/share/licenses/temps/LICENSE",
            "%dir /usr/share/licenses/temps",
            "%dir /usr/share/doc/temps/examples",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in {text}"
            );
        }
    }
}
