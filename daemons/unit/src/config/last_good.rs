//! The last good configuration: what the administrator's files said when they were last right, so
//! that a mistake in one does not keep a daemon from starting.
//!
//! ```text
//! STATE/NAME.toml.last-good        written when a configuration was read and is right
//! ```
//! The files of the first directory are the vendor's (or written by `temps up`), not the
//! administrator's: they are read as they are now.

use super::{ConfigError, Text, parse, read, read_file};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Settings, and what is wrong with the files if these are the last good ones.
#[derive(Debug)]
pub struct Found<T> {
    /// What to run with.
    pub settings: T,
    /// Why the files as they are now are not what it runs with.
    pub problem: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Saved {
    #[serde(default)]
    file: Vec<SavedText>,
}

#[derive(Serialize, Deserialize)]
struct SavedText {
    path: String,
    /// The same below the first directory, which need not be where it was: `temps up` writes its files
    /// to a directory of each run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vendor: Option<PathBuf>,
    text: String,
}

/// Reads the configuration `name` as [`load`](super::load) does and has it judged by `check`; if it
/// is wrong, the last one in `state` that was right.
///
/// # Errors
/// When it is wrong and there is none that was right.
pub fn load_or_last_good<T: DeserializeOwned>(
    name: &str,
    directories: &[PathBuf],
    state: &Path,
    check: impl Fn(&T) -> Result<(), String>,
) -> Result<Found<T>, ConfigError> {
    let judged = |texts: &[Text]| {
        let settings = parse(texts)?;
        check(&settings).map_err(|message| ConfigError::Whole {
            message,
            files: names(texts),
        })?;
        Ok(settings)
    };
    let vendor = directories.first().map_or(Path::new(""), PathBuf::as_path);
    let path = state.join(format!("{name}.toml.last-good"));
    let texts = read(name, directories);
    let problem = match texts.and_then(|texts| Ok((judged(&texts)?, texts))) {
        Ok((settings, texts)) => {
            save(&path, texts, vendor);
            return Ok(Found {
                settings,
                problem: None,
            });
        }
        Err(problem) => problem,
    };
    let Some(saved) = saved(&path) else {
        return Err(problem);
    };
    let texts = as_now(saved, vendor)?;
    match judged(&texts) {
        Ok(settings) => Ok(Found {
            settings,
            problem: Some(problem.to_string()),
        }),
        Err(_) => Err(problem),
    }
}

/// What was saved, with the vendor's files in `vendor` as they are now.
fn as_now(saved: Saved, vendor: &Path) -> Result<Vec<Text>, ConfigError> {
    let mut texts = Vec::new();
    for saved in saved.file {
        match saved.vendor {
            Some(name) => texts.extend(read_file(&vendor.join(name))?),
            None => texts.push(Text {
                file: saved.path,
                text: saved.text,
            }),
        }
    }
    Ok(texts)
}

fn names(texts: &[Text]) -> String {
    let names: Vec<_> = texts.iter().map(|text| text.file.as_str()).collect();
    if names.is_empty() {
        "no file".to_owned()
    } else {
        names.join(", ")
    }
}

fn saved(path: &Path) -> Option<Saved> {
    toml::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// Replaces what is saved, if it is not that. Best effort: the daemon has what it needs.
fn save(path: &Path, texts: Vec<Text>, vendor: &Path) {
    let texts = texts.into_iter();
    let file = texts
        .map(|Text { file: path, text }| SavedText {
            vendor: Path::new(&path)
                .strip_prefix(vendor)
                .ok()
                .map(Path::to_owned),
            path,
            text,
        })
        .collect();
    let Ok(text) = toml::to_string(&Saved { file }) else {
        return;
    };
    if std::fs::read_to_string(path).is_ok_and(|known| known == text) {
        return;
    }
    if let Err(error) = replace(path, &text) {
        tracing::warn!(%error, path = %path.display(), "the good configuration cannot be kept");
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        vendor: u32,
        #[serde(default)]
        own: u32,
    }

    struct World {
        directory: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            for name in ["lib", "etc", "state"] {
                std::fs::create_dir(directory.path().join(name)).unwrap();
            }
            Self { directory }
        }

        fn write(&self, file: &str, text: &str) {
            std::fs::write(self.directory.path().join(file), text).unwrap();
        }

        fn load(&self) -> Result<Found<Settings>, ConfigError> {
            let path = |name: &str| self.directory.path().join(name);
            load_or_last_good(
                "x",
                &[path("lib"), path("etc")],
                &path("state"),
                |settings: &Settings| {
                    if settings.own > 9 {
                        return Err("own is at most 9".to_owned());
                    }
                    Ok(())
                },
            )
        }
    }

    #[test]
    fn a_mistake_leaves_the_last_good_settings_and_is_told() {
        let world = World::new();
        world.write("lib/x.toml", "vendor = 1");
        world.write("etc/x.toml", "own = 2");
        assert!(world.load().unwrap().problem.is_none());
        // What the vendor writes is always of today.
        world.write("lib/x.toml", "vendor = 3");
        for (wrong, said) in [
            ("own = 10", "at most 9"),
            ("other = 1", "other"),
            ("[", "x.toml:1"),
        ] {
            world.write("etc/x.toml", wrong);
            let found = world.load().unwrap();
            assert_eq!((found.settings.vendor, found.settings.own), (3, 2));
            let problem = found.problem.unwrap();
            assert!(
                problem.contains(said) && problem.contains("x.toml"),
                "{problem}"
            );
        }
        world.write("etc/x.toml", "own = 4");
        let found = world.load().unwrap();
        assert!(found.problem.is_none() && found.settings.own == 4);
    }

    #[test]
    fn the_vendors_directory_may_move() {
        let world = World::new();
        world.write("lib/x.toml", "vendor = 1");
        world.write("etc/x.toml", "own = 2");
        world.load().unwrap();
        let path = |name: &str| world.directory.path().join(name);
        std::fs::rename(path("lib"), path("run")).unwrap();
        world.write("run/x.toml", "vendor = 3");
        world.write("etc/x.toml", "other = 1");
        let directories = [path("run"), path("etc")];
        let found: Found<Settings> =
            load_or_last_good("x", &directories, &path("state"), |_| Ok(())).unwrap();
        assert_eq!((found.settings.vendor, found.settings.own), (3, 2));
    }

    #[test]
    fn a_mistake_at_the_first_start_is_an_error() {
        let world = World::new();
        world.write("lib/x.toml", "vendor = 1");
        world.write("etc/x.toml", "own = 10");
        assert!(world.load().unwrap_err().to_string().contains("at most 9"));
    }

    #[test]
    fn what_was_saved_and_is_damaged_is_no_configuration() {
        let world = World::new();
        world.write("lib/x.toml", "vendor = 1");
        world.load().unwrap();
        world.write("state/x.toml.last-good", "\u{0}\u{1}");
        world.write("etc/x.toml", "own = 10");
        world.load().unwrap_err();
    }
}
