//! How daemons describe themselves: `temps status` and `temps doctor`.

use crate::types::{Host, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// How deployd is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploydStatus {
    /// The version and build, such as `0.1.0`.
    pub build: String,
    /// When this process started.
    pub started_at: Timestamp,
    /// Apps that exist.
    pub apps: u32,
    /// Deployments waiting or under way.
    pub deployments: u32,
    /// Releases in their watch window.
    pub watching: u32,
    /// The domain under which apps get their hosts.
    pub base_domain: Host,
    /// Where the state is kept.
    pub state_dir: PathBuf,
    /// What was found wrong or worth saying.
    pub checks: Vec<Check>,
}

/// How the proxy is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// The version and build.
    pub build: String,
    /// When this process started.
    pub started_at: Timestamp,
    /// The generation of the snapshot that is served.
    pub generation: u64,
    /// Routes in it.
    pub routes: u32,
    /// Targets in it, and how many of them failed their last check.
    pub targets: u32,
    /// See `targets`.
    pub unhealthy: u32,
    /// Certificates at hand.
    pub certificates: u32,
    /// Where HTTP is served.
    pub http: Option<SocketAddr>,
    /// Where HTTPS is served.
    pub https: Option<SocketAddr>,
    /// Connections open now.
    pub connections: u32,
    /// Requests answered since the start.
    pub requests: u64,
    /// The certificate of the local authority that signs hosts without another certificate.
    pub local_ca: PathBuf,
    /// What was found wrong or worth saying.
    pub checks: Vec<Check>,
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckLevel {
    /// As it should be.
    Ok,
    /// Works, but somebody should know.
    Warning,
    /// Does not work.
    Failed,
}

/// A finding of `temps doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, such as `docker` or `disk`.
    pub name: String,
    /// How it is.
    pub level: CheckLevel,
    /// What was found.
    pub what: String,
    /// What to do about it; empty if nothing.
    pub hint: String,
}
