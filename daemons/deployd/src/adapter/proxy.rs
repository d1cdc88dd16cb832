//! The real proxy, over its control socket.

use crate::port::ProxyPort;
use async_trait::async_trait;
use std::path::PathBuf;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::InstanceId;
use temps_ipc::rpc::ProxyClient;
use temps_ipc::types::{ProbeOutcome, ProbeRequest, Snapshot, Target};
use temps_ipc::wire::client::{Link, Repeat};

/// How long the proxy may take beyond the waiting that it was asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the proxy may take to validate, persist and publish a snapshot.
const APPLY: Duration = Duration::from_secs(15);

/// temps-proxy at the other end of a Unix socket.
pub struct RealProxy {
    link: Link<ProxyClient>,
}

impl RealProxy {
    /// The proxy that listens at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            link: Link::new(socket),
        }
    }
}

#[async_trait]
impl ProxyPort for RealProxy {
    async fn probe(
        &self,
        targets: Vec<Target>,
        timeout: Duration,
    ) -> Result<Vec<ProbeOutcome>, Fault> {
        let request = ProbeRequest {
            targets,
            timeout_ms: timeout.as_millis() as u64,
        };
        self.link
            .call(Repeat::Idempotent, timeout + PATIENCE, |client, context| {
                let request = request.clone();
                async move { client.probe(context, request).await }
            })
            .await
    }

    async fn apply(&self, snapshot: Snapshot) -> Result<(), Fault> {
        self.link
            .call(Repeat::Idempotent, APPLY, |client, context| {
                let snapshot = snapshot.clone();
                async move { client.apply(context, snapshot).await }
            })
            .await
            .map(|_| ())
    }

    async fn generation(&self) -> Result<u64, Fault> {
        self.link
            .call(Repeat::Idempotent, PATIENCE, |client, context| async move {
                client.generation(context).await
            })
            .await
    }

    async fn drained(&self, target: &InstanceId, wait: Duration) -> Result<bool, Fault> {
        let wait_ms = wait.as_millis() as u64;
        self.link
            .call(Repeat::Idempotent, wait + PATIENCE, |client, context| {
                let target = target.clone();
                async move { client.drained(context, target, wait_ms).await }
            })
            .await
            .map(|drain| drain.leases == 0)
    }
}
