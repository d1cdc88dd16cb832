//! What temps-deployd can be asked for.

use crate::Fault;
use crate::id::{DeploymentId, InstanceId, ReleaseId};
use crate::rpc::Hello;
use crate::types::{
    Actor, AppName, AppView, DeployRequest, DeploydStatus, DeploymentView, EnvName, EnvVar, Host,
    LogPage, LogQuery, ReleaseView,
};
use crate::wire::upload::UploadTicket;

/// Deployd's socket. Callers: operators, unless a method says otherwise.
#[tarpc::service]
pub trait Deployd {
    /// See [`Hello`]. Anybody who may connect.
    async fn hello(hello: Hello) -> Result<Hello, Fault>;

    /// A ticket to send an archive on the upload socket; good for ten minutes, then its bytes are
    /// removed. `NoSpace` if the disk is nearly full, `Busy` with too many uploads open.
    async fn upload() -> Result<UploadTicket, Fault>;

    /// Queues a deployment; the row is durable when this answers. Not idempotent.
    async fn deploy(request: DeployRequest) -> Result<DeploymentView, Fault>;

    /// Queues a deployment of an earlier release: the one before the serving one, or `release`.
    /// `NotFound` if there is none, `Invalid` if it never served. Not idempotent.
    async fn rollback(
        app: AppName,
        release: Option<ReleaseId>,
        actor: Actor,
    ) -> Result<DeploymentView, Fault>;

    /// A deployment; waits up to `wait_ms` (at most 20,000) until its revision is above `seen`.
    /// Idempotent.
    async fn deployment(id: DeploymentId, seen: u64, wait_ms: u64)
    -> Result<DeploymentView, Fault>;

    /// Apps by name, at most 200 after `after`. Idempotent.
    async fn app_list(after: Option<AppName>) -> Result<Vec<AppView>, Fault>;

    /// One app. Idempotent.
    async fn app_show(app: AppName) -> Result<AppView, Fault>;

    /// Removes an app with its releases, instances, routes, logs and variables. Answers when
    /// nothing of it is left. `Busy` while a deployment of it runs.
    async fn app_destroy(app: AppName, actor: Actor) -> Result<(), Fault>;

    /// Releases, latest first, at most 200 that are older than `before`. Idempotent.
    async fn release_list(
        app: AppName,
        before: Option<ReleaseId>,
    ) -> Result<Vec<ReleaseView>, Fault>;

    /// Log lines. Idempotent.
    async fn logs(query: LogQuery) -> Result<LogPage, Fault>;

    /// Sets variables, which the next release gets. The app is made if it is new.
    async fn env_set(app: AppName, variables: Vec<EnvVar>, actor: Actor) -> Result<(), Fault>;

    /// Unsets variables. `NotFound` names those that are not set; then nothing is changed.
    async fn env_unset(app: AppName, names: Vec<EnvName>, actor: Actor) -> Result<(), Fault>;

    /// The app's variables with their values. Idempotent.
    async fn env_list(app: AppName) -> Result<Vec<EnvVar>, Fault>;

    /// Adds a host to the app and routes it at once. `Exists` if another app has it.
    async fn domain_add(app: AppName, domain: Host, actor: Actor) -> Result<(), Fault>;

    /// Removes a host. `NotFound` if the app has not got it; `Invalid` for its platform host.
    async fn domain_remove(app: AppName, domain: Host, actor: Actor) -> Result<(), Fault>;

    /// The app's hosts, the platform's own first. Idempotent.
    async fn domain_list(app: AppName) -> Result<Vec<Host>, Fault>;

    /// How deployd is, with the findings of its own checks. Idempotent.
    async fn status() -> Result<DeploydStatus, Fault>;

    /// Callers: the proxy and operators. A routed target failed its health check three times in a
    /// row; repeated every 30 seconds while it lasts. Idempotent.
    async fn target_unhealthy(target: InstanceId, why: String) -> Result<(), Fault>;

    /// Brings what runs in line with what should run: started by `temps up` and at boot. Answers
    /// when it is done, with what was mended in words. Idempotent.
    async fn reconcile() -> Result<Vec<String>, Fault>;

    /// Cancels the deployment of `release`, or the only one that does not serve yet: it is refused, as
    /// "cancelled by" the actor. Answers when that is written; what was started is removed after it.
    /// `NotFound` if there is none, `Invalid` if it serves already. Not idempotent.
    async fn cancel(
        app: AppName,
        release: Option<ReleaseId>,
        actor: Actor,
    ) -> Result<DeploymentView, Fault>;
}
