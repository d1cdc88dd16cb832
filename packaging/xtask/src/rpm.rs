//! `cargo xtask rpm`: the package for Fedora and its relatives, from the staged tree and
//! `packaging/rpm/temps.spec`. Debian's rpmbuild will do.

use crate::generated::root;
use crate::install::{List, Package};
use crate::pack::{Pack, Units, architecture, said, stage};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories that belong to this package alone, and go with it.
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
        ("staged", staged.tree.display().to_string()),
        ("list", files.display().to_string()),
        ("schema", temps::SCHEMA.to_string()),
        ("enabled", units.enabled.join(" ")),
        ("units", units.all.join(" ")),
        ("daemons", units.daemons.join(" ")),
    ];
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.args(["-bb", "--target", architecture]);
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
    lines.extend(OWN.map(|directory| format!("%dir /{directory}")));
    let mut open = vec![tree.to_owned()];
    let mut paths = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                paths.push(entry.path());
            }
        }
    }
    paths.sort();
    let below: Vec<PathBuf> = paths
        .iter()
        .filter_map(|path| Some(path.strip_prefix(tree).ok()?.to_owned()))
        .collect();
    lines.extend(below.iter().map(|path| {
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
    fn manuals_and_licences_are_marked_as_such() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "usr/bin/temps",
            "usr/share/man/man1/temps.1.gz",
            "usr/share/licenses/temps/LICENSE",
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let text = entries(dir.path()).unwrap();
        for line in [
            "/usr/bin/temps",
            "%doc /usr/share/man/man1/temps.1.gz",
            "%license /usr/share/licenses/temps/LICENSE",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in {text}"
            );
        }
    }
}
