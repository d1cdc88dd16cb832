//! The whole main job: `cargo run -p temps-tests --bin main-job [COUNT]` deploys COUNT times (20)
//! with the process runtime and as often with containers, under the load of the main job. Exits 1
//! if a request failed or an old release answered late. Not part of the suite: it takes minutes.

use std::process::ExitCode;

use anyhow::{Context, Result};
use harness::docker;
use harness::main_job::{self, MainJob};
use harness::temps::{Options, Temps};

fn main() -> Result<ExitCode> {
    let count: usize = match std::env::args().nth(1) {
        Some(text) => text.parse().context("COUNT is a number")?,
        None => 20,
    };
    let mut jobs = vec![one("python", count, false)?];
    match docker::available() {
        Ok(()) => jobs.push(one("container", count, true)?),
        Err(reason) => println!("SKIPPED containers: {reason}"),
    }
    let deployments: usize = jobs.iter().map(|job| job.took.len()).sum();
    let sent: u64 = jobs.iter().map(|job| job.report.sent).sum();
    let failed: u64 = jobs.iter().map(|job| job.report.failed_total).sum();
    let stale: usize = jobs.iter().map(|job| job.stale).sum();
    println!(
        "total: {deployments} deployments, {sent} requests, {failed} failed, {stale} stale answers"
    );
    let is_clean = jobs.iter().all(MainJob::is_clean);
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn one(of: &str, count: usize, docker: bool) -> Result<MainJob> {
    let temps = Temps::up(Options {
        docker,
        ..Options::default()
    })?;
    let job = main_job::run(&temps, "shop", of, count)?;
    println!("{job}");
    Ok(job)
}
