//! `sh.temps.Deploy1`: deployd itself, what may be asked of it, and what it has to tell.

use super::app::{self, micros, object};
use super::board::{Board, BoardError};
use super::job::{self, End};
use crate::engine::Engine;
use crate::engine::news::News;
use std::sync::Arc;
use temps_ipc::Fault;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{AppName, DeployRequest, Phase, Source};
use temps_unit::bus::authority::{Caller, authorise};
use temps_unit::bus::failure::Failure;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, ObjectPath, OwnedObjectPath, interface};

/// How many of each there are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) apps: u32,
    pub(super) deployments: u32,
    pub(super) watching: u32,
}

/// The object.
pub(super) struct Manager {
    board: Arc<Board>,
}

impl Manager {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board }
    }

    fn engine(&self) -> &Engine {
        self.board.engine()
    }

    /// The path of a job, once it is shown, or its end was told.
    async fn job(&self, connection: &Connection, id: &str) -> Result<OwnedObjectPath, Failure> {
        self.board.promise(id);
        match self.board.refresh(connection).await {
            Ok(()) => Ok(object(job::path(id))),
            Err(BoardError::Bus(error)) => Err(error.into()),
            Err(BoardError::Engine(fault)) => Err(fault.into()),
        }
    }

    /// Runs `work` to its end as a job, whatever becomes of the caller.
    async fn operation<F>(
        &self,
        connection: &Connection,
        kind: &'static str,
        app: &str,
        work: F,
    ) -> Result<OwnedObjectPath, Failure>
    where
        F: Future<Output = Result<String, Fault>> + Send + 'static,
    {
        let id = self.board.open(kind, app)?;
        // Its object is there before it can end.
        let path = self.job(connection, &id).await;
        let work = self.engine().carry_out(work);
        let board = Arc::clone(&self.board);
        // Whoever called waits for none of it.
        drop(self.engine().carry_out(async move {
            let end = match work.await {
                Ok(reason) => End::done(reason),
                Err(fault) => End::failed(&fault),
            };
            board.close(&id, end);
            Ok(())
        }));
        path
    }
}

pub(super) fn app_name(text: &str) -> Result<AppName, Fault> {
    text.parse()
        .map_err(|error: temps_ipc::types::app::BadAppName| Fault::invalid(error.to_string()))
}

/// A release by its id; empty text is none.
pub(super) fn release_id(text: &str) -> Result<Option<ReleaseId>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error: temps_ipc::id::BadId| Fault::invalid(error.to_string()))
}

#[interface(name = "sh.temps.Deploy1", introspection_docs = false)]
impl Manager {
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn base_domain(&self) -> String {
        self.engine().settings().base_domain.to_string()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn started_at(&self) -> u64 {
        micros(self.engine().started_at())
    }

    #[zbus(property)]
    fn apps(&self) -> u32 {
        self.board.counts().apps
    }

    #[zbus(property)]
    fn deployments(&self) -> u32 {
        self.board.counts().deployments
    }

    #[zbus(property)]
    fn watching(&self) -> u32 {
        self.board.counts().watching
    }

    #[zbus(out_args("object"))]
    async fn get_app(&self, app: &str) -> Result<OwnedObjectPath, Failure> {
        let name = app_name(app)?;
        self.engine().app_show(name.clone()).await?;
        Ok(object(app::path(&name)))
    }

    #[zbus(out_args("job"))]
    async fn rollback(
        &self,
        app: &str,
        release: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Failure> {
        let _busy = self.board.idle().busy();
        let details = [("app", app), ("release", release)];
        let caller = authorise(connection, &header, "sh.temps.deploy.rollback", &details).await?;
        let (name, release) = (app_name(app)?, release_id(release)?);
        let Caller { uid, actor } = caller;
        let begun = self.engine().rollback(name, release, actor, uid).await?;
        self.job(connection, begun.id.as_str()).await
    }

    #[zbus(out_args("job"))]
    async fn redeploy(
        &self,
        app: &str,
        release: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Failure> {
        let _busy = self.board.idle().busy();
        let details = [("app", app), ("release", release)];
        let caller = authorise(connection, &header, "sh.temps.deploy.redeploy", &details).await?;
        let name = app_name(app)?;
        // Never makes an app, as a deployment by other ways does.
        let present = self.engine().app_show(name.clone()).await?;
        let release = release_id(release)?
            .or(present.release)
            .ok_or_else(|| Fault::not_found(format!("the app `{name}` has no release yet")))?;
        let request = DeployRequest {
            app: name,
            source: Source::Release { release },
            runtime: None,
            domain: None,
            health: None,
            health_timeout_ms: None,
            watch_ms: None,
            actor: caller.actor,
            socket_activated: None,
        };
        let begun = self.engine().deploy(request, caller.uid).await?;
        self.job(connection, begun.id.as_str()).await
    }

    #[zbus(out_args("job"))]
    async fn reconcile(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Failure> {
        let _busy = self.board.idle().busy();
        authorise(connection, &header, "sh.temps.deploy.reconcile", &[]).await?;
        let engine = self.engine().clone();
        let work = async move {
            let mended = engine.reconcile().await?.answer()?;
            Ok(mended.join("; "))
        };
        self.operation(connection, "reconciliation", "", work).await
    }

    #[zbus(out_args("job"))]
    async fn destroy_app(
        &self,
        app: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Failure> {
        let _busy = self.board.idle().busy();
        let details = [("app", app)];
        let caller = authorise(connection, &header, "sh.temps.deploy.destroy", &details).await?;
        let name = app_name(app)?;
        self.engine().app_show(name.clone()).await?;
        let engine = self.engine().clone();
        let work = async move {
            engine.app_destroy(name, caller.actor, caller.uid).await?;
            Ok(String::new())
        };
        self.operation(connection, "removal", app, work).await
    }

    #[zbus(signal)]
    async fn release_served(
        emitter: &SignalEmitter<'_>,
        app: &str,
        release: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn release_confirmed(
        emitter: &SignalEmitter<'_>,
        app: &str,
        release: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn release_refused(
        emitter: &SignalEmitter<'_>,
        app: &str,
        release: &str,
        reason: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn release_rolled_back(
        emitter: &SignalEmitter<'_>,
        app: &str,
        release: &str,
        reason: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn instance_replaced(
        emitter: &SignalEmitter<'_>,
        app: &str,
        instance: &str,
        reason: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn app_destroyed(emitter: &SignalEmitter<'_>, app: &str) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(super) async fn job_removed(
        emitter: &SignalEmitter<'_>,
        job: ObjectPath<'_>,
        result: &str,
        reason: &str,
    ) -> zbus::Result<()>;
}

/// Emits the signal for what happened, if there is one.
pub(super) async fn announce(root: &SignalEmitter<'_>, news: News) -> zbus::Result<()> {
    match news {
        News::Deployment(deployment) => {
            let (app, release) = (deployment.app.as_str(), deployment.release.as_str());
            let reason = deployment.reason.as_str();
            match deployment.phase {
                Phase::Live => Manager::release_served(root, app, release).await,
                Phase::Confirmed => Manager::release_confirmed(root, app, release).await,
                Phase::Refused => Manager::release_refused(root, app, release, reason).await,
                Phase::RolledBack => Manager::release_rolled_back(root, app, release, reason).await,
                _ => Ok(()),
            }
        }
        News::Replaced { app, instance, why } => {
            Manager::instance_replaced(root, app.as_str(), instance.as_str(), &why).await
        }
        News::Destroyed(app) => Manager::app_destroyed(root, app.as_str()).await,
    }
}
