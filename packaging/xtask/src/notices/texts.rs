//! The texts of licences in the sources of a crate, and what stands for them where there is none.

use super::Crate;
use crate::generated::root;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// How files with licences and notices begin, in small letters.
const NAMES: [&str; 7] = [
    "licen", // `license` and `licence`
    "copying",
    "copyright",
    "notice",
    "patents",
    "unlicense",
    "third-party",
];
/// Ends of names of files that are no text to be read, whatever they begin with.
const CODE: [&str; 8] = ["c", "h", "html", "json", "py", "rs", "toml", "yml"];
/// In bytes: no licence is longer. The GPL has 35 kB.
const LONGEST: u64 = 256 * 1024;

/// Files of crates that are for nothing that is compiled, or offered as a choice that is not taken: crate,
/// path, reason.
const LEFT_OUT: [(&str, &str, &str); 4] = [
    (
        "bollard",
        "resources/dockerfiles/windows/registry/LICENSE",
        "of an image for its tests",
    ),
    (
        "libsqlite3-sys",
        "sqlcipher/LICENSE",
        "SQLCipher is not compiled; SQLite is in the public domain",
    ),
    ("petgraph", "assets/LICENSE.md", "of pictures"),
    (
        "zstd-sys",
        "zstd/COPYING",
        "the GPL, which one may choose instead of zstd/LICENSE",
    ),
];

/// What stands for the text of a crate that comes without.
enum Instead {
    /// The texts of another crate.
    Of(&'static str),
    /// The Apache License, which is the same for everybody; it is the LICENSE of this tree.
    Apache,
}

/// Crates that come without a text: what their authors published, and why it is theirs.
const WITHOUT: [(&str, Instead, &str); 4] = [
    (
        "alloc-stdlib",
        Instead::Of("alloc-no-stdlib"),
        "of the same repository, whose one LICENSE only the other crate packs",
    ),
    (
        "bollard-stubs",
        Instead::Apache,
        "generated from Docker's API; its manifest names this licence alone",
    ),
    (
        "opentelemetry",
        Instead::Apache,
        "its repository has this licence alone and no NOTICE",
    ),
    (
        "opentelemetry-semantic-conventions",
        Instead::Apache,
        "as opentelemetry",
    ),
];

/// A text that came with a crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The name of its file.
    pub name: String,
    /// What it says.
    pub body: String,
}

impl Text {
    /// What makes two texts one: the words, wherever lines are broken.
    pub fn words(&self) -> String {
        self.body.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// The texts of a crate, in an order that does not change.
///
/// # Errors
/// When its sources cannot be read, or have a text that is too long to be one.
pub fn of(one: &Crate, all: &[Crate]) -> Result<Vec<Text>> {
    let found = found(one)?;
    if !found.is_empty() {
        return Ok(found);
    }
    match WITHOUT.iter().find(|(name, ..)| *name == one.name) {
        Some((_, Instead::Of(other), _)) => all
            .iter()
            .find(|candidate| candidate.name == *other)
            .map_or(Ok(Vec::new()), self::found),
        Some((_, Instead::Apache, _)) => Ok(vec![read(&root().join("LICENSE"))?]),
        None => Ok(Vec::new()),
    }
}

fn found(one: &Crate) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    for path in paths(&one.directory)? {
        let below = path.strip_prefix(&one.directory).unwrap_or(&path);
        let is_left_out = LEFT_OUT
            .iter()
            .any(|(name, path, _)| *name == one.name && Path::new(path) == below);
        if !is_left_out {
            texts.push(read(&path).with_context(|| format!("of {}", one.name))?);
        }
    }
    Ok(texts)
}

fn read(path: &Path) -> Result<Text> {
    let length = path.metadata()?.len();
    ensure!(
        length <= LONGEST,
        "{} has {length} bytes: no licence",
        path.display()
    );
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let name = path.file_name().unwrap_or_default();
    let body = String::from_utf8_lossy(&bytes);
    Ok(Text {
        name: name.to_string_lossy().into_owned(),
        body: body.trim_start_matches('\u{feff}').replace("\r\n", "\n"),
    })
}

/// The files that are called as licences are, below `directory`.
fn paths(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(&directory)
            .with_context(|| format!("reading {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() && is_one(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_one(path: &Path) -> bool {
    let lower = |text: Option<&std::ffi::OsStr>| {
        let text = text.unwrap_or_default().to_string_lossy();
        text.to_lowercase()
    };
    let end = lower(path.extension());
    if CODE.contains(&end.as_str()) {
        return false;
    }
    let name = lower(path.file_name());
    // REUSE: a directory with a file for each licence, by its name.
    let above = lower(path.parent().and_then(Path::file_name));
    above == "licenses" || NAMES.iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Crate) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let one = Crate {
            name: "petgraph".to_owned(),
            version: "1.0.0".to_owned(),
            licence: "MIT".to_owned(),
            directory: dir.path().to_owned(),
        };
        (dir, one)
    }

    #[test]
    fn texts_are_found_by_any_usual_name_and_code_is_none() {
        let (_dir, one) = crate_with(&[
            ("LICENSE-MIT", "mit"),
            ("COPYING", "copying"),
            ("src/zlib/license.md", "zlib"),
            ("LICENSES/ISC.txt", "isc"),
            ("NOTICE", "notice"),
            ("src/license.rs", "code"),
            ("README.md", "no"),
            // petgraph's pictures are no part of what is compiled.
            ("assets/LICENSE.md", "left out"),
        ]);
        let found = of(&one, &[]).unwrap();
        let bodies: Vec<&str> = found.iter().map(|text| text.body.as_str()).collect();
        assert_eq!(bodies, ["copying", "mit", "isc", "notice", "zlib"]);
    }

    #[test]
    fn a_crate_without_a_text_has_none_unless_one_is_named() {
        let (_dir, mut one) = crate_with(&[("src/lib.rs", "")]);
        assert!(of(&one, &[]).unwrap().is_empty());
        one.name = "opentelemetry".to_owned();
        let text = of(&one, &[]).unwrap();
        assert!(text[0].body.contains("Apache License"));

        let (_other_dir, mut other) = crate_with(&[("LICENSE", "of both")]);
        other.name = "alloc-no-stdlib".to_owned();
        one.name = "alloc-stdlib".to_owned();
        assert_eq!(of(&one, &[other]).unwrap()[0].body, "of both");
    }

    #[test]
    fn lines_do_not_make_a_text_another_one() {
        let text = |body: &str| Text {
            name: String::new(),
            body: body.to_owned(),
        };
        assert_eq!(text("a\nb  c\n").words(), text("a b\nc").words());
    }

    #[test]
    fn what_is_too_long_is_no_licence() {
        let long = "x".repeat(LONGEST as usize + 1);
        let (_dir, one) = crate_with(&[("LICENSE", &long)]);
        assert!(of(&one, &[]).is_err());
    }
}
