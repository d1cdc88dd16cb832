//! Who depends on whom: `temps -> daemons -> unit -> ipc`, and what only one crate may use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::LazyLock;

use cargo_metadata::{Metadata, MetadataCommand, Package, PackageId};
use toml::{Table, Value};

use crate::licence;

static METADATA: LazyLock<Metadata> = LazyLock::new(|| {
    MetadataCommand::new()
        .manifest_path(harness::app::root().join("Cargo.toml"))
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .expect("cargo metadata")
});

static DENY: LazyLock<Table> = LazyLock::new(|| {
    let text = fs::read_to_string(harness::app::root().join("deny.toml")).expect("deny.toml");
    text.parse().expect("deny.toml is TOML")
});

/// The packages by name, of one name perhaps several versions.
fn packages() -> impl Iterator<Item = &'static Package> {
    METADATA.packages.iter()
}

fn name_of(id: &PackageId) -> &'static str {
    METADATA[id].name.as_str()
}

/// Every crate that names `dependency` in its manifest and uses it, on any platform.
fn dependents(dependency: &str) -> BTreeSet<&'static str> {
    let resolve = METADATA.resolve.as_ref().expect("it was asked for");
    let uses = |id: &PackageId| name_of(id) == dependency;
    let nodes = resolve.nodes.iter();
    nodes
        .filter(|node| node.dependencies.iter().any(uses))
        .map(|node| name_of(&node.id))
        .collect()
}

/// What each crate of the workspace may use of the others.
fn allowed() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let daemons: BTreeSet<&str> = METADATA
        .workspace_packages()
        .into_iter()
        .filter(|package| package.manifest_path.as_str().contains("/daemons/"))
        .map(|package| package.name.as_str())
        .filter(|name| !["temps", "temps-unit"].contains(name))
        .collect();
    let mut allowed = BTreeMap::from([
        ("temps-ipc", BTreeSet::new()),
        ("temps-unit", BTreeSet::from(["temps-ipc"])),
        (
            "temps",
            &daemons | &BTreeSet::from(["temps-unit", "temps-ipc"]),
        ),
        ("xtask", BTreeSet::from(["temps"])),
        // The suites see the platform from outside.
        ("temps-tests", BTreeSet::from(["temps-ipc"])),
    ]);
    for daemon in daemons {
        allowed.insert(daemon, BTreeSet::from(["temps-unit", "temps-ipc"]));
    }
    allowed
}

#[test]
fn dependencies_point_from_the_binary_to_the_contract() {
    let members = METADATA.workspace_packages();
    let names: BTreeSet<&str> = members
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let allowed = allowed();
    assert!(allowed.len() >= 7, "crates were not found: {allowed:?}");
    for package in &members {
        let used = package.dependencies.iter().map(|other| other.name.as_str());
        let used: BTreeSet<&str> = used.filter(|name| names.contains(name)).collect();
        let may = allowed.get(package.name.as_str());
        let may = may.unwrap_or_else(|| panic!("no rule for the crate {}", package.name));
        // A crate that depends on itself, for its tests, breaks no direction.
        let wrong: Vec<_> = used
            .iter()
            .filter(|name| !may.contains(*name) && **name != package.name.as_str())
            .collect();
        assert!(wrong.is_empty(), "{} must not use {wrong:?}", package.name);
    }
}

#[test]
fn what_deny_toml_bans_is_used_by_nobody_else() {
    let bans = DENY["bans"]["deny"].as_array().expect("a list");
    assert!(bans.len() >= 5);
    for ban in bans {
        let banned = ban["crate"].as_str().expect("a name");
        let wrappers: BTreeSet<&str> = ban
            .get("wrappers")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let users = dependents(banned);
        let wrong: Vec<_> = users.difference(&wrappers).collect();
        assert!(
            wrong.is_empty(),
            "{banned} is used by {wrong:?}: {}",
            ban["reason"]
        );
        let idle: Vec<_> = wrappers.difference(&users).collect();
        assert!(
            idle.is_empty(),
            "deny.toml lets {idle:?} use {banned}, but they do not"
        );
    }
}

#[test]
fn the_proxy_alone_uses_pingora() {
    for package in METADATA.workspace_packages() {
        let mut used = package.dependencies.iter();
        let uses = used.any(|other| other.name.starts_with("pingora"));
        assert_eq!(uses, package.name == "temps-proxy", "{}", package.name);
    }
}

#[test]
fn every_licence_is_one_that_deny_toml_allows() {
    let allowed = DENY["licenses"]["allow"].as_array().expect("a list");
    let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
    for package in packages() {
        let stated = package.license.as_deref().unwrap_or_default();
        assert!(
            licence::is_allowed(stated, &allowed),
            "{} {} is under '{stated}'",
            package.name,
            package.version
        );
    }
}

#[test]
fn dependencies_come_from_the_registry_or_the_tree() {
    for package in packages() {
        let source = package.source.as_ref().map(|source| source.repr.as_str());
        assert!(
            source.is_none_or(|source| source
                .starts_with("registry+https://github.com/rust-lang/crates.io-index")),
            "{} comes from {source:?}",
            package.name
        );
    }
}

#[test]
fn every_crate_inherits_edition_licence_and_lints() {
    for package in METADATA.workspace_packages() {
        let path = &package.manifest_path;
        let manifest: Table = fs::read_to_string(path)
            .expect("a manifest")
            .parse()
            .expect("a manifest is TOML");
        let inherits = |value: Option<&Value>| {
            value.and_then(|value| value.get("workspace")) == Some(&Value::Boolean(true))
        };
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            assert!(inherits(manifest["package"].get(key)), "{path}: {key}");
        }
        assert!(inherits(manifest.get("lints")), "{path}: lints");
        assert!(package.description.is_some(), "{path}: description");
    }
}
