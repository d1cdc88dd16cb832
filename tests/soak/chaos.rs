//! Deployments of all kinds while daemons are killed at any moment:
//! `cargo run -p temps-tests --bin chaos [ROUNDS [SEED [APP]]]` (100 rounds of `python`; `container`
//! for containers). Each round deploys a release that is good, crashes, answers 500 or dies later,
//! and kills -9 deployd, the proxy or both some time after its start. Exits 1 if a deployment does not end as its release deserves, if the app
//! does not answer afterwards, or if anything else is left running.

#![allow(
    clippy::disallowed_methods,
    reason = "nothing here is async; the program may block"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::app;
use harness::command;
use harness::docker;
use harness::http;
use harness::process;
use harness::temps::{Deployed, Options, Temps};
use serde_json::Value;

const APP: &str = "shop";
/// A deployment, its window, and restarts of daemons in between.
const SETTLED: Duration = Duration::from_secs(60);
/// Releases with the outcomes that they may have.
const KINDS: [(&str, &[&str]); 5] = [
    ("healthy", &["live"]),
    ("slow-start:1", &["live"]),
    ("crash", &["refused"]),
    ("error", &["refused"]),
    ("dies:1", &["rolled_back", "refused"]),
];
const VICTIMS: [&[&str]; 4] = [&["deployd"], &["proxy"], &["deployd", "proxy"], &[]];

/// A generator of numbers that can be repeated (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).expect("an index")]
    }
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| -> Result<u64> {
        let text = arguments.get(at);
        text.map_or(Ok(default), |text| text.parse().context("a number"))
    };
    let (rounds, seed) = (number(0, 100)?, number(1, 1)?);
    let of = arguments.get(2).map_or("python", String::as_str);
    let mut random = Random(seed.wrapping_mul(2).wrapping_add(1));
    let mut seen: BTreeMap<(&str, String), u64> = BTreeMap::new();
    let mut platform = Platform::up(of)?;
    let mut wrong = 0;
    for round in 0..rounds {
        if round % 10 == 9 {
            // Daemons that were killed often are started again ever later.
            platform = Platform::up(of)?;
        }
        let (variant, outcomes) = random.one_of(&KINDS);
        let victims = random.one_of(&VICTIMS);
        let after = Duration::from_millis(random.below(1_500));
        match platform.play(variant, outcomes, victims, after) {
            Ok(outcome) => *seen.entry((variant, outcome)).or_default() += 1,
            Err(error) => {
                wrong += 1;
                println!("round {round}: {variant}, kill {victims:?} after {after:?}: {error:#}");
                println!("{}", platform.temps.log());
                platform = Platform::up(of)?;
            }
        }
    }
    for ((variant, outcome), count) in &seen {
        println!("{variant:<14} {outcome:<12} {count}");
    }
    println!("{of}, seed {seed}: {rounds} rounds, {wrong} wrong");
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// An instance with one app.
struct Platform {
    temps: Temps,
    /// The sample app that it is.
    of: String,
    /// Every release so far.
    releases: BTreeSet<String>,
    /// The one that should serve.
    serving: String,
}

impl Platform {
    fn up(of: &str) -> Result<Self> {
        let options = Options {
            docker: of == "container",
            ..Options::default()
        };
        let mut platform = Self {
            temps: Temps::up(options)?,
            of: of.to_owned(),
            releases: BTreeSet::new(),
            serving: String::new(),
        };
        let first = platform.deploy("healthy", |_| ())?.live()?;
        platform.serving = first.release;
        Ok(platform)
    }

    /// Deploys, and calls `meanwhile` with the deployment under way.
    fn deploy(&mut self, variant: &str, meanwhile: impl FnOnce(&Temps)) -> Result<Deployed> {
        let made = app::make(&self.of, variant, "v1")?;
        let mut command = self.temps.command(["deploy", APP, "--source", made.arg()]);
        command.args(["--watch", "3s", "--health-timeout", "3s", "--json"]);
        let deploying = thread::spawn(move || command::run(&mut command, SETTLED));
        meanwhile(&self.temps);
        let output = deploying.join().ok().context("the thread ended")??;
        let deployed = Deployed::parse(output)?;
        self.releases.insert(deployed.release.clone());
        Ok(deployed)
    }

    /// One round; its outcome.
    fn play(
        &mut self,
        variant: &str,
        outcomes: &[&str],
        victims: &[&str],
        after: Duration,
    ) -> Result<String> {
        let deployed = self.deploy(variant, |temps| {
            thread::sleep(after);
            for victim in victims {
                // It may be on its way up from the last round.
                let _ = temps.kill_daemon(victim);
            }
        })?;
        let status = self.settled(&deployed.release)?;
        ensure!(
            outcomes.contains(&&*status),
            "it ended as {status}: {deployed:?}"
        );
        if status == "live" {
            self.serving = deployed.release;
        }
        let end = Instant::now() + SETTLED;
        loop {
            let running = self.running()?;
            let answer = http::get(self.temps.http(), &self.temps.host(APP), "/");
            let answered = answer.map(|answer| answer.release().to_owned());
            let is_right = answered.as_ref().is_ok_and(|from| *from == self.serving);
            if is_right && running == [&*self.serving] {
                return Ok(status);
            }
            let should = &self.serving;
            if Instant::now() >= end {
                bail!("{status}; {should} should serve; {answered:?} answers, {running:?} run");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// How the release ended, once nothing is under way or watched any more.
    fn settled(&self, release: &str) -> Result<String> {
        let end = Instant::now() + SETTLED;
        loop {
            let shown = self.json(&["app", "show", APP, "--json"])?;
            if shown["deployment"].is_null() {
                let all = self.json(&["release", "list", APP, "--json"])?;
                let all = all.as_array().context("a list")?;
                let found = all.iter().find(|one| one["release"] == release);
                let status = found.and_then(|one| one["status"].as_str());
                return Ok(status.context("the release is listed")?.to_owned());
            }
            ensure!(Instant::now() < end, "still under way: {shown}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.temps.run(arguments)?.success()?;
        serde_json::from_str(&output.stdout).context("JSON")
    }

    /// The releases that run, one entry per instance.
    fn running(&self) -> Result<Vec<String>> {
        let mut instances: BTreeMap<String, String> = BTreeMap::new();
        for process in process::all() {
            let value = |name: &str| process.environment.get(name).cloned();
            if let (Some(instance), Some(release)) =
                (value("TEMPS_INSTANCE"), value("TEMPS_RELEASE"))
                && process.state != 'Z'
                && process.uses(self.temps.state())
            {
                instances.insert(instance, release);
            }
        }
        if self.of == "container" {
            for mut thing in docker::things()? {
                let mut label = |name: &str| thing.labels.remove(name).unwrap_or_default();
                let (instance, release) = (label("sh.temps.instance"), label("sh.temps.release"));
                if thing.kind == "container" && self.releases.contains(&release) {
                    instances.insert(instance, release);
                }
            }
        }
        Ok(instances.into_values().collect())
    }
}
