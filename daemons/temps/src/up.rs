//! `temps up`: the whole platform in the foreground, where there is no systemd.
//!
//! ```text
//! temps up ─┬─ temps-proxy      always
//!           └─ temps-deployd    when somebody connects to its sockets, until it has nothing to do
//!                └─ temps-instance …   apps of the process runtime; ours when deployd ends
//! ```
//!
//! Stands in for systemd, by the same protocols: it binds every socket and passes it (`LISTEN_FDS`),
//! hears of readiness (`NOTIFY_SOCKET`), restarts what fails, and calls the reconciliation every 15
//! minutes. It is the subreaper of everything it starts, so that nothing outlives it.

mod children;
mod config;
mod connection;
mod daemon;
mod instances;
mod log;
mod place;
mod sockets;

use crate::cli::UpArgs;
use crate::instance;
use crate::output::{Done, Out, Stop};
use children::Children;
use daemon::{Daemon, Health};
use nix::sys::signal::Signal;
use place::Place;
use sockets::Sockets;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::rpc::DeploydClient;
use temps_ipc::wire::client::{Link, Repeat};
use temps_unit::notify::Receiver;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often what runs is compared with what should run (design: every 15 minutes).
const RECONCILE_EVERY: Duration = Duration::from_secs(15 * 60);

/// How long a reconciliation may take: at boot it starts every instance and waits for it.
const RECONCILE: Duration = Duration::from_secs(10 * 60);

/// How long deployd may take to stop. It writes every step before it takes it, so it can stop
/// between any two.
const DEPLOYD_STOP: Duration = Duration::from_secs(20);

/// How long the proxy may take to answer the requests in flight; a little over its own limit.
const PROXY_STOP: Duration = Duration::from_secs(40);

/// Requests in flight are given this long before the apps are told to stop as well. Longer ones and
/// open streams end when their app ends them.
const HEAD_START: Duration = Duration::from_secs(2);

/// Failures in a row after which `ready` does not wait for deployd any more.
const HOPELESS: u32 = 3;

/// Failures in a row after which a proxy that was never ready ends the start: about six seconds.
const NEVER_READY: u32 = 5;

/// Exit status after a second interrupt, as shells have it: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// Runs the platform until it is told to stop.
pub async fn run(args: UpArgs, runtime_dir: Option<&Path>, out: &Out) -> Done {
    let place = Place::take(args.state.as_deref(), runtime_dir)?;
    let sockets = Sockets::bind(&place, args.http, args.https)?;
    let config = config::write(&place, &args.base_domain, &sockets)?;
    let mut stops = Stops::install()?;
    children::become_subreaper()?;
    let children = Arc::new(Children::default());
    let notify =
        Receiver::bind(place.notify()).map_err(|error| Fault::internal(error.to_string()))?;
    let keeper = tokio::spawn(children::keep(Arc::clone(&children), notify));

    let ready = format!(
        "ready http={} https={} state={}",
        sockets.http_url(),
        sockets.https_url(),
        place.state.display()
    );
    let mut proxy = Running::start(config.proxy(sockets.for_proxy()?), &children);
    let mut deployd = Running::start(config.deployd(sockets.for_deployd()?), &children);
    // The daemons' copies are all that is left: when the proxy stops listening, nobody does.
    drop(sockets);

    let served = serve(
        &place,
        &mut proxy,
        &mut deployd,
        &mut stops,
        keeper,
        &ready,
        out,
    )
    .await;
    let stopped = tokio::select! {
        () = stop(proxy, deployd, &children, &place) => Ok(()),
        () = stops.next() => {
            log::say("stopping at once");
            instances::kill_all(&children, &place).await;
            Err(Stop::Status(INTERRUPTED))
        }
    };
    place.clean_up();
    served.and(stopped)
}

/// Serves until it is told to stop (`Ok`) or cannot go on.
async fn serve(
    place: &Place,
    proxy: &mut Running,
    deployd: &mut Running,
    stops: &mut Stops,
    keeper: JoinHandle<Fault>,
    ready: &str,
    out: &Out,
) -> Done {
    let link = Link::new(place.runtime.join(instance::DEPLOYD));
    let (mut serves, mut deploys) = (proxy.health.clone(), deployd.health.clone());
    let work = async {
        proxy_ready(&mut serves).await?;
        boot(&link, &mut deploys).await;
        out.line(ready)?;
        loop {
            tokio::select! {
                () = tokio::time::sleep(RECONCILE_EVERY) => {}
                () = recovered(&mut deploys) => {}
            }
            reconcile(&link).await;
        }
    };
    tokio::select! {
        () = stops.next() => Ok(()),
        failed = work => failed,
        ended = proxy.ended() => Err(ended.into()),
        ended = deployd.ended() => Err(ended.into()),
        fault = keeper => Err(fault.unwrap_or_else(|error| Fault::internal(error.to_string())).into()),
    }
}

/// Waits for the proxy's first readiness.
///
/// # Errors
/// When it does not come, and trying again does not help.
async fn proxy_ready(health: &mut watch::Receiver<Health>) -> Result<(), Fault> {
    let settled = |health: &Health| {
        health.ready || health.hopeless.is_some() || health.failures >= NEVER_READY
    };
    let now = health
        .wait_for(settled)
        .await
        .map_err(|_| Fault::internal("temps-proxy is not supervised any more"))?;
    if now.ready {
        return Ok(());
    }
    let never =
        || Fault::unavailable("temps-proxy does not start").hint("its last lines above say why");
    Err(now.hopeless.clone().unwrap_or_else(never))
}

/// The first reconciliation. The call itself starts deployd. What serves already goes on serving
/// without it, so that a deployd which cannot start is said, and no reason to stop.
async fn boot(link: &Link<DeploydClient>, health: &mut watch::Receiver<Health>) {
    let lost = health.wait_for(|health| health.hopeless.is_some() || health.failures >= HOPELESS);
    tokio::select! {
        () = reconcile(link) => {}
        _ = lost => log::say("temps-deployd does not start: instances that still run are served, but none is started and nothing can be deployed; see above"),
    }
}

/// Waits until deployd is ready again after a failure: what it had begun may be half done, and at a
/// failed boot nothing was begun.
async fn recovered(health: &mut watch::Receiver<Health>) {
    let failed = health.wait_for(|health| !health.ready && health.failures > 0);
    if failed.await.map(drop).is_err() {
        std::future::pending::<()>().await;
    }
    if health
        .wait_for(|health| health.ready)
        .await
        .map(drop)
        .is_err()
    {
        std::future::pending::<()>().await;
    }
}

async fn reconcile(link: &Link<DeploydClient>) {
    let answer = link.call(
        Repeat::Idempotent,
        RECONCILE,
        |client, context| async move { client.reconcile(context).await },
    );
    match answer.await {
        Ok(mended) => mended
            .iter()
            .for_each(|what| log::say(&format!("reconciled: {what}"))),
        Err(fault) => log::say(&format!("reconciling failed: {fault}")),
    }
}

/// Stops everything, in an order that lets requests in flight be answered: deployd first, so that
/// nothing is started any more; then the proxy takes no new requests; then the apps.
async fn stop(proxy: Running, deployd: Running, children: &Children, place: &Place) {
    log::say("stopping");
    deployd.stop(DEPLOYD_STOP).await;
    let draining = proxy.stop(PROXY_STOP);
    tokio::pin!(draining);
    let drained = tokio::time::timeout(HEAD_START, &mut draining)
        .await
        .is_ok();
    instances::stop(children, place).await;
    if !drained {
        draining.await;
    }
    log::say("stopped");
}

/// A supervised daemon.
struct Running {
    name: &'static str,
    health: watch::Receiver<Health>,
    stop: watch::Sender<Option<Duration>>,
    task: JoinHandle<Fault>,
}

impl Running {
    fn start(daemon: Daemon, children: &Arc<Children>) -> Self {
        let (stop, stopping) = watch::channel(None);
        let (report, health) = watch::channel(Health::default());
        let name = daemon.name;
        let task = tokio::spawn(daemon::supervise(
            daemon,
            Arc::clone(children),
            stopping,
            report,
        ));
        Self {
            name,
            health,
            stop,
            task,
        }
    }

    /// The supervision ended unasked.
    async fn ended(&mut self) -> Fault {
        (&mut self.task)
            .await
            .unwrap_or_else(|error| Fault::internal(format!("{}: {error}", self.name)))
    }

    /// Stops the daemon; kills it after `patience`.
    async fn stop(self, patience: Duration) {
        // Without a receiver the supervision has ended, and the daemon with it.
        let _ = self.stop.send(Some(patience));
        let _ = self.task.await;
    }
}

/// The signals that mean the end.
struct Stops {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Absent under nohup(1), which ignores it for us.
    hangup: Option<tokio::signal::unix::Signal>,
}

impl Stops {
    fn install() -> Result<Self, Fault> {
        let failed = |error| Fault::internal(format!("signals cannot be handled: {error}"));
        let ignored = children::is_ignored(Signal::SIGHUP);
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            hangup: if ignored {
                None
            } else {
                Some(signal(SignalKind::hangup()).map_err(failed)?)
            },
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hangup => {}
        }
    }
}
