//! A release as seen from outside.

use crate::id::ReleaseId;
use crate::types::{RuntimeKind, Timestamp};
use serde::{Deserialize, Serialize};

/// What became of a release. Append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseStatus {
    /// Waiting, building or starting.
    Pending,
    /// Serving now.
    Live,
    /// Served without a failure, replaced by a later deployment.
    Superseded,
    /// Never served: its build, start or health check failed.
    Refused,
    /// Served, turned bad, and was replaced by the last good one.
    RolledBack,
}

impl ReleaseStatus {
    /// Every status, in wire order.
    pub const ALL: [ReleaseStatus; 5] = [
        ReleaseStatus::Pending,
        ReleaseStatus::Live,
        ReleaseStatus::Superseded,
        ReleaseStatus::Refused,
        ReleaseStatus::RolledBack,
    ];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            ReleaseStatus::Pending => "pending",
            ReleaseStatus::Live => "live",
            ReleaseStatus::Superseded => "superseded",
            ReleaseStatus::Refused => "refused",
            ReleaseStatus::RolledBack => "rolled_back",
        }
    }
}

/// A release as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// Its id.
    pub id: ReleaseId,
    /// What became of it.
    pub status: ReleaseStatus,
    /// How its instances run; absent if it never got that far.
    pub runtime: Option<RuntimeKind>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Where it came from, such as `dir shop`, `git https://…#main (4f2c…)` or `image shop:3`.
    pub source: String,
    /// Why it has its status: the cause of a refusal or a rollback, or empty.
    pub reason: String,
    /// Who asked for it.
    pub actor: String,
    /// Whether its instances are started by requests.
    pub socket_activated: bool,
}
