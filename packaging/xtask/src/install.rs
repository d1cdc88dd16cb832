//! `cargo xtask install`: puts the files of `packaging/install.toml` into a tree. The packages and the
//! tests' roots are made from such a tree, so that there is one list of what is installed.

use crate::generated::root;
use crate::pack::architecture;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

/// The list, below the root of the tree.
const LIST: &str = "packaging/install.toml";
/// The source that is not a file of the tree.
const BINARY: &str = "temps";

/// Which package the tree is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Package {
    /// Debian's.
    Deb,
    /// Fedora's.
    Rpm,
}

/// What is installed, and where.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    file: Vec<File>,
    generated: Vec<Generated>,
    link: Vec<Link>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: PathBuf,
    dest: PathBuf,
    #[serde(default = "readable")]
    mode: String,
    #[serde(default)]
    compress: bool,
    only: Option<Package>,
}

/// What is made while the package is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Generated {
    task: Task,
    dest: PathBuf,
    #[serde(default)]
    compress: bool,
    only: Option<Package>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Task {
    Notices,
}

/// What is built before anything is staged.
#[derive(Debug)]
pub struct Built<'a> {
    /// The program.
    pub binary: &'a Path,
    /// The notices of what is compiled into it ([`crate::notices`]).
    pub notices: &'a str,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    path: PathBuf,
    target: PathBuf,
}

fn readable() -> String {
    "0644".to_owned()
}

/// Stages everything below `destdir`; with a package only what belongs into it.
///
/// # Errors
/// When the list or a file that it names is wrong, or the tree cannot be written.
pub fn run(destdir: &Path, bin: &Path, package: Option<Package>) -> Result<()> {
    there(bin)?;
    let notices = notices(bin)?;
    let built = Built {
        binary: bin,
        notices: &notices,
    };
    List::read()?.stage(destdir, &built, package)
}

/// The notices of what a binary holds.
///
/// # Errors
/// When it is no program, or they cannot be made.
pub fn notices(bin: &Path) -> Result<String> {
    let (_, architecture) = architecture(bin)?;
    crate::notices::text(architecture)
}

/// That a binary was built.
///
/// # Errors
/// With how it is built, if it was not.
pub fn there(bin: &Path) -> Result<()> {
    ensure!(
        bin.is_file(),
        "{} is not there: `cargo build --profile dist --package temps` builds it, or name another with --bin",
        bin.display()
    );
    Ok(())
}

/// The binary that is packed unless another one is named.
pub fn usual_binary() -> PathBuf {
    target_dir().join("dist").join(BINARY)
}

/// Where cargo builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

impl List {
    /// Reads it.
    ///
    /// # Errors
    /// When it is wrong.
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string(root().join(LIST))
            .with_context(|| format!("reading {LIST}"))?;
        let list: Self = toml::from_str(&text).with_context(|| format!("reading {LIST}"))?;
        for path in list.paths() {
            let plain = |part| matches!(part, Component::Normal(_));
            ensure!(
                path.components().all(plain),
                "{LIST}: {} does not stay below the root",
                path.display()
            );
        }
        Ok(list)
    }

    /// Puts everything below `destdir`.
    ///
    /// # Errors
    /// When a file is missing, or the tree cannot be written.
    pub fn stage(&self, destdir: &Path, built: &Built<'_>, package: Option<Package>) -> Result<()> {
        for file in self.of(package) {
            let source = if file.source == Path::new(BINARY) {
                built.binary.to_owned()
            } else {
                root().join(&file.source)
            };
            file.put(&source, destdir)
                .with_context(|| format!("installing {}", file.source.display()))?;
        }
        for made in &self.generated {
            if belongs(made.only, package) {
                made.put(built, destdir)
                    .with_context(|| format!("installing {}", made.dest.display()))?;
            }
        }
        for link in &self.link {
            let path = destdir.join(&link.path);
            make_parents(&path)?;
            if path.is_symlink() {
                std::fs::remove_file(&path)?;
            }
            symlink(&link.target, &path).with_context(|| format!("linking {}", path.display()))?;
        }
        Ok(())
    }

    /// The units of a package, by name, with where they are in the tree.
    pub fn units(&self) -> Vec<(String, PathBuf)> {
        let units = self.file.iter().filter(|file| {
            file.dest
                .parent()
                .is_some_and(|directory| directory.ends_with("systemd/system"))
        });
        units
            .filter_map(|file| {
                let name = file.dest.file_name()?.to_str()?.to_owned();
                Some((name, root().join(&file.source)))
            })
            .collect()
    }

    fn of(&self, package: Option<Package>) -> impl Iterator<Item = &File> {
        self.file
            .iter()
            .filter(move |file| belongs(file.only, package))
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let files = self.file.iter().map(|file| file.dest.as_path());
        let made = self.generated.iter().map(|made| made.dest.as_path());
        let links = self.link.iter().map(|link| link.path.as_path());
        files.chain(made).chain(links)
    }
}

/// Whether something is for a package; all is, if none is named.
fn belongs(only: Option<Package>, package: Option<Package>) -> bool {
    package.is_none() || only.is_none() || only == package
}

impl File {
    fn put(&self, source: &Path, destdir: &Path) -> Result<()> {
        let mode = u32::from_str_radix(&self.mode, 8)
            .with_context(|| format!("{} is not a mode", self.mode))?;
        let to = destdir.join(&self.dest);
        if self.compress {
            return write(&to, &std::fs::read(source)?, true, mode);
        }
        make_parents(&to)?;
        std::fs::copy(source, &to)?;
        std::fs::set_permissions(&to, Permissions::from_mode(mode))?;
        Ok(())
    }
}

impl Generated {
    fn put(&self, built: &Built<'_>, destdir: &Path) -> Result<()> {
        let text = match self.task {
            Task::Notices => built.notices,
        };
        let to = destdir.join(&self.dest);
        write(&to, text.as_bytes(), self.compress, 0o644)
    }
}

fn write(to: &Path, bytes: &[u8], compress: bool, mode: u32) -> Result<()> {
    let mut to = to.to_owned();
    make_parents(&to)?;
    if compress {
        to.as_mut_os_string().push(".gz");
        std::fs::write(&to, gzip(bytes)?)?;
    } else {
        std::fs::write(&to, bytes)?;
    }
    std::fs::set_permissions(&to, Permissions::from_mode(mode))?;
    Ok(())
}

/// The directories above `path`, open to everybody whatever the umask says.
fn make_parents(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    if parent.is_dir() {
        return Ok(());
    }
    make_parents(parent)?;
    DirBuilder::new()
        .mode(0o755)
        .create(parent)
        .and_then(|()| std::fs::set_permissions(parent, Permissions::from_mode(0o755)))
        .with_context(|| format!("making {}", parent.display()))
}

/// `bytes`, compressed, the same each time.
///
/// # Errors
/// When there is no gzip.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut file = tempfile::tempfile()?;
    std::io::Write::write_all(&mut file, bytes)?;
    std::io::Seek::rewind(&mut file)?;
    let done = Command::new("gzip")
        .args(["-9", "--no-name", "--stdout"])
        .stdin(Stdio::from(file))
        .stderr(Stdio::inherit())
        .output()
        .context("gzip cannot be started")?;
    ensure!(done.status.success(), "gzip failed");
    Ok(done.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn files_below(directory: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![root().join(directory)];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.push(path.strip_prefix(root()).unwrap().to_owned());
                }
            }
        }
        found
    }

    #[test]
    fn everything_of_the_system_is_listed_and_all_that_is_listed_exists() {
        let list = List::read().unwrap();
        let listed: BTreeSet<&Path> = list.file.iter().map(|file| file.source.as_path()).collect();
        let mut files = [files_below("systemd"), files_below("man")].concat();
        let bus = files_below("ipc/dbus").into_iter();
        // What the interfaces are is asked of the daemons; the tests compare it with these files.
        files.extend(bus.filter(|file| file.extension().is_none_or(|end| end != "xml")));
        for file in files {
            assert!(
                listed.contains(file.as_path()),
                "{LIST} does not say where {} is installed",
                file.display()
            );
        }
        for source in listed
            .into_iter()
            .filter(|source| *source != Path::new(BINARY))
        {
            assert!(root().join(source).is_file(), "{}", source.display());
        }
    }

    #[test]
    fn there_is_a_link_to_the_binary_for_every_applet() {
        let list = List::read().unwrap();
        let links: BTreeSet<&Path> = list.link.iter().map(|link| link.path.as_path()).collect();
        let wanted: Vec<PathBuf> = temps::applet::APPLETS
            .iter()
            .map(|applet| Path::new("usr/libexec/temps").join(applet.name))
            .collect();
        assert_eq!(links, wanted.iter().map(PathBuf::as_path).collect());
        for link in &list.link {
            // usr/libexec/temps/../../bin/temps
            assert_eq!(link.target, Path::new("../../bin/temps"));
        }
    }

    #[test]
    fn nothing_is_installed_twice_in_one_package() {
        let list = List::read().unwrap();
        for package in [Package::Deb, Package::Rpm] {
            let mut seen = BTreeSet::new();
            for file in list.of(Some(package)) {
                assert!(seen.insert(&file.dest), "{}", file.dest.display());
            }
        }
    }

    #[test]
    fn a_tree_is_staged_readable_and_compressed_where_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("binary");
        std::fs::write(&bin, "#!").unwrap();
        let tree = dir.path().join("tree");
        // Twice: what is there is replaced.
        for _ in 0..2 {
            let built = Built {
                binary: &bin,
                notices: "of others",
            };
            let list = List::read().unwrap();
            list.stage(&tree, &built, Some(Package::Deb)).unwrap();
        }
        let mode = |path: &str| tree.join(path).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("usr/bin/temps"), 0o755);
        assert_eq!(mode("usr/lib/systemd/system/temps.target"), 0o644);
        assert_eq!(mode("usr/share"), 0o755);
        let manual = std::fs::read(tree.join("usr/share/man/man1/temps.1.gz")).unwrap();
        assert_eq!(manual[..2], [0x1f, 0x8b]);
        assert!(
            tree.join("usr/share/doc/temps/THIRD-PARTY-NOTICES.gz")
                .is_file()
        );
        let link = std::fs::read_link(tree.join("usr/libexec/temps/temps-proxy")).unwrap();
        assert_eq!(link, Path::new("../../bin/temps"));
        assert!(!tree.join("usr/share/licenses").exists(), "that is for rpm");
    }
}
