//! The tarpc service: who may call what, and nothing else. What must not stop half-way runs in a
//! task of its own, since a handler is dropped when its caller hangs up.

use crate::config::Probes;
use crate::engine::probe;
use crate::engine::snapshot::target_errors;
use crate::engine::{ApplyError, Engine};
use crate::handover::client::Everybody;
use crate::status::Status;
use std::sync::Arc;
use std::time::Duration;
use tarpc::context::Context;
use temps_ipc::id::InstanceId;
use temps_ipc::rpc::{Applied, Drain, Hello, Proxy};
use temps_ipc::types::{ProbeOutcome, ProbeRequest, ProxyStatus, Snapshot};
use temps_ipc::{Code, Fault};
use temps_unit::authz::Role;

/// Most targets of one probe.
const MAX_PROBED: usize = 64;

/// Longest probe in one call.
const MAX_PROBE: Duration = Duration::from_secs(60);

/// Longest wait for a drain in one call.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// The service for one connection.
#[derive(Clone)]
pub struct Rpc {
    engine: Arc<Engine>,
    everybody: Everybody,
    status: Arc<Status>,
    probes: Probes,
    role: Role,
}

impl Rpc {
    /// For a caller who has `role`.
    pub fn new(
        engine: Arc<Engine>,
        everybody: Everybody,
        status: Arc<Status>,
        probes: Probes,
        role: Role,
    ) -> Self {
        Self {
            engine,
            everybody,
            status,
            probes,
            role,
        }
    }

    /// deployd runs as root, so it is an operator.
    fn operator(&self) -> Result<(), Fault> {
        match self.role {
            Role::Operator => Ok(()),
            other => Err(Fault::new(Code::Denied, format!("{other} may not do this"))),
        }
    }
}

impl From<ApplyError> for Fault {
    fn from(error: ApplyError) -> Self {
        let what = error.to_string();
        match &error {
            ApplyError::Invalid(_) => {
                Fault::invalid(what).hint("the routes before it are still served")
            }
            ApplyError::Stale { current, .. } => Fault::new(Code::Busy, what)
                .hint(format!("send a snapshot with a generation above {current}")),
            ApplyError::Helped => Fault::new(Code::Busy, what)
                .hint("ask again: it ends when the requests it has begun are answered"),
            ApplyError::Store(store) if store.is_no_space() => Fault::new(Code::NoSpace, what)
                .hint("free some space; the routes before it are still served"),
            ApplyError::Store(_) | ApplyError::Writer(_) => Fault::internal(what)
                .hint("the routes before it are still served; see the journal of temps-proxy"),
        }
    }
}

impl Proxy for Rpc {
    async fn hello(self, _: Context, hello: Hello) -> Result<Hello, Fault> {
        hello.check()?;
        Ok(Hello::ours())
    }

    async fn probe(self, _: Context, request: ProbeRequest) -> Result<Vec<ProbeOutcome>, Fault> {
        self.operator()?;
        if request.targets.len() > MAX_PROBED {
            return Err(Fault::invalid(format!(
                "{} targets are more than the {MAX_PROBED} of one probe",
                request.targets.len()
            )));
        }
        let errors: Vec<String> = request.targets.iter().flat_map(target_errors).collect();
        if !errors.is_empty() {
            return Err(Fault::invalid(errors.join("; ")));
        }
        let limit = Duration::from_millis(request.timeout_ms).min(MAX_PROBE);
        Ok(probe::until_healthy(&request.targets, limit, self.probes.fresh).await)
    }

    async fn apply(self, _: Context, snapshot: Snapshot) -> Result<Applied, Fault> {
        self.operator()?;
        let engine = Arc::clone(&self.engine);
        let applied = tokio::spawn(async move { engine.apply(snapshot).await }).await;
        let generation = applied.map_err(|error| Fault::internal(error.to_string()))??;
        Ok(Applied { generation })
    }

    async fn drained(self, _: Context, target: InstanceId, wait_ms: u64) -> Result<Drain, Fault> {
        self.operator()?;
        let patience = Duration::from_millis(wait_ms).min(MAX_WAIT);
        Ok(self.everybody.drained(&target, patience).await)
    }

    async fn status(self, _: Context) -> Result<ProxyStatus, Fault> {
        self.operator()?;
        Ok(self.status.now())
    }

    async fn generation(self, _: Context) -> Result<u64, Fault> {
        self.operator()?;
        Ok(self.engine.table().generation())
    }
}
