//! Configuration: TOML with drop-ins, as systemd reads its own.
//!
//! ```text
//! /usr/lib/temps/NAME.toml      /run/temps/NAME.toml      /etc/temps/NAME.toml        later wins
//! …/NAME.toml.d/*.toml          by file name over all directories; a file in a later directory
//!                               masks the one of the same name in an earlier directory
//! ```
//!
//! Drop-ins come after all main files. Tables are merged key by key, everything else is replaced.
//! Unknown keys are errors if the type says `deny_unknown_fields`, and every error names the file and
//! line it comes from and the key it is about, also after merging: each file gets its own range of positions (`Sources`).
//!
//! [`parse`] is pure; [`load`] only finds the files. Secrets do not belong here: see [`crate::creds`].

mod last_good;
mod merge;
mod words;

pub use last_good::{Found, load_or_last_good};
use merge::Sources;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The directories of an installed system; later ones win.
pub const SYSTEM_DIRS: [&str; 3] = ["/usr/lib/temps", "/run/temps", "/etc/temps"];

/// Replaces [`SYSTEM_DIRS`] (separated by colons): set by `temps up`.
pub const PATH_VARIABLE: &str = "TEMPS_CONFIG_PATH";

/// No configuration of ours comes near; a device or a log named by mistake does.
const MAX_FILE: u64 = 1024 * 1024;

/// More drop-ins than anybody writes by hand.
const MAX_DROP_INS: usize = 256;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file says something wrong.
    #[error("{file}:{line}: {message}")]
    Invalid {
        /// The file at fault.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// All files together leave something out, or contradict the program.
    #[error("{message} (read: {files})")]
    Whole {
        /// What is wrong.
        message: String,
        /// The files, or "no file".
        files: String,
    },
    /// A file or directory that exists cannot be read.
    #[error("{path} cannot be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Too large or too many.
    #[error("{path} {problem}")]
    Limit {
        /// The file or directory.
        path: PathBuf,
        /// Which limit is exceeded.
        problem: &'static str,
    },
}

/// One configuration file: its name for messages, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The path, or whatever names it for people.
    pub file: String,
    /// The TOML.
    pub text: String,
}

/// Merges `texts`, later ones winning, into one `T`.
pub fn parse<T: DeserializeOwned>(texts: &[Text]) -> Result<T, ConfigError> {
    Sources::new(texts).parse()
}

/// Reads the configuration `name` (without `.toml`) from `directories`, later ones winning.
///
/// No file at all is an empty configuration.
pub fn load<T: DeserializeOwned>(name: &str, directories: &[PathBuf]) -> Result<T, ConfigError> {
    parse(&read(name, directories)?)
}

/// The directories of this process: `$TEMPS_CONFIG_PATH`, else [`SYSTEM_DIRS`].
pub fn directories() -> Vec<PathBuf> {
    directories_from(std::env::var_os(PATH_VARIABLE))
}

fn directories_from(path: Option<OsString>) -> Vec<PathBuf> {
    match path {
        Some(path) => std::env::split_paths(&path)
            .filter(|directory| !directory.as_os_str().is_empty())
            .collect(),
        None => SYSTEM_DIRS.map(PathBuf::from).to_vec(),
    }
}

/// The files that make up the configuration `name`, in the order in which they are merged.
pub fn read(name: &str, directories: &[PathBuf]) -> Result<Vec<Text>, ConfigError> {
    let mut texts = Vec::new();
    let mut drop_ins = BTreeMap::new();
    for directory in directories {
        texts.extend(read_file(&directory.join(format!("{name}.toml")))?);
        let directory = directory.join(format!("{name}.toml.d"));
        for file in list(&directory)? {
            // An equal name in a later directory masks this one.
            drop_ins.insert(file.clone(), directory.join(file));
        }
        if drop_ins.len() > MAX_DROP_INS {
            return Err(ConfigError::Limit {
                path: directory,
                problem: "holds too many drop-ins",
            });
        }
    }
    for path in drop_ins.values() {
        texts.extend(read_file(path)?);
    }
    Ok(texts)
}

/// Names of the drop-ins in `directory`, which need not exist.
fn list(directory: &Path) -> Result<Vec<OsString>, ConfigError> {
    let fail = |source| ConfigError::Io {
        path: directory.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(fail)?.file_name();
        let text = name.to_string_lossy();
        // Editors leave hidden files behind.
        if text.ends_with(".toml") && !text.starts_with('.') {
            names.push(name);
        }
    }
    Ok(names)
}

/// What `path` says; `None` if it does not exist. A link to `/dev/null` masks, as with systemd.
fn read_file(path: &Path) -> Result<Option<Text>, ConfigError> {
    let fail = |source| ConfigError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mut text = String::new();
    let length = file
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(fail)?;
    if length as u64 > MAX_FILE {
        return Err(ConfigError::Limit {
            path: path.to_owned(),
            problem: "is larger than 1 MiB",
        });
    }
    Ok(Some(Text {
        file: path.display().to_string(),
        text,
    }))
}

#[cfg(test)]
mod tests;
