//! The main job, measured: deployments in a row of one app under load. The suite runs a few, the
//! soak program many.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::app;
use crate::load::{Load, LoadSpec, Report};
use crate::temps::Temps;

/// What came out of it.
#[derive(Debug)]
pub struct MainJob {
    /// The sample app that was deployed.
    pub of: String,
    /// How long each deployment took, first to last.
    pub took: Vec<Duration>,
    /// What the clients saw.
    pub report: Report,
    /// Answers of an old release to requests that started after `temps deploy` had returned.
    pub stale: usize,
    /// Releases that never answered although they were live.
    pub unseen: usize,
    /// Every release, the first one included, in order.
    pub releases: Vec<String>,
}

/// Deploys the sample app `of` (`python`, `container`) once, then `count` times under `spec`'s load
/// (by default the main job's).
///
/// # Errors
/// A deployment that does not come to live.
pub fn run(temps: &Temps, app: &str, of: &str, count: usize) -> Result<MainJob> {
    let deploy = |version: usize| -> Result<(String, Duration)> {
        let made = app::make(of, "healthy", &format!("v{version}"))?;
        let begun = Instant::now();
        let deployed = temps
            .deploy_json([app, "--source", made.arg(), "--watch", "30s"])?
            .live()
            .with_context(|| format!("deployment {version} of {of}"))?;
        Ok((deployed.release, begun.elapsed()))
    };
    let (first, _) = deploy(0)?;
    let mut releases = vec![first];
    let load = Load::start(LoadSpec::new(temps.http(), &temps.host(app)))?;
    let mut took = Vec::new();
    let mut replaced = Vec::new();
    for version in 1..=count {
        let (release, duration) = deploy(version)?;
        let old = releases.last().cloned().unwrap_or_default();
        replaced.push((old, Instant::now()));
        took.push(duration);
        releases.push(release);
        // So long each release serves alone, for its answers to be seen.
        std::thread::sleep(Duration::from_millis(300));
    }
    let report = load.stop_blocking();
    ensure!(report.sent > 0, "the load sent nothing");
    let stale = replaced
        .iter()
        .map(|(old, at)| report.answers_from_after(old, *at))
        .sum();
    let unseen = releases
        .iter()
        .filter(|release| report.answers_from(release) == 0)
        .count();
    Ok(MainJob {
        of: of.to_owned(),
        took,
        report,
        stale,
        unseen,
        releases,
    })
}

impl MainJob {
    /// Whether no request failed, no answer was stale and every release was seen.
    pub fn is_clean(&self) -> bool {
        self.report.failed_total == 0 && self.stale == 0 && self.unseen == 0
    }
}

impl fmt::Display for MainJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.took.clone();
        sorted.sort();
        let middle = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        let longest = sorted.last().copied().unwrap_or_default();
        writeln!(
            f,
            "{}: {} deployments, {} requests, {} failed, {} stale answers, {} releases unseen; \
             a deployment took {middle:.2?} (median), {longest:.2?} (longest)",
            self.of,
            self.took.len(),
            self.report.sent,
            self.report.failed_total,
            self.stale,
            self.unseen,
        )?;
        write!(f, "{}", self.report)
    }
}
