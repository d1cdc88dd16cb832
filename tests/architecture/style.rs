//! How files are made.

use std::collections::BTreeMap;
use std::path::Path;

use crate::source::{File, files};

/// A file that is longer holds more than one idea.
const LIMIT: usize = 700;
/// From here on a file wants to be two: printed, not refused.
const WANTS_TO_BE_TWO: usize = 400;

/// The sources of the workspace; the container app is compiled by itself.
fn rust() -> impl Iterator<Item = File> {
    let files = files().into_iter();
    files.filter(|file| file.is_rust() && !file.path.starts_with("tests/apps"))
}

fn assert_none(wrong: &[String], rule: &str) {
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

#[test]
fn no_module_is_named_after_nothing() {
    let wrong: Vec<String> = rust()
        .filter(|file| {
            let stem = file.path.file_stem().unwrap_or_default();
            ["mod", "utils", "util", "common", "core", "helpers", "misc"]
                .iter()
                .any(|name| stem == *name)
        })
        .map(|file| file.path.display().to_string())
        .collect();
    assert_none(&wrong, "a module is named by what it is responsible for");
}

#[test]
fn every_module_says_what_it_is_responsible_for() {
    let wrong: Vec<String> = rust()
        .filter(|file| !file.path.ends_with("tests.rs"))
        .filter(|file| !file.text.lines().any(|line| line.starts_with("//!")))
        .map(|file| file.path.display().to_string())
        .collect();
    assert_none(&wrong, "a file begins with //! and its responsibility");
}

#[test]
fn no_file_holds_more_than_one_can_read() {
    let mut wrong = Vec::new();
    for file in rust() {
        let lines = file.product().lines().count();
        if lines > LIMIT {
            wrong.push(format!("{} has {lines} lines", file.path.display()));
        } else if file.text.lines().count() > WANTS_TO_BE_TWO {
            println!(
                "note: {} has {} lines",
                file.path.display(),
                file.text.lines().count()
            );
        }
    }
    assert_none(
        &wrong,
        &format!("a file has at most {LIMIT} lines without its tests"),
    );
}

#[test]
fn what_may_fail_is_not_unwrapped() {
    let wrong: Vec<String> = rust()
        .flat_map(|file| {
            let lines = file.product();
            let lines = lines.lines().map(str::trim_start);
            let found = lines.filter(|line| line.contains(".unwrap()") && !line.starts_with("//"));
            found
                .map(|line| format!("{}: {line}", file.path.display()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_none(
        &wrong,
        "outside tests: expect(\"the invariant\") or an error",
    );
}

#[test]
fn unsafe_code_is_only_where_a_reason_is_given() {
    let wrong: Vec<String> = rust()
        // `foo/tests.rs` is a part of `foo.rs`, which says it for both; this file speaks of it.
        .filter(|file| {
            !file.path.ends_with("tests.rs") && !file.path.starts_with("tests/architecture")
        })
        .filter(|file| {
            let mut code = file
                .text
                .lines()
                .map(str::trim_start)
                .filter(|line| !line.starts_with("//"));
            let uses = code.any(|line| {
                line.contains("unsafe {")
                    || line.contains("unsafe fn")
                    || line.contains("unsafe impl")
            });
            let head: String = file.text.lines().take(12).collect::<Vec<_>>().join(" ");
            let is_stated = head.contains("#![allow(")
                && head.contains("unsafe_code")
                && head.contains("reason = ");
            uses && !is_stated
        })
        .map(|file| file.path.display().to_string())
        .collect();
    assert_none(
        &wrong,
        "a file with unsafe code begins with #![allow(unsafe_code, reason = …)]",
    );
}

#[test]
fn no_file_names_a_path_of_the_machine_it_was_written_on() {
    let root = harness::app::root();
    let home = std::env::var("HOME").unwrap_or_default();
    let mut known: Vec<String> = vec![root.display().to_string()];
    // A home of the system, like root's, may be named.
    if Path::new(&home).starts_with("/home") {
        known.push(home);
    }
    // Short enough to be a word by chance.
    known.retain(|path| path.len() > 6);
    let mut wrong = Vec::new();
    for file in files() {
        for (number, line) in file.text.lines().enumerate() {
            if known.iter().any(|path| line.contains(path.as_str())) {
                wrong.push(format!("{}:{}", file.path.display(), number + 1));
            }
        }
    }
    assert_none(&wrong, "the tree is the same on every machine");
}

#[test]
fn no_two_events_share_a_message_id() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for file in rust().filter(|file| file.path.ends_with("event.rs")) {
        for rest in file.text.split("MessageId::new(\"").skip(1) {
            let id: String = rest.chars().take_while(|letter| *letter != '"').collect();
            let path = file.path.display().to_string();
            assert!(
                id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()),
                "{path}: '{id}'"
            );
            if let Some(other) = seen.insert(id.clone(), path.clone()) {
                panic!("{id} is in {other} and in {path}");
            }
        }
    }
    assert!(seen.len() > 10, "the events were not found");
}
