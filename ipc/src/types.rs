//! What is talked about, validated when it is parsed: a value of these types that exists is valid.

pub mod actor;
pub mod app;
pub mod deployment;
pub mod env;
pub mod host;
pub mod log;
pub mod release;
pub mod route;
pub mod source;
pub mod status;

pub use actor::Actor;
pub use app::{AppName, AppView, InstanceView, RuntimeKind};
pub use deployment::{DeployRequest, DeploymentView, Outcome, Phase};
pub use env::{EnvName, EnvValue, EnvVar};
pub use host::{Host, PathPrefix};
pub use log::{LogKind, LogLine, LogPage, LogQuery, LogStream};
pub use release::{ReleaseStatus, ReleaseView};
pub use route::{
    Address, Backend, HealthCheck, ProbeFailure, ProbeOutcome, ProbeRequest, Route, Snapshot,
    StaticSite, Target,
};
pub use source::Source;
pub use status::{Check, CheckLevel, DeploydStatus, ProxyStatus};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment: UTC, milliseconds since 1970 on the wire, RFC 3339 for people.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment it is now by the system clock.
    pub fn now() -> Self {
        let nanos = OffsetDateTime::now_utc().unix_timestamp_nanos();
        Self((nanos / 1_000_000) as i64)
    }

    /// As RFC 3339 with milliseconds, such as `2026-11-22T14:30:00.250Z`.
    pub fn rfc3339(self) -> String {
        let nanos = i128::from(self.0) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .ok()
            .and_then(|moment| moment.format(&Rfc3339).ok())
            .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_printed_as_rfc_3339_in_utc() {
        assert_eq!(Timestamp(1_000).rfc3339(), "1970-01-01T00:00:01Z");
        assert!(Timestamp::now().rfc3339().ends_with('Z'));
    }
}
