//! What the proxy is told: full, versioned snapshots of routes, and the targets behind them.

use crate::id::{InstanceId, ReleaseId};
use crate::types::{AppName, Host, PathPrefix};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Most routes a snapshot may carry; a frame holds at least this many.
pub const MAX_ROUTES: usize = 4096;

/// Every route the proxy shall know, replacing all it knew before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Raised by deployd with every snapshot; the proxy refuses one that is not newer, unless it
    /// says the same.
    pub generation: u64,
    /// The routes; (host, path prefix) is unique.
    pub routes: Vec<Route>,
}

/// Requests for a host and path prefix, and who answers them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The host of the request.
    pub host: Host,
    /// The start of its path; the longest that matches wins.
    pub path_prefix: PathPrefix,
    /// The app that this is for.
    pub app: AppName,
    /// The release that serves it.
    pub release: ReleaseId,
    /// Who answers.
    pub backend: Backend,
}

/// Who answers a route's requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// Running instances; more than one share the requests.
    Targets(Vec<Target>),
    /// Files, served by the proxy.
    Static(StaticSite),
}

/// A running instance that requests can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The instance; a target keeps its id as long as it is the same running copy.
    pub id: InstanceId,
    /// Where it listens.
    pub address: Address,
    /// How its health is checked.
    pub check: HealthCheck,
}

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Address {
    /// HTTP over TCP.
    Tcp(SocketAddr),
    /// HTTP over a Unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a target's health is checked, from outside the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthCheck {
    /// `GET path`: 200 to 399 is healthy. Said by the user, so taken at its word.
    Http {
        /// An absolute path.
        path: String,
    },
    /// `GET /`: any answer below 500 is healthy (an API may well answer 404 or 401 there).
    Any,
    /// A connection is accepted.
    Tcp,
    /// Not asked at all: a connection would start the instance, which rests until a request comes.
    /// Only requests that do not reach it say that something is wrong.
    Passive,
}

/// A directory of files that the proxy serves itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticSite {
    /// Names the lease, as a target's id does.
    pub id: InstanceId,
    /// The release directory.
    pub root: PathBuf,
    /// Answer unknown paths with `/index.html`.
    pub spa: bool,
}

/// A request to probe targets until all are healthy or the time is over. Idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRequest {
    /// The targets; they need not be routed.
    pub targets: Vec<Target>,
    /// How long to go on, in milliseconds; at most 60,000 per call.
    pub timeout_ms: u64,
}

/// What a probe found for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeOutcome {
    /// The target.
    pub target: InstanceId,
    /// Nothing if it is healthy, else how the last attempt failed.
    pub failure: Option<ProbeFailure>,
}

/// How a health check failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeFailure {
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// Another answer than the check wants.
    Status(u16),
    /// The connection or the answer broke.
    Broken(String),
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeFailure::Refused => f.write_str("nothing accepts connections there"),
            ProbeFailure::TimedOut => f.write_str("no answer in time"),
            ProbeFailure::Status(status) => write!(f, "it answers {status}"),
            ProbeFailure::Broken(why) => write!(f, "its answer breaks off: {why}"),
        }
    }
}
