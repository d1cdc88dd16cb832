//! What the container engine holds, asked through its own command.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::{self, Output};

/// What Temps labels its own with starts so.
const PREFIX: &str = "sh.temps.";
/// The engine is slow to remove, never to answer.
const LIMIT: Duration = Duration::from_secs(60);
const KINDS: [&str; 4] = ["container", "image", "network", "volume"];

/// One thing in the engine that carries a label of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    /// `container`, `image`, `network` or `volume`.
    pub kind: &'static str,
    pub id: String,
    /// Every label, ours and others.
    pub labels: BTreeMap<String, String>,
}

/// How many of each kind there are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub containers: usize,
    pub images: usize,
    pub networks: usize,
    pub volumes: usize,
}

/// Whether the engine can be used.
///
/// # Errors
/// The reason why not, for the line that says SKIPPED.
pub fn available() -> Result<(), String> {
    match docker(&["version", "--format", "{{.Server.Version}}"]) {
        Ok(output) if output.is_success() => Ok(()),
        Ok(output) => {
            let said = output
                .stderr
                .trim()
                .lines()
                .last()
                .unwrap_or("no answer")
                .to_owned();
            Err(format!("the container engine does not answer: {said}"))
        }
        Err(error) => Err(format!("no docker command: {error:#}")),
    }
}

/// Everything that carries a label `sh.temps.*`, stopped containers too.
///
/// # Errors
/// The engine does not answer, or not in JSON.
pub fn things() -> Result<Vec<Thing>> {
    let mut things = Vec::new();
    for kind in KINDS {
        let mut list = vec![kind, "ls", "--quiet"];
        if matches!(kind, "container" | "image") {
            list.extend(["--all", "--no-trunc"]);
        }
        let ids = docker(&list)?.success()?.stdout;
        let mut ids: Vec<&str> = ids.split_whitespace().collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            continue;
        }
        // Not `success`: what went away meanwhile makes it fail, and the rest is printed.
        let described = docker(&[&[kind, "inspect"], ids.as_slice()].concat())?.stdout;
        let described: Vec<Value> =
            serde_json::from_str(&described).with_context(|| format!("{kind} inspect"))?;
        things.extend(described.iter().filter_map(|value| thing(kind, value)));
    }
    Ok(things)
}

/// How much of ours the engine holds.
///
/// # Errors
/// As [`things`].
pub fn counts() -> Result<Counts> {
    let things = things()?;
    let count = |kind| things.iter().filter(|thing| thing.kind == kind).count();
    Ok(Counts {
        containers: count("container"),
        images: count("image"),
        networks: count("network"),
        volumes: count("volume"),
    })
}

/// What the labels call the instance that runs one of `releases`, if a container of one is there.
///
/// # Errors
/// As [`things`].
pub fn installation(releases: &BTreeSet<String>) -> Result<Option<String>> {
    let labels = things()?.into_iter().map(|thing| thing.labels);
    let mut ours = labels.filter(|labels| {
        let release = labels.get("sh.temps.release");
        release.is_some_and(|release| releases.contains(release))
    });
    Ok(ours.find_map(|mut labels| labels.remove("sh.temps.installation")))
}

/// Removes what carries one of `values` in a label of ours, containers first.
///
/// # Errors
/// The engine does not answer; a thing that cannot be removed is left for the next test to find.
pub fn remove(values: &[String]) -> Result<()> {
    for thing in things()? {
        let is_named = thing
            .labels
            .iter()
            .any(|(name, value)| name.starts_with(PREFIX) && values.contains(value));
        if is_named {
            let force: &[&str] = if thing.kind == "network" {
                &[]
            } else {
                &["--force"]
            };
            docker(&[&[thing.kind, "rm"], force, &[&thing.id]].concat())?;
        }
    }
    Ok(())
}

fn docker(arguments: &[&str]) -> Result<Output> {
    command::run(Command::new("docker").args(arguments), LIMIT)
}

fn thing(kind: &'static str, value: &Value) -> Option<Thing> {
    let labels = match kind {
        "container" | "image" => &value["Config"]["Labels"],
        _ => &value["Labels"],
    };
    let labels: BTreeMap<String, String> = labels
        .as_object()?
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    let id = value["Id"]
        .as_str()
        .or_else(|| value["Name"].as_str())?
        .to_owned();
    labels
        .keys()
        .any(|name| name.starts_with(PREFIX))
        .then_some(Thing { kind, id, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_carries_our_label_is_ours() {
        let labelled = |labels| serde_json::json!({"Id": "a1", "Config": {"Labels": labels}});
        let ours = labelled(serde_json::json!({"sh.temps.app": "shop", "x": "y"}));
        let found = thing("container", &ours).expect("it carries our label");
        assert_eq!((found.kind, &*found.id), ("container", "a1"));
        assert_eq!(found.labels["sh.temps.app"], "shop");
        assert_eq!(
            thing("image", &labelled(serde_json::json!({"sh.temper": "1"}))),
            None
        );
        assert_eq!(thing("image", &labelled(Value::Null)), None);
    }

    #[test]
    fn a_volume_is_known_by_its_name() {
        let volume = serde_json::json!({"Name": "v", "Labels": {"sh.temps.app": "shop"}});
        assert_eq!(thing("volume", &volume).expect("ours").id, "v");
    }

    #[test]
    fn what_is_named_in_a_label_is_found_and_removed_and_nothing_else() {
        if let Err(reason) = available() {
            eprintln!("SKIPPED: {reason}");
            return;
        }
        let name = |which: &str| format!("temps-harness-{}-{which}", std::process::id());
        let (first, second) = (name("first"), name("second"));
        for name in [&first, &second] {
            let label = format!("sh.temps.release={name}");
            let made = docker(&["network", "create", "--label", &label, name]);
            made.and_then(Output::success).expect("a network");
        }
        let left = || -> Vec<String> {
            let ours = things().expect("the engine answers").into_iter();
            ours.filter_map(|mut thing| thing.labels.remove("sh.temps.release"))
                .filter(|value| [&first, &second].contains(&value))
                .collect()
        };
        assert_eq!(left().len(), 2);
        assert!(counts().expect("the engine answers").networks >= 2);
        remove(std::slice::from_ref(&first)).expect("the engine answers");
        assert_eq!(left(), [second.as_str()]);
        remove(std::slice::from_ref(&second)).expect("the engine answers");
        assert!(left().is_empty());
    }
}
