//! Deployments of all kinds while daemons are killed at any moment:
//! `cargo run -p temps-tests --bin chaos [ROUNDS [SEED]]` (100 rounds). Each round deploys a release
//! that is good, crashes, answers 500 or dies later, and kills -9 deployd, the proxy or both some
//! time after its start. Exits 1 if a deployment does not end as its release deserves, if the app
//! does not answer afterwards, or if anything else is left running.

#![allow(
    clippy::disallowed_methods,
    reason = "nothing here is async; the program may block"
)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::app;
use harness::command;
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
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| -> Result<u64> {
        let text = arguments.next();
        text.map_or(Ok(default), |text| text.parse().context("a number"))
    };
    let (rounds, seed) = (number(100)?, number(1)?);
    let mut random = Random(seed.wrapping_mul(2).wrapping_add(1));
    let mut seen: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut temps = Temps::up(Options::default())?;
    let mut serving = deploy(&temps, "healthy")?.live()?.release;
    let mut wrong = 0;
    for round in 0..rounds {
        if round % 10 == 9 {
            // Daemons that were killed often are started again ever later.
            temps = Temps::up(Options::default())?;
            serving = deploy(&temps, "healthy")?.live()?.release;
        }
        let (variant, outcomes) = random.one_of(&KINDS);
        let victims = random.one_of(&VICTIMS);
        let after = Duration::from_millis(random.below(1_500));
        let what = format!("round {round}: {variant}, kill {victims:?} after {after:?}");
        match play(&temps, variant, outcomes, victims, after, &serving) {
            Ok((outcome, now)) => {
                *seen.entry((variant.to_owned(), outcome)).or_default() += 1;
                serving = now;
            }
            Err(error) => {
                wrong += 1;
                println!("{what}: {error:#}\n{}", temps.log());
                temps = Temps::up(Options::default())?;
                serving = deploy(&temps, "healthy")?.live()?.release;
            }
        }
    }
    for ((variant, outcome), count) in &seen {
        println!("{variant:<14} {outcome:<12} {count}");
    }
    println!("seed {seed}: {rounds} rounds, {wrong} wrong");
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn arguments(source: &str) -> [&str; 9] {
    [
        "deploy",
        APP,
        "--source",
        source,
        "--watch",
        "3s",
        "--health-timeout",
        "3s",
        "--json",
    ]
}

fn deploy(temps: &Temps, variant: &str) -> Result<Deployed> {
    let made = app::make("python", variant, "v1")?;
    Deployed::parse(temps.run(arguments(made.arg()))?)
}

/// One round; its outcome, and the release that serves after it.
fn play(
    temps: &Temps,
    variant: &str,
    outcomes: &[&str],
    victims: &[&str],
    after: Duration,
    before: &str,
) -> Result<(String, String)> {
    let made = app::make("python", variant, "v1")?;
    let mut command = temps.command(arguments(made.arg()));
    let deploying = thread::spawn(move || command::run(&mut command, SETTLED));
    thread::sleep(after);
    for victim in victims {
        // It may be on its way up from the last round.
        let _ = temps.kill_daemon(victim);
    }
    let output = deploying.join().ok().context("the thread ended")??;
    let deployed = Deployed::parse(output)?;
    let status = settled(temps, &deployed.release)?;
    ensure!(
        outcomes.contains(&&*status),
        "it ended as {status}: {deployed:?}"
    );
    let serving = if status == "live" {
        &*deployed.release
    } else {
        before
    };
    let end = Instant::now() + SETTLED;
    loop {
        let running = running(temps);
        let answer = http::get(temps.http(), &temps.host(APP), "/");
        let answered = answer.map(|answer| answer.release().to_owned());
        if running == [serving] && answered.as_deref().is_ok_and(|release| release == serving) {
            return Ok((status, serving.to_owned()));
        }
        if Instant::now() >= end {
            bail!("{status}; {serving} should serve; {answered:?} answers, {running:?} run");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// How the release ended, once nothing is under way or watched any more.
fn settled(temps: &Temps, release: &str) -> Result<String> {
    let end = Instant::now() + SETTLED;
    loop {
        let json = |arguments: &[&str]| -> Result<Value> {
            Ok(serde_json::from_str(
                &temps.run(arguments)?.success()?.stdout,
            )?)
        };
        let shown = json(&["app", "show", APP, "--json"])?;
        if shown["deployment"].is_null() {
            let all = json(&["release", "list", APP, "--json"])?;
            let all = all.as_array().context("a list")?;
            let found = all.iter().find(|one| one["release"] == release);
            let status = found.and_then(|one| one["status"].as_str());
            return Ok(status.context("the release is listed")?.to_owned());
        }
        ensure!(Instant::now() < end, "still under way: {shown}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// The releases that run, one entry per instance.
fn running(temps: &Temps) -> Vec<String> {
    let mut instances: BTreeMap<String, String> = BTreeMap::new();
    for process in process::all() {
        let value = |name: &str| process.environment.get(name).cloned();
        if let (Some(instance), Some(release)) = (value("TEMPS_INSTANCE"), value("TEMPS_RELEASE"))
            && process.state != 'Z'
            && process.uses(temps.state())
        {
            instances.insert(instance, release);
        }
    }
    instances.into_values().collect()
}
