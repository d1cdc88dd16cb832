//! What temps-proxy can be asked for. It is the only prober of targets and the only one that knows
//! which requests are in flight.

use crate::Fault;
use crate::id::InstanceId;
use crate::rpc::Hello;
use crate::types::{ProbeOutcome, ProbeRequest, ProxyStatus, Snapshot};
use serde::{Deserialize, Serialize};

/// A snapshot is served: requests that start from now on follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation that is served.
    pub generation: u64,
}

/// Requests that a target still answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Requests in flight; none means drained: no request can reach the target any more, unless it
    /// is still routed.
    pub leases: u64,
    /// The target is in the served snapshot.
    pub routed: bool,
}

/// The proxy's control socket. Callers: deployd and operators.
#[tarpc::service]
pub trait Proxy {
    /// See [`Hello`]. Anybody who may connect.
    async fn hello(hello: Hello) -> Result<Hello, Fault>;

    /// Probes every 250 ms until all targets are healthy or the time is over. Idempotent.
    /// `Invalid` for a bad path or too many targets (64).
    async fn probe(request: ProbeRequest) -> Result<Vec<ProbeOutcome>, Fault>;

    /// Validates, persists, then serves a snapshot; answers when new requests follow it.
    /// Idempotent. `Invalid` with every error found (the old one stays), `Busy` with the current
    /// generation in the text if `generation` is not newer and says something else, `Busy` as well
    /// while the helper of a restart serves the routes before: ask again. `NoSpace` if it cannot be
    /// persisted (the old one stays).
    async fn apply(snapshot: Snapshot) -> Result<Applied, Fault>;

    /// Waits up to `wait_ms` (at most 20,000) until no process of the proxy has a request in flight
    /// to `target`. Idempotent.
    async fn drained(target: InstanceId, wait_ms: u64) -> Result<Drain, Fault>;

    /// How the proxy is. Idempotent.
    async fn status() -> Result<ProxyStatus, Fault>;

    /// The generation served now; 0 before the first snapshot. Idempotent.
    async fn generation() -> Result<u64, Fault>;
}
