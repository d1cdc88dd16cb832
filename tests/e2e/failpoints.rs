//! Every transition of a deployment, with kill -9 of deployd at it and with kill -9 of the proxy
//! while deployd waits at it. Failpoints: daemons/deployd/src/engine/failpoint.rs.
//!
//! Each case has an instance of its own under load, deploys a release that takes the path in
//! question, and checks that it ends as that path says, that the routes keep serving, that nothing
//! else runs, and that the next deployment works.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::app;
use harness::docker;
use harness::load::{FailureKind, Report};
use harness::process;
use tempfile::TempDir;

use crate::world::{PATIENCE, Setup, World, docker_or_skip, within};

const SHORT: &[&str] = &["--watch", "1s", "--health-timeout", "2s"];

/// How a deployment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It comes to live.
    Good,
    /// It answers 500 and is refused.
    Refused,
    /// It dies in its window and is rolled back.
    RolledBack,
}

impl Way {
    fn variant(self) -> &'static str {
        match self {
            Way::Good => "healthy",
            Way::Refused => "error",
            Way::RolledBack => "dies:2",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Way::Good | Way::Refused => SHORT,
            Way::RolledBack => &["--watch", "20s", "--health-timeout", "2s"],
        }
    }

    fn status(self) -> &'static str {
        match self {
            Way::Good => "live",
            Way::Refused => "refused",
            Way::RolledBack => "rolled_back",
        }
    }
}

/// Every transition, with the way that leads over it.
const TRANSITIONS: [(Way, &[&str]); 3] = [
    (
        Way::Good,
        &[
            "queued.before",
            "queued.after",
            "preparing.before",
            "preparing.after",
            "starting.before",
            "starting.recorded",
            "starting.after",
            "probing.before",
            "probing.after",
            "switching.before",
            "switching.recorded",
            "switching.after",
            "draining.before",
            "draining.after",
            "retiring.before",
            "retiring.after",
            "live.before",
            "live.after",
            "confirmed.before",
        ],
    ),
    (
        Way::Refused,
        &["refusing.before", "refusing.after", "refused.before"],
    ),
    (
        Way::RolledBack,
        &[
            "rolling-back.before",
            "rolling-back.recorded",
            "rolling-back.flipped",
            "rolling-back.after",
            "rolled-back.before",
        ],
    ),
];

/// What ends at a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Deployd,
    Proxy,
}

struct Failpoints {
    directory: TempDir,
}

impl Failpoints {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn setup(&self, docker: bool) -> Setup {
        let path = self.directory.path().to_str().expect("the name is ours");
        Setup {
            docker,
            env: vec![("TEMPS_FAILPOINTS".to_owned(), path.to_owned())],
            ..Setup::default()
        }
    }

    fn hits(&self) -> BTreeMap<String, usize> {
        let text = std::fs::read_to_string(self.path("hits")).unwrap_or_default();
        let mut hits = BTreeMap::new();
        for line in text.lines() {
            *hits.entry(line.to_owned()).or_default() += 1;
        }
        hits
    }
}

/// One row of the table.
#[derive(Debug)]
struct Row {
    hits: usize,
    kills: usize,
    failed: u64,
    cut: u64,
    took: Duration,
}

fn case(of: &str, way: Way, transition: &str, victim: Victim) -> Row {
    let points = Failpoints::new();
    let world = World::with(points.setup(of == "container"));
    let name = format!("{of}, kill -9 of {victim:?} at {transition}");
    let good = world.live("shop", of, "healthy", SHORT).release;
    world.settled("shop");
    let before = points.hits();
    assert!(
        !before.is_empty(),
        "{name}: the binary has no failpoints; build it with `--features failpoints`"
    );
    let begun = Instant::now();
    let load = world.light_load("shop");
    let action = if victim == Victim::Deployd {
        "kill"
    } else {
        "pause"
    };
    std::fs::write(points.path(transition), action).unwrap();
    let made = app::make(of, way.variant(), "v2").unwrap();
    let deploying = world.deploy_meanwhile("shop", &made, way.arguments());
    let mut killed = None;
    let passed = match victim {
        Victim::Deployd => within(PATIENCE, || !points.path(transition).exists()),
        Victim::Proxy => {
            let paused = points.path(&format!("{transition}.paused"));
            let is_paused = within(PATIENCE, || paused.exists());
            let old = world.temps().kill_daemon("proxy").expect("it runs");
            // On a busy machine a killed process takes its time to let go of its connections.
            assert!(within(PATIENCE, || process::is_over(old)), "{name}");
            killed = Some(Instant::now());
            let again = within(PATIENCE, || {
                world
                    .temps()
                    .daemon_pid("proxy")
                    .is_some_and(|pid| pid != old)
            });
            assert!(again, "{name}: the proxy does not come back");
            std::fs::remove_file(points.path(transition)).unwrap();
            is_paused
        }
    };
    assert!(passed, "{name}: never passed; hits: {:?}", points.hits());
    let outcome = deploying.join().unwrap();
    world.note(&outcome.release);
    // A release that dies is live at first; what counts is how it ends.
    let expected = if way == Way::Refused {
        "refused"
    } else {
        "live"
    };
    let is_expected =
        outcome.status == expected || (way == Way::RolledBack && outcome.status == "rolled_back");
    assert!(is_expected, "{name}: {outcome:?}\n{}", world.temps().log());
    let serving = if way == Way::Good {
        &outcome.release
    } else {
        &good
    };
    let ended = within(PATIENCE, || {
        let listed = world.release("shop", &outcome.release);
        listed["status"] == way.status()
            && world.json(&["app", "show", "shop"])["deployment"].is_null()
    });
    assert!(
        ended,
        "{name}: {}\n{}",
        world.release("shop", &outcome.release),
        world.temps().log()
    );
    let back = (way == Way::RolledBack).then(Instant::now);
    world.only(&[serving]);
    assert_eq!(world.get("shop", "/").release(), *serving, "{name}");
    nothing_left(&world, &name);
    let next = world.live("shop", of, "healthy", SHORT).release;
    let report = load.stop_blocking();
    world.only(&[&next]);
    let (failed, cut) = split(&report, killed, back);
    assert_eq!(failed, 0, "{name}\n{report}\n{}", world.temps().log());
    let hits = points.hits();
    let hits =
        hits.get(transition).copied().unwrap_or(0) - before.get(transition).copied().unwrap_or(0);
    Row {
        hits,
        kills: 1,
        failed,
        cut,
        took: begun.elapsed(),
    }
}

/// Failures that count, and those that a kill of the proxy excuses: connections that it held.
///
/// A release that died answers nobody until it is rolled back, at `back`; that is not what is
/// tested here.
fn split(report: &Report, killed: Option<Instant>, back: Option<Instant>) -> (u64, u64) {
    let mut counted = report.failed_total - report.failed.len() as u64;
    let mut cut = 0;
    for failure in &report.failed {
        let is_cut = killed.is_some_and(|at| {
            let held = failure.when < at + Duration::from_millis(50);
            held && matches!(failure.kind, FailureKind::Closed | FailureKind::Body)
        });
        let is_dead = back.is_some_and(|back| {
            let nobody = matches!(
                failure.kind,
                FailureKind::Status(502 | 503) | FailureKind::Timeout
            );
            nobody && failure.when < back
        });
        if is_cut {
            cut += 1;
        } else if !is_dead {
            counted += 1;
        }
    }
    (counted, cut)
}

fn nothing_left(world: &World, name: &str) {
    let listed = world.json(&["release", "list", "shop"]);
    let with_files: BTreeSet<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["status"] != "refused")
        .map(|one| one["release"].as_str().unwrap().to_owned())
        .collect();
    for release in world.files("releases") {
        assert!(with_files.contains(&release), "{name}: files of {release}");
    }
    assert!(
        world.files("material").is_empty(),
        "{name}: {:?}",
        world.files("material")
    );
    let uploads = world.files("uploads");
    assert!(uploads.is_empty(), "{name}: {uploads:?}");
    let instances = world.files("instances");
    assert!(instances.len() <= 1, "{name}: {instances:?}");
}

fn table(of: &str, victim: Victim, transitions: &[(Way, &'static str)]) {
    println!("kill -9 of {victim:?}, {of}");
    println!(
        "{:<24} {:>4} {:>5} {:>6} {:>4} {:>7}",
        "transition", "hits", "kills", "failed", "cut", "seconds"
    );
    for &(way, transition) in transitions {
        let row = case(of, way, transition, victim);
        println!(
            "{transition:<24} {:>4} {:>5} {:>6} {:>4} {:>7.1}",
            row.hits,
            row.kills,
            row.failed,
            row.cut,
            row.took.as_secs_f64()
        );
        // One for the kill and at least one for the passage after it; a pause is one passage.
        assert!(row.hits >= 1, "{transition} was never passed");
    }
}

fn all() -> Vec<(Way, &'static str)> {
    TRANSITIONS
        .iter()
        .flat_map(|(way, names)| names.iter().map(|name| (*way, *name)))
        .collect()
}

/// The transitions that mean something else with a container engine: calls to it are in flight.
fn with_engine() -> Vec<(Way, &'static str)> {
    let those = [
        "preparing.after",
        "starting.recorded",
        "starting.after",
        "switching.recorded",
        "retiring.before",
        "retiring.after",
        "refusing.after",
        "rolling-back.recorded",
        "rolling-back.flipped",
    ];
    all()
        .into_iter()
        .filter(|(_, name)| those.contains(name))
        .collect()
}

#[test]
fn every_transition_survives_a_kill_of_deployd() {
    table("python", Victim::Deployd, &all());
}

#[test]
fn every_transition_survives_a_kill_of_the_proxy() {
    table("python", Victim::Proxy, &all());
}

#[test]
fn transitions_of_a_container_survive_a_kill_of_deployd() {
    if docker_or_skip() {
        let before = docker::counts().unwrap();
        table("container", Victim::Deployd, &with_engine());
        println!(
            "engine before {before:?}, after {:?}",
            docker::counts().unwrap()
        );
    }
}

#[test]
fn the_table_names_every_transition_of_the_source() {
    let points = Failpoints::new();
    let world = World::with(points.setup(false));
    world.live("shop", "python", "healthy", SHORT);
    world.settled("shop");
    world.deploy("shop", "python", "error", SHORT);
    world.settled("shop");
    world.live("shop", "python", "dies:1", &["--watch", "20s"]);
    world.settled("shop");
    let found: BTreeSet<String> = points.hits().into_keys().collect();
    let named: BTreeSet<String> = all().into_iter().map(|(_, name)| name.to_owned()).collect();
    assert_eq!(found, named);
    assert!(Path::new(&points.path("hits")).exists());
}
