//! An open-loop HTTP/1.1 load: requests start when they are due, whatever became of those before.
//!
//! - Nothing is ever sent twice: a request that was written and not answered has failed.
//! - A request that finds every kept connection busy opens one more, so a slow server makes
//!   latencies grow and the rate stay. The limit of each request bounds what is open.
//! - Every answer is filed under its release with the time its request was *started*, so a test can
//!   say: nothing that was started after the switch was answered by the old release.
//! - It runs on a thread and runtime of its own; a test may block.

mod client;
mod histogram;
mod report;
#[cfg(test)]
mod tests;

pub use histogram::Histogram;
pub use report::{Answers, Failure, FailureKind, Path, Report};

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval_at, timeout_at};

use client::Client;
use report::Ended;

/// What to send where.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    pub addr: SocketAddr,
    /// The `Host` header; without its port also the name asked for in TLS.
    pub host: String,
    pub path: String,
    /// Requests a second on kept connections; 0 for none.
    pub keepalive_rps: u32,
    /// So many connections are kept.
    pub keepalive_conns: usize,
    /// Requests a second that each open a connection; 0 for none.
    pub new_conn_rps: u32,
    /// For one request, from the moment it is due to the end of its answer.
    pub timeout: Duration,
    /// The CA to trust, in PEM; no TLS without one.
    pub tls: Option<Vec<u8>>,
}

impl LoadSpec {
    /// The load of the main job: 200 requests a second on 20 kept connections, 50 new connections a
    /// second, 5 seconds of patience.
    pub fn new(addr: SocketAddr, host: &str) -> Self {
        Self {
            addr,
            host: host.to_owned(),
            path: "/".to_owned(),
            keepalive_rps: 200,
            keepalive_conns: 20,
            new_conn_rps: 50,
            timeout: Duration::from_secs(5),
            tls: None,
        }
    }
}

/// A load that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Load {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
    report: Arc<Mutex<Report>>,
}

impl Load {
    /// Starts the load; the first requests are due at once.
    ///
    /// # Errors
    /// The host, path or CA is no good.
    pub fn start(spec: LoadSpec) -> Result<Self> {
        let report = Arc::new(Mutex::new(Report::new(Instant::now())));
        let client = Arc::new(Client::new(&spec, report.clone())?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a runtime")?;
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                runtime.block_on(drive(&spec, &client, stopped));
                let _ = end.send(());
            })
            .context("start a thread")?;
        Ok(Self {
            stop,
            ended,
            report,
        })
    }

    /// Starts no more requests, waits for those in flight, and tells what happened.
    ///
    /// # Panics
    /// The load itself panicked.
    pub async fn stop(self) -> Report {
        let _ = self.stop.send(());
        self.ended
            .await
            .expect("the load's thread ends without a panic");
        snapshot(&self.report)
    }

    /// As [`Load::stop`], for a test that is not async.
    ///
    /// # Panics
    /// The load itself panicked, or the caller runs inside a runtime.
    pub fn stop_blocking(self) -> Report {
        let _ = self.stop.send(());
        self.ended
            .blocking_recv()
            .expect("the load's thread ends without a panic");
        snapshot(&self.report)
    }

    /// What happened so far.
    pub fn so_far(&self) -> Report {
        snapshot(&self.report)
    }
}

fn snapshot(report: &Mutex<Report>) -> Report {
    report
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
        .timed()
}

/// Starts requests when they are due until `stopped` resolves, also by being dropped.
async fn drive(spec: &LoadSpec, client: &Arc<Client>, mut stopped: oneshot::Receiver<()>) {
    let mut kept = ticks(spec.keepalive_rps);
    let mut new = ticks(spec.new_conn_rps);
    let mut requests = JoinSet::new();
    loop {
        let (path, due) = tokio::select! {
            biased;
            _ = &mut stopped => break,
            due = next(&mut kept) => (Path::KeepAlive, due),
            due = next(&mut new) => (Path::NewConnection, due),
            Some(ended) = requests.join_next() => {
                ended.expect("a request does not panic");
                continue;
            }
        };
        requests.spawn(request(client.clone(), path, due, spec.timeout));
    }
    while let Some(ended) = requests.join_next().await {
        ended.expect("a request does not panic");
    }
}

fn ticks(rate: u32) -> Option<Interval> {
    let period = Duration::from_secs(1).checked_div(rate)?;
    let mut ticks = interval_at(tokio::time::Instant::now(), period);
    // A late tick is made up for: the rate stays.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    Some(ticks)
}

async fn next(ticks: &mut Option<Interval>) -> tokio::time::Instant {
    match ticks {
        Some(ticks) => ticks.tick().await,
        None => std::future::pending().await,
    }
}

async fn request(client: Arc<Client>, path: Path, due: tokio::time::Instant, limit: Duration) {
    let started = Instant::now();
    let mut answered = None;
    let exchange = async {
        match path {
            Path::KeepAlive => client.on_kept(&mut answered).await,
            Path::NewConnection => client.on_new(&mut answered).await,
        }
    };
    let failure = match timeout_at(due + limit, exchange).await {
        Ok(Ok(())) => None,
        Ok(Err(failed)) => Some(failed),
        Err(_) => Some((
            FailureKind::Timeout,
            format!("not answered within {limit:?}"),
        )),
    };
    client.report().record(Ended {
        due: due.into_std(),
        started,
        path,
        answered,
        failure,
    });
}
