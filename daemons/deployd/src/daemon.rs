//! The process: sockets adopted, parts put together, ready, served, drained.

mod parts;

use crate::bus;
use crate::config::Settings;
use crate::engine::Engine;
use crate::engine::paths::Paths;
use crate::event;
use crate::port::Builder;
use crate::rpc::Rpc;
use std::convert::Infallible;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tarpc::server::Serve as _;
use temps_ipc::rpc::Deployd as _;
use temps_unit::authz::Policy;
use temps_unit::bus::Place;
use temps_unit::dirs::Dirs;
use temps_unit::exit::Exit;
use temps_unit::idle::Idle;
use temps_unit::listen::Listeners;
use temps_unit::serve::{Limits, serve_rpc};
use temps_unit::shutdown::Signals;
use temps_unit::task::Supervisor;
use temps_unit::watchdog::Watchdog;
use temps_unit::{config, journal, notify};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Name of the control socket among the passed ones.
pub const CONTROL: &str = "deployd";

/// Name of the upload socket among the passed ones.
pub const UPLOAD: &str = "deployd-upload";

/// How long workers may take to leave their deployments at a stop: each step can be left at once.
const STOP: Duration = Duration::from_secs(15);

/// Period of the watchdog's proof that the engine's loop turns.
const BEAT: Duration = Duration::from_secs(5);

/// What the daemon needs before it can run.
struct Start {
    control: UnixListener,
    upload: UnixListener,
    settings: Settings,
    paths: Paths,
}

/// Runs the daemon.
pub fn main() -> ExitCode {
    // Before any thread exists, as adoption asks for.
    let listeners = Listeners::adopt();
    journal::init("temps-deployd");
    let listeners = match listeners {
        Ok(listeners) => listeners,
        Err(problem) => return fail(Exit::Usage, &problem),
    };
    let start = match prepare(listeners) {
        Ok(start) => start,
        Err((exit, problem)) => return fail(exit, &problem),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The engine waits far more than it computes; builds are other processes.
        .worker_threads(2)
        .thread_name("deployd")
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(run(start));
            runtime.shutdown_timeout(Duration::from_secs(1));
            exit
        }
        Err(problem) => fail(Exit::Internal, &problem),
    }
}

fn fail(exit: Exit, problem: &dyn std::fmt::Display) -> ExitCode {
    error!("{problem}");
    notify::status(&format!("failed: {problem}"));
    exit.into()
}

fn prepare(mut listeners: Listeners) -> Result<Start, (Exit, String)> {
    let usage = |problem: temps_unit::listen::ListenError| (Exit::Usage, problem.to_string());
    let control = listeners.take_unix(CONTROL).map_err(usage)?;
    let upload = listeners.take_unix(UPLOAD).map_err(usage)?;
    listeners.finish().map_err(usage)?;
    let dirs = Dirs::from_env().map_err(|problem| (Exit::Config, problem.to_string()))?;
    let state = dirs
        .state()
        .map_err(|problem| (Exit::Config, problem.to_string()))?;
    let found =
        config::load_or_last_good("deployd", &config::directories(), state, Settings::check)
            .map_err(|problem| (Exit::Config, problem.to_string()))?;
    if let Some(problem) = &found.problem {
        error!("the configuration is wrong: {problem}; the last good one is used");
    }
    let settings = Settings {
        problem: found.problem,
        ..found.settings
    };
    let paths = Paths::new(state);
    paths.create().map_err(|problem| {
        (
            Exit::Io,
            format!(
                "cannot use the state directory {}: {problem}",
                state.display()
            ),
        )
    })?;
    Ok(Start {
        control,
        upload,
        settings,
        paths,
    })
}

/// Ends what an earlier process left building; a build does so too before it begins.
async fn recover(builder: Arc<dyn Builder>) {
    if let Err(fault) = builder.recover().await {
        warn!(%fault, "jobs of earlier builds may be left");
    }
}

async fn run(start: Start) -> ExitCode {
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(problem) => return fail(Exit::Internal, &problem),
    };
    let idle = Idle::new(start.settings.idle);
    let parts = match parts::parts(&start.settings, &start.paths, &idle, &signals) {
        Ok(parts) => parts,
        Err((exit, problem)) => return fail(exit, &problem),
    };
    let builder = Arc::clone(&parts.builder);
    let engine = Engine::new(parts);
    if let Err(problem) = engine.resume().await {
        return fail(Exit::Config, &problem);
    }
    let policy = if start.settings.standalone {
        Policy::only_uid(nix::unistd::geteuid().as_raw())
    } else {
        Policy::system()
    };
    let address = socket_path(&start.control);
    // Accepting stops by this token: at SIGTERM, or when idle.
    let closing = signals.shutdown.child_token();
    let supervisor = Supervisor::new(closing.clone());
    supervisor.spawn("recovery", recover(builder));
    let uploads = engine.uploads();
    supervisor.critical(
        "uploads",
        uploads
            .clone()
            .serve(start.upload, policy.clone(), idle.clone(), closing.clone()),
    );
    let served = engine.clone();
    supervisor.critical(
        "rpc",
        serve_rpc(
            start.control,
            policy,
            Limits::default(),
            idle.clone(),
            closing.clone(),
            move |peer, role| {
                let service = Rpc::new(served.clone(), uploads.clone(), peer, role).serve();
                move |context, request| service.clone().serve(context, request)
            },
        ),
    );
    // Whoever runs `temps up` has a bus of somebody else, if any.
    let bus = (!start.settings.standalone)
        .then(|| bus::start(&engine, &idle, Place::System, &supervisor));
    let watchdog = Watchdog::from_env();
    let beat = watchdog.register("engine").every(BEAT);
    // Its notes go on until everything else has ended.
    let dog_stop = CancellationToken::new();
    let guard = Supervisor::new(dog_stop.clone());
    let dog = watchdog.run(dog_stop.clone());
    guard.critical("watchdog", async {
        dog.await;
        Ok::<(), Infallible>(())
    });
    let tending = (engine.clone(), closing.clone());
    supervisor.critical("copy", async move {
        let (engine, closing) = tending;
        let _ = closing
            .run_until_cancelled(engine.tend_store_always(BEAT))
            .await;
        Ok::<(), Infallible>(())
    });
    let telling = (engine.clone(), closing.clone());
    supervisor.critical("status", async move {
        let (engine, closing) = telling;
        let _ = closing.run_until_cancelled(tell_status(engine, beat)).await;
        Ok::<(), Infallible>(())
    });
    notify::ready();
    temps_unit::event!(
        info,
        event::STARTED,
        "temps-deployd {} is ready",
        env!("CARGO_PKG_VERSION")
    );
    let exit = loop {
        tokio::select! {
            () = signals.shutdown.cancelled() => break Exit::Success,
            () = idle.expired() => {
                info!("nothing to do: ending until the next call");
                break Exit::Success;
            }
            () = engine.damaged() => {
                error!("the database is damaged: the next start replaces it by its last good copy");
                break Exit::Internal;
            }
            failure = supervisor.failed() => {
                error!("{failure}");
                break Exit::Internal;
            }
            failure = guard.failed() => {
                error!("{failure}");
                break Exit::Internal;
            }
            () = signals.reloads.next() => {
                info!("settings are read at the start: `systemctl restart temps-deployd` loses nothing");
            }
        }
    };
    notify::stopping();
    // Before anything else ends: what was called by the bus is still done.
    if let Some(bus) = bus {
        bus.leave().await;
    }
    let stopped = signals.shutdown.is_cancelled();
    // Workers leave their deployments; the next start takes them up.
    signals.shutdown.cancel();
    if let Err(left) = supervisor.drain(STOP).await {
        error!(tasks = left.join(", "), "some tasks did not end in time");
    }
    if tokio::time::timeout(STOP, engine.stopped()).await.is_err() {
        error!("some deployments could not be left in time; the next start takes them up");
    }
    if let Err(problem) = engine.tend_store().await {
        warn!(%problem, "the last good copy of the database is older than it");
    }
    dog_stop.cancel();
    // It ends with its token.
    let _ = guard.drain(BEAT).await;
    if !stopped && let Some(address) = address {
        be_called_again(&engine, &address).await;
    }
    exit.into()
}

/// Where the control socket lies.
fn socket_path(socket: &UnixListener) -> Option<PathBuf> {
    let address = socket.local_addr().ok()?;
    address.as_pathname().map(Path::to_owned)
}

/// A call that came after we were idle may have begun a deployment, and its caller need not come back.
/// A connection in the queue of our socket, which the service manager holds, starts the next process.
async fn be_called_again(engine: &Engine, address: &Path) {
    match engine.counts().await {
        Ok((_, (0, 0))) => {}
        _ => {
            let call = tokio::net::UnixStream::connect(address);
            if let Ok(Err(problem)) = tokio::time::timeout(BEAT, call).await {
                warn!(%problem, "a deployment waits for the next call");
            }
        }
    }
}

/// Keeps the unit's status line true, and proves that the engine's database answers.
async fn tell_status(engine: Engine, mut beat: temps_unit::watchdog::Ticker) {
    let mut said = String::new();
    loop {
        // Only after the database answered does the next beat come: a wedged store is noticed.
        match engine.counts().await {
            Ok((apps, (deployments, watching))) => {
                let line = format!(
                    "{apps} apps, {deployments} deployments under way, {watching} releases watched"
                );
                if line != said {
                    notify::status(&line);
                    said = line;
                }
            }
            Err(problem) => warn!(%problem, "the database does not answer"),
        }
        beat.tick().await;
    }
}
