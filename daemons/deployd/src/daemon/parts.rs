//! What the engine is made of, chosen by the settings: the database, the runtimes that are here, the
//! builder.

use crate::adapter::build::units::launch::SystemdLauncher;
use crate::adapter::build::{BuildSettings, SourceBuilder};
use crate::adapter::docker::{DockerRuntime, DockerSettings, Images};
use crate::adapter::process::ProcessRuntime;
use crate::adapter::proxy::RealProxy;
use crate::adapter::systemd::manager::Manager;
use crate::adapter::systemd::{self, ContainerRules, JobNetworks, SystemdRuntime, SystemdSettings};
use crate::config::Settings;
use crate::engine::Parts;
use crate::engine::paths::Paths;
use crate::event;
use crate::port::{Builder, Runtime, Runtimes};
use crate::store::seal::Seal;
use crate::store::{Store, copy};
use std::sync::Arc;
use temps_ipc::types::RuntimeKind;
use temps_unit::creds;
use temps_unit::exit::Exit;
use temps_unit::idle::Idle;
use temps_unit::shutdown::Signals;

/// Name of the credential that holds the sealing key.
const KEY: &str = "deployd-key";

/// What the engine is made of, in one of the two ways that the platform runs.
///
/// # Errors
/// With the exit status: what of it is not there or cannot be used.
pub(super) fn parts(
    settings: &Settings,
    paths: &Paths,
    idle: &Idle,
    signals: &Signals,
) -> Result<Parts, (Exit, String)> {
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
    let has_systemd = !settings.standalone && SystemdRuntime::is_there();
    let mut docker = DockerRuntime::new(docker, paths.state());
    if has_systemd {
        docker = docker.with_rules(ContainerRules::new(paths.state()));
    }
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
    let networks = JobNetworks {
        state: paths.state().to_owned(),
        resolvers: settings.apps_resolvers.clone(),
    };
    let launcher = SystemdLauncher::new(Arc::new(Manager::new()), networks);
    Arc::new(SourceBuilder::in_units(
        build,
        Some(images),
        Arc::new(launcher),
    ))
}
