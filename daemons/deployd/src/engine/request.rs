//! What callers ask for: a deployment, a rollback. Checked here, written, and left to the app's
//! worker.

use super::Engine;
use super::instance::seal_fault;
use crate::store::app::App;
use crate::store::deployment::{self, Deployment, Kind};
use crate::store::release::{self, Release};
use crate::store::{RowError, app, audit};
use rusqlite::Transaction;
use temps_ipc::id::{AppId, ReleaseId};
use temps_ipc::types::{
    Actor, AppName, DeployRequest, DeploymentView, EnvVar, Host, ReleaseStatus, RuntimeKind,
    Source, Timestamp,
};
use temps_ipc::{Code, Fault};

/// Longest path of a health check in bytes.
const MAX_HEALTH: usize = 512;

/// Longest watch window: beyond a day it is monitoring, not a deployment.
const MAX_WATCH_MS: u64 = 24 * 60 * 60 * 1000;

/// Longest time to become healthy.
const MAX_HEALTH_TIMEOUT_MS: u64 = 60 * 60 * 1000;

/// Longest text of an image reference, URL, ref or label in bytes.
const MAX_TEXT: usize = 2048;

/// Most deployments of one app that may wait.
const MAX_WAITING: usize = 50;

impl Engine {
    /// Queues a deployment; the app is made if it is new.
    ///
    /// # Errors
    /// `Invalid`, `Unsupported`, `Exists`, `NotFound`, `Busy`, `NoSpace`; then nothing was changed.
    pub async fn deploy(&self, request: DeployRequest, uid: u32) -> Result<DeploymentView, Fault> {
        check(&request)?;
        let runtime = self.runtime_for(&request)?;
        let name = request.app.clone();
        let existing = self.store.read(move |db| app::find(db, &name)).await?;
        let app = existing.unwrap_or_else(|| self.new_app(&request.app));
        if app.destroying {
            return Err(Fault::new(
                Code::Busy,
                format!("the app `{}` is being removed", app.name),
            )
            .hint("try again when it is gone"));
        }
        let id = ReleaseId::fresh();
        let env = self.env_of(&app.id).await?;
        let is_source = matches!(
            request.source,
            Source::Directory { .. } | Source::Git { .. }
        );
        let socket_activated = request.socket_activated.unwrap_or(app.socket_activated);
        // What takes a socket keeps the one runtime that gives it.
        let runtime = runtime.or((is_source && socket_activated).then_some(RuntimeKind::Systemd));
        let (material, source, runtime) =
            self.material(&app, &id, &request.source, runtime).await?;
        if request.socket_activated == Some(true) {
            // Of an earlier release's content the runtime is known only now.
            takes_a_socket(runtime)?;
        }
        let release = Release {
            id: id.clone(),
            app: app.id.clone(),
            status: ReleaseStatus::Pending,
            material,
            wanted_runtime: runtime,
            runtime: None,
            artifact: None,
            env: self
                .seal
                .seal_release(id.as_str(), &env)
                .map_err(|error| seal_fault(&error))?,
            health: request.health.clone().or_else(|| app.health.clone()),
            health_timeout_ms: request.health_timeout_ms.unwrap_or(app.health_timeout_ms),
            source,
            reason: String::new(),
            actor: request.actor.name.clone(),
            served_at: None,
            created_at: Timestamp::now(),
            socket_activated,
        };
        let watch = request.watch_ms.unwrap_or(app.watch_ms);
        let deployment = Deployment::queued(&app, &id, Kind::Deploy, watch);
        let queued = self
            .queue(
                app,
                Some(release),
                deployment,
                request.domain,
                &request.actor,
                uid,
                "deploy",
            )
            .await;
        if queued.is_err() {
            let _ = tokio::fs::remove_file(self.paths.material(&id)).await;
        }
        queued
    }

    /// Queues a deployment of an earlier release.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `Busy`, `NoSpace`; then nothing was changed.
    pub async fn rollback(
        &self,
        name: AppName,
        wanted: Option<ReleaseId>,
        actor: Actor,
        uid: u32,
    ) -> Result<DeploymentView, Fault> {
        let (app, target) = self
            .store
            .read(move |db| {
                let app = app::get(db, &name)?;
                let target = match wanted {
                    Some(id) => {
                        let release = release::get(db, &id)?;
                        if release.app != app.id {
                            return Err(RowError::Missing(format!(
                                "the app `{name}` has no release `{id}`"
                            )));
                        }
                        Some(release)
                    }
                    None => match &app.release {
                        Some(serving) => release::last_good(db, &app.id, serving)?,
                        None => release::list(db, &app.id, None, 50)?
                            .into_iter()
                            .find(|release| {
                                release.served_at.is_some() && release.artifact.is_some()
                            }),
                    },
                };
                Ok((app, target))
            })
            .await?;
        let Some(target) = target else {
            return Err(Fault::not_found(format!(
                "the app `{}` has no earlier release to go back to",
                app.name
            ))
            .hint("`temps release list` shows what there is"));
        };
        if app.release.as_ref() == Some(&target.id) {
            return Err(Fault::invalid(format!("{} serves already", target.id)));
        }
        if target.served_at.is_none() {
            return Err(Fault::invalid(format!("{} never served", target.id))
                .hint("choose a release that did: `temps release list`"));
        }
        if target.artifact.is_none() {
            return Err(Fault::invalid(format!(
                "the files of {} were removed to save space",
                target.id
            ))
            .hint("deploy its source again"));
        }
        let deployment = Deployment::queued(&app, &target.id, Kind::Rollback, app.watch_ms);
        self.queue(app, None, deployment, None, &actor, uid, "rollback")
            .await
    }

    /// Writes a deployment and what comes with it, and wakes the app's worker.
    #[allow(clippy::too_many_arguments, reason = "the parts of one transaction")]
    async fn queue(
        &self,
        app: App,
        release: Option<Release>,
        deployment: Deployment,
        domain: Option<Host>,
        actor: &Actor,
        uid: u32,
        verb: &'static str,
    ) -> Result<DeploymentView, Fault> {
        let base = self.settings.base_domain.clone();
        let actor = actor.clone();
        let row = deployment.clone();
        let owner = app.clone();
        self.store
            .write(move |tx| {
                make_app(tx, &owner, &base)?;
                if deployment::open(tx, &owner.id)?.len() > MAX_WAITING {
                    return Err(RowError::Busy(format!(
                        "{MAX_WAITING} deployments of `{}` are waiting already",
                        owner.name
                    )));
                }
                if let Some(domain) = &domain {
                    super::domain::give(tx, &owner, domain, &base)?;
                }
                if let Some(release) = &release {
                    release::insert(tx, release)?;
                }
                deployment::insert(tx, &row)?;
                audit::record(
                    tx,
                    uid,
                    &actor,
                    verb,
                    owner.name.as_str(),
                    row.release.as_str(),
                )
            })
            .await?;
        self.wake(&app.id);
        self.changed();
        Ok(self.view_deployment(&app.name, &deployment))
    }

    fn new_app(&self, name: &AppName) -> App {
        App {
            id: AppId::fresh(),
            name: name.clone(),
            created_at: Timestamp::now(),
            runtime: None,
            health: None,
            health_timeout_ms: self.settings.health_timeout.as_millis() as u64,
            watch_ms: self.settings.watch.as_millis() as u64,
            release: None,
            destroying: false,
            socket_activated: false,
        }
    }

    /// The app of this name, made if it is new.
    ///
    /// # Errors
    /// When the database fails, or its host belongs to another app.
    pub(super) async fn app_or_new(&self, name: &AppName) -> Result<App, Fault> {
        let fresh = self.new_app(name);
        let base = self.settings.base_domain.clone();
        let app = self
            .store
            .write(move |tx| {
                if let Some(app) = app::find(tx, &fresh.name)? {
                    return Ok(app);
                }
                make_app(tx, &fresh, &base)?;
                Ok(fresh)
            })
            .await?;
        if app.destroying {
            return Err(Fault::new(
                Code::Busy,
                format!("the app `{}` is being removed", app.name),
            ));
        }
        Ok(app)
    }

    /// The runtime that the request names or implies, refused by name if it is not here.
    fn runtime_for(&self, request: &DeployRequest) -> Result<Option<RuntimeKind>, Fault> {
        let contradiction = |what: &str, kind: RuntimeKind| {
            Err(Fault::invalid(format!(
                "{what} cannot run on the {kind} runtime"
            )))
        };
        let runtime = match (&request.source, request.runtime) {
            (Source::Static { .. }, None | Some(RuntimeKind::Static)) => Some(RuntimeKind::Static),
            (Source::Static { .. }, Some(kind)) => {
                return contradiction("files given with --static", kind);
            }
            (Source::Image { .. }, None | Some(RuntimeKind::Docker)) => Some(RuntimeKind::Docker),
            (Source::Image { .. }, Some(kind)) => return contradiction("an image", kind),
            (Source::Release { .. }, _) => None,
            // Nothing else can be meant.
            (Source::Directory { .. } | Source::Git { .. }, None)
                if request.socket_activated == Some(true) =>
            {
                Some(RuntimeKind::Systemd)
            }
            (Source::Directory { .. } | Source::Git { .. }, kind) => kind,
        };
        if request.socket_activated == Some(true) {
            takes_a_socket(runtime)?;
        }
        match runtime {
            Some(kind @ (RuntimeKind::Docker | RuntimeKind::Process | RuntimeKind::Systemd))
                if self.runtimes.get(kind).is_none() =>
            {
                Err(Fault::new(
                    Code::Unsupported,
                    format!("this installation has no {kind} runtime"),
                )
                .hint(match kind {
                    RuntimeKind::Process => {
                        "the process runtime exists only under `temps up`: use --runtime systemd or docker"
                    }
                    RuntimeKind::Systemd => {
                        "the systemd runtime exists only on an installed system: use --runtime process or docker"
                    }
                    _ => "see `temps doctor`",
                }))
            }
            runtime => Ok(runtime),
        }
    }

    /// The app's variables, opened.
    pub(super) async fn env_of(&self, id: &AppId) -> Result<Vec<EnvVar>, Fault> {
        let wanted = id.clone();
        let sealed = self.store.read(move |db| app::env(db, &wanted)).await?;
        sealed
            .into_iter()
            .map(|(name, sealed)| {
                let value = self
                    .seal
                    .open_variable(id.as_str(), &name, &sealed)
                    .map_err(|error| seal_fault(&error))?;
                Ok(EnvVar { name, value })
            })
            .collect()
    }
}

/// Writes a new app, unless its own host belongs to another one.
fn make_app(tx: &Transaction<'_>, app: &App, base: &Host) -> Result<(), RowError> {
    match app::find(tx, &app.name)? {
        Some(existing) if existing.destroying => Err(RowError::Busy(format!(
            "the app `{}` is being removed",
            app.name
        ))),
        Some(existing) if existing.id == app.id => Ok(()),
        // Made by somebody else since we looked.
        Some(_) => Err(RowError::Exists(format!(
            "the app `{}` was just made by another call",
            app.name
        ))),
        None => {
            super::domain::own_host_is_free(tx, app, base)?;
            app::put(tx, app)
        }
    }
}

/// Refuses a runtime that hands no socket to what it starts; one that is not known yet passes.
fn takes_a_socket(runtime: Option<RuntimeKind>) -> Result<(), Fault> {
    match runtime {
        None | Some(RuntimeKind::Systemd) => Ok(()),
        Some(kind) => Err(Fault::invalid(format!(
            "the {kind} runtime cannot start an app by its socket: only the systemd runtime can"
        ))
        .hint(
            "leave --socket-activated out, or deploy source with a Procfile and --runtime systemd",
        )),
    }
}

/// Refuses what cannot be right, before anything is touched.
fn check(request: &DeployRequest) -> Result<(), Fault> {
    if let Some(path) = &request.health {
        let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        if !path.starts_with('/') || path.len() > MAX_HEALTH || !plain {
            return Err(Fault::invalid("the health check's path is not a path")
                .hint("it starts with `/` and has at most 512 visible ASCII characters, such as /health"));
        }
    }
    let too_long = |given: Option<u64>, most: u64| given.is_some_and(|given| given > most);
    if too_long(request.watch_ms, MAX_WATCH_MS) {
        return Err(Fault::invalid(
            "a release can be watched for at most 24 hours",
        ));
    }
    if too_long(request.health_timeout_ms, MAX_HEALTH_TIMEOUT_MS) {
        return Err(Fault::invalid(
            "a release can take at most one hour to become healthy",
        ));
    }
    let texts: [&str; 2] = match &request.source {
        Source::Directory { label, .. } | Source::Static { label, .. } => [label, ""],
        Source::Image { reference } => [reference, ""],
        Source::Git { url, reference } => [url, reference.as_deref().unwrap_or("")],
        Source::Release { .. } => ["", ""],
    };
    for text in texts {
        if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
            return Err(Fault::invalid(
                "the source has control characters or more than 2048 bytes",
            ));
        }
    }
    Ok(())
}
