//! Which crates are compiled into the binary, and under which licences.

use crate::generated::root;
use crate::licence;
use crate::pack::said;
use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// A crate of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    /// As on crates.io.
    pub name: String,
    /// As in Cargo.lock.
    pub version: String,
    /// The expression of its manifest.
    pub licence: String,
    /// Its sources.
    pub directory: PathBuf,
}

/// The crates of the package `temps` for a target, with the features it is shipped with, ordered by name.
///
/// # Errors
/// When Cargo fails, or contradicts itself.
pub fn shipped(target: &str) -> Result<Vec<Crate>> {
    let linked = linked(target)?;
    let mut crates: Vec<Crate> = MetadataCommand::new()
        .current_dir(root())
        .other_options(["--locked", "--filter-platform", target].map(str::to_owned))
        .exec()
        .context("asking Cargo where the crates are")?
        .packages
        .into_iter()
        // What has no source is ours.
        .filter(|package| package.source.is_some())
        .map(|package| Crate {
            name: package.name.to_string(),
            version: package.version.to_string(),
            licence: package.license.unwrap_or_default(),
            directory: package
                .manifest_path
                .parent()
                .map(|path| path.as_std_path().to_owned())
                .unwrap_or_default(),
        })
        .filter(|one| linked.contains(&(one.name.clone(), one.version.clone())))
        .collect();
    crates.sort();
    ensure!(
        crates.len() == linked.len(),
        "Cargo names {} crates and knows {} of them",
        linked.len(),
        crates.len()
    );
    Ok(crates)
}

/// Names and versions. `cargo tree` alone knows the features as a build of one package has them.
fn linked(target: &str) -> Result<BTreeSet<(String, String)>> {
    let tree = said(
        Command::new("cargo")
            .args(["tree", "--locked", "--package", "temps", "--target", target])
            // What is a macro, or only for build scripts and tests, is not linked.
            .args(["--edges", "normal,no-proc-macro"])
            .args(["--prefix", "none", "--no-dedupe", "--format", "{p}"])
            .current_dir(root()),
    )?;
    let mut found = BTreeSet::new();
    for line in tree.lines() {
        // `name v1.2.3`, and for ours where they are.
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, version] = words[..] {
            let version = version.trim_start_matches('v');
            found.insert((name.to_owned(), version.to_owned()));
        }
    }
    ensure!(!found.is_empty(), "cargo tree names no crate");
    Ok(found)
}

/// A line for each crate whose licence deny.toml does not list.
///
/// # Errors
/// When deny.toml cannot be read.
pub fn not_allowed(crates: &[Crate]) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root().join("deny.toml")).context("reading deny.toml")?;
    let deny: toml::Table = toml::from_str(&text).context("reading deny.toml")?;
    let allowed = deny
        .get("licenses")
        .and_then(|licenses| licenses.get("allow")?.as_array())
        .context("deny.toml lists no licences")?;
    let allowed: Vec<&str> = allowed.iter().filter_map(|name| name.as_str()).collect();
    let bad = crates
        .iter()
        .filter(|one| !licence::is_allowed(&one.licence, &allowed));
    Ok(bad
        .map(|one| {
            format!(
                "{} {} is under '{}', which deny.toml does not allow",
                one.name, one.version, one.licence
            )
        })
        .collect())
}
