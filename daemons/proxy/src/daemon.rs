//! The process: sockets adopted, parts put together, ready, served, drained.
//!
//! ```text
//! adopt -> configuration -> stored routes, authority -> accepting -> READY=1
//!   SIGTERM: stop accepting -> drain (see http::live) -> the rest is cut -> exit 0
//!   SIGHUP:  timeouts and header limit are read again
//!   a wrong configuration: the last good one goes on, also at a start
//!   a critical task ends: exit 70, and the manager starts us again
//! ```

mod parts;

use crate::adapter::deployd::Deployd;
use crate::config::{self as settings, Settings};
use crate::engine::Engine;
use crate::engine::watch::{self, Rhythm};
use crate::event;
use crate::http::front::Scheme;
use crate::port::Alarm;
use crate::rpc::Rpc;
use crate::spool::Spool;
use crate::status::{Problem, Status};
use arc_swap::ArcSwap;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use parts::{Parts, parts};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tarpc::server::Serve as _;
use temps_ipc::rpc::Proxy as _;
use temps_unit::authz::Policy;
use temps_unit::dirs::Dirs;
use temps_unit::exit::Exit;
use temps_unit::idle::Idle;
use temps_unit::listen::Listeners;
use temps_unit::serve::{Limits as RpcLimits, serve_rpc};
use temps_unit::shutdown::{Reloads, Signals};
use temps_unit::task::Supervisor;
use temps_unit::watchdog::Watchdog;
use temps_unit::{config, journal, notify};
use tokio_util::sync::CancellationToken;

/// Names of the sockets: the first two are TCP, one at least is needed; `…6` for a second family.
pub const HTTP: [&str; 2] = ["http", "http6"];
/// See [`HTTP`].
pub const HTTPS: [&str; 2] = ["https", "https6"];
/// The control socket (Unix), always needed.
pub const CONTROL: &str = "control";

/// Memory per thread that waits for the disk is small, but not nothing.
const DISK_THREADS: usize = 32;

/// How long tasks that are not requests may take to end.
const WIND_UP: Duration = Duration::from_secs(2);

/// What the daemon needs before it can run.
#[derive(Debug)]
pub struct Start {
    /// Plain listeners.
    pub http: Vec<TcpListener>,
    /// TLS listeners.
    pub https: Vec<TcpListener>,
    /// The control socket.
    pub control: UnixListener,
    /// The configuration.
    pub settings: Settings,
    /// What is wrong with the files, if these are the last good settings instead.
    pub problem: Problem,
    /// The state directory.
    pub state: PathBuf,
}

/// Runs the daemon.
pub fn main() -> ExitCode {
    // Before any thread exists, as adoption asks for.
    let listeners = Listeners::adopt();
    journal::init("temps-proxy");
    let start = match listeners
        .map_err(|error| (Exit::Usage, error.to_string()))
        .and_then(prepare)
    {
        Ok(start) => start,
        Err((exit, problem)) => return fail(exit, &problem),
    };
    let mut start = start;
    start.settings.limits.connections = start
        .settings
        .limits
        .connections
        .min(room_for_connections());
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

/// Descriptors kept for listeners, files, logs and callers.
const OTHER_DESCRIPTORS: u64 = 200;

/// How many connections the limit on descriptors allows: each may need a second one to its target,
/// and a proxy that accepts what it cannot forward answers with errors. Raises the limit to what is
/// allowed, since the usual soft limit of 1024 is for programs that use select(2).
fn room_for_connections() -> usize {
    let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        },
        Err(_) => 1024,
    };
    usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS) / 2)
        .unwrap_or(usize::MAX)
        .max(16)
}

fn fail(exit: Exit, problem: &dyn std::fmt::Display) -> ExitCode {
    tracing::error!("{problem}");
    notify::status(&format!("failed: {problem}"));
    exit.into()
}

type Failed = (Exit, String);

fn prepare(mut listeners: Listeners) -> Result<Start, Failed> {
    let usage = |error: temps_unit::listen::ListenError| (Exit::Usage, error.to_string());
    let mut take = |names: [&str; 2]| {
        let there: Vec<&str> = names
            .into_iter()
            .filter(|name| listeners.names().any(|n| n == *name))
            .collect();
        there
            .into_iter()
            .map(|name| listeners.take_tcp(name))
            .collect::<Result<Vec<_>, _>>()
    };
    let http = take(HTTP).map_err(usage)?;
    let https = take(HTTPS).map_err(usage)?;
    let control = listeners.take_unix(CONTROL).map_err(usage)?;
    listeners.finish().map_err(usage)?;
    if http.is_empty() && https.is_empty() {
        let problem = format!("no socket named {} or {} was passed", HTTP[0], HTTPS[0]);
        return Err((Exit::Usage, problem));
    }
    let configured = |error: &dyn std::fmt::Display| (Exit::Config, error.to_string());
    let dirs = Dirs::from_env().map_err(|error| configured(&error))?;
    let state = dirs.state().map_err(|error| configured(&error))?.to_owned();
    let found = read_settings(&state).map_err(|error| configured(&error))?;
    let problem = Problem::default();
    if let Some(wrong) = found.problem {
        tracing::error!("the configuration is wrong: {wrong}; the last good one is used");
        problem.store(Some(Arc::new(wrong)));
    }
    Ok(Start {
        http,
        https,
        control,
        settings: found.settings,
        problem,
        state,
    })
}

fn read_settings(state: &Path) -> Result<config::Found<Settings>, config::ConfigError> {
    let directories = config::directories();
    config::load_or_last_good(settings::NAME, &directories, state, |_| Ok(()))
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
    // Ends after the drain: what requests still need is kept until then.
    let over = CancellationToken::new();
    let spool = spool(&start, &supervisor, &over);
    let (problem, state) = (Arc::clone(&start.problem), start.state.clone());
    let parts = match parts(&start, spool).await {
        Ok(parts) => parts,
        Err((exit, problem)) => {
            tracing::error!("{problem}");
            notify::status(&format!("failed: {problem}"));
            return exit;
        }
    };
    if let Err(problem) = doors(start, &parts, &supervisor, &watchdog, &shutdown) {
        tracing::error!("{problem}");
        return Exit::Internal;
    }
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
    if let Some(reloads) = reloads {
        let (timeouts, bytes) = (Arc::clone(&parts.timeouts), Arc::clone(&parts.header_bytes));
        supervisor.critical(
            "reload",
            until(
                over.clone(),
                reload(reloads, timeouts, bytes, problem, state),
            ),
        );
    }
    temps_unit::event!(
        info,
        event::STARTED,
        routes = parts.engine.table().snapshot().routes.len(),
        "the proxy serves"
    );
    notify::status(&parts.status.line());
    notify::ready();

    let exit = tokio::select! {
        () = shutdown.cancelled() => Exit::Success,
        // Somebody is told by the supervisor already; requests in flight still get their time.
        _ = supervisor.failed() => Exit::Internal,
    };
    notify::stopping();
    shutdown.cancel();
    let cut = parts
        .live
        .drain(settings.fresh_grace, settings.drain_deadline)
        .await;
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

fn doors(
    start: Start,
    parts: &Parts,
    supervisor: &Supervisor,
    watchdog: &Watchdog,
    shutdown: &CancellationToken,
) -> std::io::Result<()> {
    let http = start
        .http
        .into_iter()
        .map(|listener| (listener, Scheme::Http));
    let https = start
        .https
        .into_iter()
        .map(|listener| (listener, Scheme::Https));
    for (listener, scheme) in http.chain(https) {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let name = if scheme == Scheme::Http {
            "http"
        } else {
            "https"
        };
        let alive = watchdog.register(name).ticker();
        let front = Arc::clone(&parts.front);
        supervisor.critical(
            name,
            front.accept(listener, scheme, alive, shutdown.clone()),
        );
    }
    let policy = if start.settings.standalone {
        Policy::only_uid(nix::unistd::geteuid().as_raw())
    } else {
        Policy::system()
    };
    let (engine, status, probes) = (
        Arc::clone(&parts.engine),
        Arc::clone(&parts.status),
        start.settings.probes,
    );
    let limits = RpcLimits {
        drain: start.settings.drain_deadline,
        ..RpcLimits::default()
    };
    let control = serve_rpc(
        start.control,
        policy,
        limits,
        Idle::never(),
        shutdown.clone(),
        move |_, role| {
            let service = Rpc::new(Arc::clone(&engine), Arc::clone(&status), probes, role).serve();
            move |context, request| service.clone().serve(context, request)
        },
    );
    supervisor.critical("control", control);
    Ok(())
}

/// Keeps the manager's status line true.
async fn tell(engine: Arc<Engine>, status: Arc<Status>) {
    let mut generations = engine.generations();
    while generations.changed().await.is_ok() {
        notify::status(&status.line());
    }
}

async fn reload(
    mut reloads: Reloads,
    timeouts: Arc<ArcSwap<settings::Timeouts>>,
    header_bytes: Arc<ArcSwap<usize>>,
    problem: Problem,
    state: PathBuf,
) {
    loop {
        reloads.next().await;
        notify::reloading();
        let state = state.clone();
        let read = tokio::task::spawn_blocking(move || read_settings(&state)).await;
        let wrong = match read {
            Ok(Ok(config::Found {
                settings: fresh,
                problem: None,
            })) => {
                timeouts.store(Arc::new(fresh.timeouts));
                header_bytes.store(Arc::new(fresh.limits.header_bytes));
                tracing::info!(
                    "timeouts and header limit were read again; the rest follows a restart"
                );
                None
            }
            Ok(Ok(found)) => found.problem,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(wrong) = &wrong {
            tracing::error!("the configuration is wrong: {wrong}; the one before stays");
        }
        problem.store(wrong.map(Arc::new));
        notify::ready();
    }
}
