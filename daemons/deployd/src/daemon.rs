//! The process: sockets adopted, parts put together, ready, served, drained.

use crate::adapter::build::units::launch::SystemdLauncher;
use crate::adapter::build::{BuildSettings, SourceBuilder};
use crate::adapter::docker::{DockerRuntime, DockerSettings, Images};
use crate::adapter::process::ProcessRuntime;
use crate::adapter::proxy::RealProxy;
use crate::adapter::systemd::manager::Manager;
use crate::adapter::systemd::{self, SystemdRuntime, SystemdSettings};
use crate::bus;
use crate::config::Settings;
use crate::engine::paths::Paths;
use crate::engine::{Engine, Parts};
use crate::event;
use crate::port::{Builder, Runtime, Runtimes};
use crate::rpc::Rpc;
use crate::store::seal::Seal;
use crate::store::{Store, copy};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tarpc::server::Serve as _;
use temps_ipc::rpc::Deployd as _;
use temps_ipc::types::RuntimeKind;
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
use temps_unit::{config, creds, journal, notify};
use tracing::{error, info, warn};

/// Name of the control socket among the passed ones.
pub const CONTROL: &str = "deployd";

/// Name of the upload socket among the passed ones.
pub const UPLOAD: &str = "deployd-upload";

/// Name of the credential that holds the sealing key.
const KEY: &str = "deployd-key";

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

/// The key that variables are sealed under.
fn seal(paths: &Paths) -> Result<Seal, String> {
    let secret = match creds::credential(KEY).map_err(|problem| problem.to_string())? {
        Some(secret) => secret,
        None => creds::key_file(&paths.key()).map_err(|problem| problem.to_string())?,
    };
    Seal::new(secret.expose()).map_err(|problem| problem.to_string())
}

/// The database, with the room that it may use on a full disk.
fn open_store(paths: &Paths) -> Result<Store, (Exit, String)> {
    if paths.lost_its_database() {
        let problem = format!(
            "{} is missing, and releases are there: restore the state directory from a backup, or move {} away to start empty",
            paths.database().display(),
            paths.state().display()
        );
        temps_unit::event!(error, event::STORE_UNUSABLE, "{problem}");
        return Err((Exit::Config, problem));
    }
    let reserve = paths.reserve();
    // Opening writes.
    reserve.spend_if_full();
    let (store, restored) = copy::open_or_restore(&paths.database()).map_err(|problem| {
        let problem = format!(
            "the database cannot be used: {problem}; restore the state directory from a backup, or move {} away to start empty",
            paths.state().display()
        );
        temps_unit::event!(error, event::STORE_UNUSABLE,
            "{problem}; routes keep being served, deployments are not possible");
        (Exit::Config, problem)
    })?;
    if let Some(restored) = restored {
        let kept = restored.damaged.map_or_else(String::new, |damaged| {
            format!("; what was damaged is kept as {}", damaged.display())
        });
        temps_unit::event!(
            error,
            event::STORE_RESTORED,
            "{}; its last good copy is used instead: the changes of the last seconds may be missing{kept}",
            restored.why
        );
    }
    Ok(store.with_reserve(reserve))
}

/// What the systemd runtime is told.
fn systemd(settings: &Settings) -> SystemdSettings {
    SystemdSettings {
        limits: systemd::Limits {
            memory: settings.memory_limit << 20,
            cpu_percent: settings.cpu_limit,
            tasks: settings.task_limit,
            open_files: settings.file_limit,
            stop_grace: settings.stop_grace,
        },
        resolvers: settings.apps_resolvers.clone(),
    }
}

/// The runtime for a Procfile's command here, if there is one.
fn procfiles(settings: &Settings, has_systemd: bool) -> Option<RuntimeKind> {
    if settings.standalone {
        Some(RuntimeKind::Process)
    } else {
        has_systemd.then_some(RuntimeKind::Systemd)
    }
}

/// Under `temps up` builds are made in this process and its children, otherwise in units of their own.
fn builder(
    settings: &Settings,
    paths: &Paths,
    has_systemd: bool,
    images: Arc<Images>,
) -> Arc<dyn Builder> {
    let build = BuildSettings {
        build_limit: settings.build_timeout,
        memory: settings.build_memory << 20,
        cpu_percent: settings.build_cpu,
        tasks: settings.build_tasks,
        homes: paths.build_homes(),
        directories: procfiles(settings, has_systemd),
        ..BuildSettings::default()
    };
    if settings.standalone {
        return Arc::new(SourceBuilder::new(build, Some(images)));
    }
    let launcher = SystemdLauncher::new(Arc::new(Manager::new()));
    Arc::new(SourceBuilder::in_units(
        build,
        Some(images),
        Arc::new(launcher),
    ))
}

/// Ends what an earlier process left building; a build does so too before it begins.
async fn recover(builder: Arc<dyn Builder>) {
    if let Err(fault) = builder.recover().await {
        warn!(%fault, "jobs of earlier builds may be left");
    }
}

fn parts(start: &Start, idle: &Idle, signals: &Signals) -> Result<Parts, (Exit, String)> {
    let Start {
        settings, paths, ..
    } = start;
    let store = open_store(paths)?;
    let seal = seal(paths).map_err(|problem| (Exit::Config, problem))?;
    let docker = DockerSettings {
        socket: settings.docker_socket.clone(),
        memory: i64::try_from(settings.memory_limit << 20).unwrap_or(i64::MAX),
        build_memory: i64::try_from(settings.build_memory << 20).unwrap_or(i64::MAX),
        build_cpu_percent: i32::try_from(settings.build_cpu).unwrap_or(i32::MAX),
        build_limit: settings.build_timeout,
        ..DockerSettings::default()
    };
    let docker = DockerRuntime::new(docker, paths.state());
    let images = docker.images();
    let mut runtimes: Vec<Arc<dyn Runtime>> = vec![Arc::new(docker)];
    if settings.standalone
        && let Some(program) = &settings.instance_program
    {
        let mut processes = ProcessRuntime::new(paths.state(), program.clone());
        // The user who runs `temps up` expects the interpreters of their own shell.
        if let Ok(path) = std::env::var("PATH") {
            processes = processes.with_path(path);
        }
        runtimes.push(Arc::new(processes));
    }
    let has_systemd = !settings.standalone && SystemdRuntime::is_there();
    if has_systemd {
        runtimes.push(Arc::new(SystemdRuntime::new(
            systemd(settings),
            paths.state(),
        )));
    }
    let runtimes = Runtimes::new(runtimes);
    let builder = builder(settings, paths, has_systemd, images);
    Ok(Parts {
        store,
        seal,
        runtimes,
        builder,
        proxy: Arc::new(RealProxy::new(&settings.proxy_socket)),
        settings: settings.clone(),
        paths: paths.clone(),
        idle: idle.clone(),
        stopping: signals.shutdown.clone(),
    })
}

async fn run(start: Start) -> ExitCode {
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(problem) => return fail(Exit::Internal, &problem),
    };
    let idle = Idle::new(start.settings.idle);
    let parts = match parts(&start, &idle, &signals) {
        Ok(parts) => parts,
        Err((exit, problem)) => return fail(exit, &problem),
    };
    tokio::spawn(recover(Arc::clone(&parts.builder)));
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
    let dog_stop = tokio_util::sync::CancellationToken::new();
    let dog = tokio::spawn(watchdog.run(dog_stop.clone()));
    let tending = (engine.clone(), closing.clone());
    supervisor.critical("copy", async move {
        let (engine, closing) = tending;
        let _ = closing
            .run_until_cancelled(engine.tend_store_always(BEAT))
            .await;
        Ok::<(), std::convert::Infallible>(())
    });
    let status = tokio::spawn(tell_status(engine.clone(), beat));
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
    status.abort();
    if let Err(problem) = engine.tend_store().await {
        warn!(%problem, "the last good copy of the database is older than it");
    }
    dog_stop.cancel();
    let _ = dog.await;
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
