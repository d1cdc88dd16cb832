//! A deployment: one act of putting a release into service.
//!
//! ```text
//! queued -> preparing -> starting -> probing -> switching -> draining -> retiring -> live -> (confirmed)
//!    |          |            |          |           |
//!    +----------+------------+----------+--> refused: cleaned up, the old release never stopped serving
//!                                                   |
//!                        switching .. live ---------+--> rolling-back -> rolled-back
//! ```

use crate::id::{DeploymentId, ReleaseId};
use crate::types::{Actor, AppName, Host, RuntimeKind, Source, Timestamp};
use serde::{Deserialize, Serialize};

/// What is asked of a deployment. Absent settings keep the app's present ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployRequest {
    /// The app; made if it is new.
    pub app: AppName,
    /// The release's content.
    pub source: Source,
    /// How to run it; chosen by the source if neither given nor set before.
    pub runtime: Option<RuntimeKind>,
    /// A host to add to the app.
    pub domain: Option<Host>,
    /// Path of the health check, such as `/health`.
    pub health: Option<String>,
    /// How long an instance may take to become healthy, in milliseconds.
    pub health_timeout_ms: Option<u64>,
    /// How long the release is watched after the switch, in milliseconds.
    pub watch_ms: Option<u64>,
    /// Who asks.
    pub actor: Actor,
    /// Whether the service manager opens the instance's socket and starts it with the first request;
    /// true asks for the systemd runtime.
    pub socket_activated: Option<bool>,
}

/// Where a deployment is. Append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Waiting for its turn; deployments of one app run one after the other.
    Queued,
    /// Fetching, unpacking and building.
    Preparing,
    /// Starting the new instance.
    Starting,
    /// Waiting for the new instance to pass its health check.
    Probing,
    /// Giving the new routes to the proxy.
    Switching,
    /// Waiting for the requests that the old instance still answers.
    Draining,
    /// Stopping the old instance.
    Retiring,
    /// Served by the new release, watched until the window closes.
    Live,
    /// Served by the new release, the watch window closed without a failure.
    Confirmed,
    /// Removing what was started, before `refused`.
    Refusing,
    /// Ended: the new release never served.
    Refused,
    /// Bringing back the last good release.
    RollingBack,
    /// Ended: the last good release serves again.
    RolledBack,
}

impl Phase {
    /// Every phase, in wire order.
    pub const ALL: [Phase; 13] = [
        Phase::Queued,
        Phase::Preparing,
        Phase::Starting,
        Phase::Probing,
        Phase::Switching,
        Phase::Draining,
        Phase::Retiring,
        Phase::Live,
        Phase::Confirmed,
        Phase::Refusing,
        Phase::Refused,
        Phase::RollingBack,
        Phase::RolledBack,
    ];

    /// The name in JSON, in the database and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Preparing => "preparing",
            Phase::Starting => "starting",
            Phase::Probing => "probing",
            Phase::Switching => "switching",
            Phase::Draining => "draining",
            Phase::Retiring => "retiring",
            Phase::Live => "live",
            Phase::Confirmed => "confirmed",
            Phase::Refusing => "refusing",
            Phase::Refused => "refused",
            Phase::RollingBack => "rolling-back",
            Phase::RolledBack => "rolled-back",
        }
    }

    /// Whether the release has no requests to answer yet.
    pub const fn is_before_switch(self) -> bool {
        matches!(
            self,
            Phase::Queued | Phase::Preparing | Phase::Starting | Phase::Probing
        )
    }

    /// The outcome that a caller of `temps deploy` waits for, once there is one.
    pub const fn outcome(self) -> Option<Outcome> {
        match self {
            Phase::Live | Phase::Confirmed => Some(Outcome::Live),
            Phase::Refused => Some(Outcome::Refused),
            Phase::RolledBack => Some(Outcome::RolledBack),
            _ => None,
        }
    }
}

/// How a deployment ended, from the view of who asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new release serves.
    Live,
    /// It never served; what served before still does.
    Refused,
    /// It served, turned bad, and the last good release serves again.
    RolledBack,
}

impl Outcome {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Live => "live",
            Outcome::Refused => "refused",
            Outcome::RolledBack => "rolled_back",
        }
    }
}

/// A deployment as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentView {
    /// Its id.
    pub id: DeploymentId,
    /// The app.
    pub app: AppName,
    /// The release it puts into service.
    pub release: ReleaseId,
    /// Where it is.
    pub phase: Phase,
    /// Why it was refused or rolled back; empty otherwise.
    pub reason: String,
    /// The last lines the release printed, for a refused or rolled back one.
    pub last_lines: Vec<String>,
    /// Where the app answers.
    pub url: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When the watch window closes, from `live` on.
    pub watch_until: Option<Timestamp>,
    /// Raised at every change, so that a caller can wait for the next one.
    pub revision: u64,
}
