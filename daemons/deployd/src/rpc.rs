//! The tarpc service: who may call what, and nothing else. Everything is done by the engine, in
//! tasks of its own: a caller that hangs up must not stop a change half-way.

use crate::checks;
use crate::engine::Engine;
use crate::upload::Uploads;
use std::future::Future;
use std::time::Duration;
use tarpc::context::Context;
use temps_ipc::id::{DeploymentId, InstanceId, ReleaseId};
use temps_ipc::rpc::{Deployd, Hello};
use temps_ipc::types::{
    Actor, AppName, AppView, DeployRequest, DeploydStatus, DeploymentView, EnvName, EnvVar, Host,
    LogPage, LogQuery, ReleaseView,
};
use temps_ipc::wire::upload::UploadTicket;
use temps_ipc::{Code, Fault};
use temps_unit::authz::{Peer, Role};

/// The service for one connection.
#[derive(Clone)]
pub struct Rpc {
    engine: Engine,
    uploads: Uploads,
    peer: Peer,
    role: Role,
}

impl Rpc {
    /// For the caller `peer`, who has `role`.
    pub fn new(engine: Engine, uploads: Uploads, peer: Peer, role: Role) -> Self {
        Self {
            engine,
            uploads,
            peer,
            role,
        }
    }

    /// Operators only.
    fn operator(&self) -> Result<(), Fault> {
        match self.role {
            Role::Operator => Ok(()),
            other => Err(Fault::new(Code::Denied, format!("{other} may not do this"))),
        }
    }

    /// Runs a change to its end, whatever becomes of the caller.
    async fn change<T, F, Fut>(&self, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(Engine, u32) -> Fut,
        Fut: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        self.operator()?;
        let change = work(self.engine.clone(), self.peer.uid);
        self.engine.carry_out(change).await
    }
}

impl Deployd for Rpc {
    async fn hello(self, _: Context, hello: Hello) -> Result<Hello, Fault> {
        hello.check()?;
        Ok(Hello::ours())
    }

    async fn upload(self, _: Context) -> Result<UploadTicket, Fault> {
        self.operator()?;
        self.uploads.ticket()
    }

    async fn deploy(self, _: Context, request: DeployRequest) -> Result<DeploymentView, Fault> {
        self.change(|engine, uid| async move { engine.deploy(request, uid).await })
            .await
    }

    async fn rollback(
        self,
        _: Context,
        app: AppName,
        release: Option<ReleaseId>,
        actor: Actor,
    ) -> Result<DeploymentView, Fault> {
        self.change(|engine, uid| async move { engine.rollback(app, release, actor, uid).await })
            .await
    }

    async fn deployment(
        self,
        _: Context,
        id: DeploymentId,
        seen: u64,
        wait_ms: u64,
    ) -> Result<DeploymentView, Fault> {
        self.operator()?;
        self.engine
            .deployment(id, seen, Duration::from_millis(wait_ms))
            .await
    }

    async fn app_list(self, _: Context, after: Option<AppName>) -> Result<Vec<AppView>, Fault> {
        self.operator()?;
        self.engine.app_list(after).await
    }

    async fn app_show(self, _: Context, app: AppName) -> Result<AppView, Fault> {
        self.operator()?;
        self.engine.app_show(app).await
    }

    async fn app_destroy(self, _: Context, app: AppName, actor: Actor) -> Result<(), Fault> {
        self.change(|engine, uid| async move { engine.app_destroy(app, actor, uid).await })
            .await
    }

    async fn release_list(
        self,
        _: Context,
        app: AppName,
        before: Option<ReleaseId>,
    ) -> Result<Vec<ReleaseView>, Fault> {
        self.operator()?;
        self.engine.release_list(app, before).await
    }

    async fn logs(self, _: Context, query: LogQuery) -> Result<LogPage, Fault> {
        self.operator()?;
        self.engine.logs(query).await
    }

    async fn env_set(
        self,
        _: Context,
        app: AppName,
        variables: Vec<EnvVar>,
        actor: Actor,
    ) -> Result<(), Fault> {
        self.change(|engine, uid| async move { engine.env_set(app, variables, actor, uid).await })
            .await
    }

    async fn env_unset(
        self,
        _: Context,
        app: AppName,
        names: Vec<EnvName>,
        actor: Actor,
    ) -> Result<(), Fault> {
        self.change(|engine, uid| async move { engine.env_unset(app, names, actor, uid).await })
            .await
    }

    async fn env_list(self, _: Context, app: AppName) -> Result<Vec<EnvVar>, Fault> {
        self.operator()?;
        self.engine.env_list(app).await
    }

    async fn domain_add(
        self,
        _: Context,
        app: AppName,
        domain: Host,
        actor: Actor,
    ) -> Result<(), Fault> {
        self.change(|engine, uid| async move { engine.domain_add(app, domain, actor, uid).await })
            .await
    }

    async fn domain_remove(
        self,
        _: Context,
        app: AppName,
        domain: Host,
        actor: Actor,
    ) -> Result<(), Fault> {
        self.change(
            |engine, uid| async move { engine.domain_remove(app, domain, actor, uid).await },
        )
        .await
    }

    async fn domain_list(self, _: Context, app: AppName) -> Result<Vec<Host>, Fault> {
        self.operator()?;
        self.engine.domain_list(app).await
    }

    async fn status(self, _: Context) -> Result<DeploydStatus, Fault> {
        self.operator()?;
        checks::status(&self.engine).await
    }

    async fn target_unhealthy(
        self,
        _: Context,
        target: InstanceId,
        why: String,
    ) -> Result<(), Fault> {
        // The one method that the proxy's role may call.
        let (Role::Operator | Role::Proxy) = self.role;
        self.engine
            .target_unhealthy(&target, &why)
            .await
            .map_err(Fault::from)
    }

    async fn reconcile(self, _: Context) -> Result<Vec<String>, Fault> {
        self.change(|engine, _| async move { engine.reconcile().await?.answer() })
            .await
    }

    async fn cancel(
        self,
        _: Context,
        app: AppName,
        release: Option<ReleaseId>,
        actor: Actor,
    ) -> Result<DeploymentView, Fault> {
        self.change(|engine, uid| async move { engine.cancel(app, release, actor, uid).await })
            .await
    }
}
