//! The process: sockets adopted, parts put together, ready, served, drained.
//!
//! ```text
//! adopt -> configuration -> stored routes, authority -> accepting -> READY=1
//!   SIGTERM: a helper serves (see handover) -> stop accepting -> drain (see http::live) -> the
//!            rest is cut -> exit 0
//!   SIGHUP:  timeouts and header limit are read again
//!   a wrong configuration: the last good one goes on, also at a start
//!   a critical task ends: as with SIGTERM, but exit 70, and the manager starts us again
//! ```
//!
//! The helper is the same process with less: no control socket, nothing written but access events;
//! it drains when it is told to leave.

mod doors;
mod parts;
pub mod reload;
mod start;

use crate::adapter::deployd::Deployd;
use crate::bus;
use crate::engine::Engine;
use crate::engine::watch::{self, Rhythm};
use crate::event;
use crate::handover::client::{Helper, Hold};
use crate::handover::server::Desk;
use crate::handover::sockets::Sockets;
use crate::port::Alarm;
use crate::spool::Spool;
use crate::status::Status;
use doors::Ends;
use parts::parts;
use reload::Reload;
use start::prepare;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use temps_unit::bus::Place;
use temps_unit::exit::Exit;
use temps_unit::listen::Listeners;
use temps_unit::shutdown::{Reloads, Signals};
use temps_unit::task::Supervisor;
use temps_unit::watchdog::Watchdog;
use temps_unit::{journal, notify};
use tokio_util::sync::CancellationToken;

pub use start::{CONTROL, Duty, HANDOVER, HTTP, HTTPS, Kind, Start};

/// Memory per thread that waits for the disk is small, but not nothing.
const DISK_THREADS: usize = 32;

/// How long tasks that are not requests may take to end.
const WIND_UP: Duration = Duration::from_secs(2);

/// Runs the daemon.
pub fn main(kind: Kind) -> ExitCode {
    // Before any thread exists, as adoption asks for.
    let listeners = Listeners::adopt();
    journal::init(match kind {
        Kind::Main => "temps-proxy",
        Kind::Helper => "temps-proxy-handover",
    });
    let start = match listeners
        .map_err(|error| (Exit::Usage, error.to_string()))
        .and_then(|listeners| prepare(kind, listeners))
    {
        Ok(start) => start,
        Err((exit, problem)) => return fail(exit, &problem),
    };
    // Held until the process is gone: what is cut at the end still relies on the routes.
    let _turn = start.turn();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(start.settings.threads())
        .max_blocking_threads(DISK_THREADS)
        .thread_name("proxy")
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(run(start));
            // What is left is upgraded or past the deadline.
            runtime.shutdown_background();
            exit.into()
        }
        Err(problem) => fail(Exit::Internal, &problem),
    }
}

fn fail(exit: Exit, problem: &dyn std::fmt::Display) -> ExitCode {
    tracing::error!("{problem}");
    notify::status(&format!("failed: {problem}"));
    exit.into()
}

async fn run(start: Start) -> Exit {
    match Signals::install() {
        Ok(signals) => {
            let alarm = Deployd::new(&start.settings.deployd_socket);
            serve(
                start,
                Arc::new(alarm),
                signals.shutdown,
                Some(signals.reloads),
            )
            .await
        }
        Err(problem) => {
            tracing::error!("{problem}");
            Exit::Internal
        }
    }
}

/// Serves until `shutdown`, then drains. For the daemon and for tests.
pub async fn serve(
    start: Start,
    alarm: Arc<dyn Alarm>,
    shutdown: CancellationToken,
    reloads: Option<Reloads>,
) -> Exit {
    let supervisor = Supervisor::new(shutdown.clone());
    let watchdog = Watchdog::from_env();
    let settings = start.settings.clone();
    let ends = Ends {
        // After the shutdown, when others accept.
        closed: CancellationToken::new(),
        // After the drain: what requests still need is kept until then.
        over: CancellationToken::new(),
    };
    let over = ends.over.clone();
    let spool = spool(&start, &supervisor, &over);
    let (problem, state) = (Arc::clone(&start.problem), start.state.clone());
    let (helper, _turn) = (start.helper(), start.turn());
    let sockets = match Sockets::of(&start.http, &start.https) {
        Ok(sockets) => sockets,
        Err(problem) => {
            tracing::error!("{problem}");
            return Exit::Internal;
        }
    };
    let parts = match parts(&start, spool).await {
        Ok(parts) => parts,
        Err((exit, problem)) => {
            tracing::error!("{problem}");
            notify::status(&format!("failed: {problem}"));
            return exit;
        }
    };
    // Before anything that takes time: it waits for a successor, but not for ever.
    let met = match &helper {
        Some(helper) if parts.engine.is_helped().await => helper.meet().await,
        _ => None,
    };
    let desk = match doors::open(start, &parts, &supervisor, &watchdog, &ends) {
        Ok(desk) => desk,
        Err(problem) => {
            tracing::error!("{problem}");
            return Exit::Internal;
        }
    };
    let rhythm = Rhythm {
        check: settings.probes.routed,
        alarm: settings.probes.report,
    };
    let alive = watchdog.register("watch").ticker();
    let watching = watch::run(Arc::clone(&parts.engine), alarm, rhythm, alive);
    supervisor.critical("watch", until(over.clone(), watching));
    let following = Arc::clone(&parts.certificates).follow();
    supervisor.critical("certificates", until(over.clone(), following));
    supervisor.critical("watchdog", until(over.clone(), watchdog.run(over.clone())));
    supervisor.critical(
        "status",
        until(
            over.clone(),
            tell(Arc::clone(&parts.engine), Arc::clone(&parts.status)),
        ),
    );
    let reload = Reload {
        timeouts: Arc::clone(&parts.timeouts),
        header_bytes: Arc::clone(&parts.header_bytes),
        problem,
        state,
        status: Arc::clone(&parts.status),
    };
    if let Some(reloads) = reloads {
        let serving = reload.clone().serve(reloads);
        supervisor.critical("reload", until(over.clone(), serving));
    }
    // A helper leaves the name to the main process; whoever runs `temps up` has somebody else's bus.
    let bus = (desk.is_none() && !settings.standalone)
        .then(|| bus::start(&parts.status, reload, Place::System, &supervisor));
    let routes = parts.engine.table().snapshot().routes.len();
    if desk.is_some() {
        temps_unit::event!(
            info,
            event::HANDED_OVER,
            routes,
            "a helper serves while the proxy is restarted"
        );
    } else {
        temps_unit::event!(info, event::STARTED, routes, "the proxy serves");
    }
    notify::status(&parts.status.line());
    notify::ready();
    if let Some(hold) = met {
        let over = over.clone();
        supervisor.spawn("handover", async move {
            over.run_until_cancelled(hold.release()).await
        });
    }

    let (exit, for_good) = tokio::select! {
        () = shutdown.cancelled() => (Exit::Success, true),
        // Somebody is told by the supervisor already; requests in flight still get their time.
        _ = supervisor.failed() => (Exit::Internal, true),
        () = dismissed(desk.as_deref()) => (Exit::Success, false),
    };
    notify::stopping();
    shutdown.cancel();
    if let Some(desk) = desk.filter(|_| for_good) {
        desk.stopping();
    }
    // Others accept before we do not any more.
    let _hold = match &helper {
        Some(helper) => hand_over(helper, sockets, settings.drain_deadline).await,
        None => None,
    };
    ends.closed.cancel();
    let drained = parts
        .live
        .drain(settings.fresh_grace, settings.drain_deadline);
    let left = async {
        if let Some(bus) = bus {
            bus.leave().await;
        }
    };
    let (cut, ()) = tokio::join!(drained, left);
    over.cancel();
    if let Err(names) = supervisor.drain(WIND_UP).await {
        tracing::warn!(?names, "these did not end in time");
    }
    temps_unit::event!(
        info,
        event::DRAINED,
        cut,
        requests = parts.live.requests(),
        "the proxy has drained"
    );
    exit
}

/// Waits until the helper is not needed any more; for ever, if this is not one.
async fn dismissed(desk: Option<&Desk>) {
    match desk {
        Some(desk) => desk.dismissed().await,
        None => std::future::pending().await,
    }
}

/// Has a helper serve from now on, until the next main process does.
async fn hand_over(helper: &Helper, sockets: Sockets, drain: Duration) -> Option<Hold> {
    let sockets = sockets.still_wanted().await;
    if sockets.is_empty() {
        return None;
    }
    // One that leaves drains as we do, and the next starts after it.
    match helper.summon(drain + WIND_UP, &sockets).await {
        Ok(hold) => Some(hold),
        Err(error) => {
            tracing::warn!(%error, "no helper serves during the drain: new connections wait for its end");
            None
        }
    }
}

/// `task`, which never ends, until `over`.
async fn until(
    over: CancellationToken,
    task: impl Future<Output = ()>,
) -> Result<(), &'static str> {
    match over.run_until_cancelled(task).await {
        Some(()) => Err("it has nothing to end for"),
        None => Ok(()),
    }
}

fn spool(start: &Start, supervisor: &Supervisor, over: &CancellationToken) -> Spool {
    if start.settings.spool.bytes == 0 {
        return Spool::none();
    }
    let (spool, writer) = Spool::new(start.state.join("spool"), start.settings.spool.bytes);
    let writing = writer.run(over.clone());
    let over = over.clone();
    supervisor.critical("spool", async move {
        writing.await;
        if over.is_cancelled() {
            Ok(())
        } else {
            Err("it has nothing to end for")
        }
    });
    spool
}

/// Keeps the manager's status line true.
async fn tell(engine: Arc<Engine>, status: Arc<Status>) {
    let mut generations = engine.generations();
    while generations.changed().await.is_ok() {
        notify::status(&status.line());
    }
}
