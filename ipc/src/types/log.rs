//! Build and runtime output, read by cursor: tarpc has no streams, so a follower asks for what
//! comes after the last line it has and waits at the daemon until there is some.

use crate::id::{InstanceId, ReleaseId};
use crate::types::{AppName, Timestamp};
use serde::{Deserialize, Serialize};

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogKind {
    /// What fetching, unpacking and building printed.
    Build,
    /// What the app's instances printed.
    Runtime,
}

/// A question for log lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// The app.
    pub app: AppName,
    /// One release only; otherwise the latest build, or all instances in the order of their start.
    pub release: Option<ReleaseId>,
    /// Which output.
    pub kind: LogKind,
    /// The cursor of the page before; absent for the first page.
    pub after: Option<String>,
    /// For the first page: only so many of the last lines.
    pub tail: Option<u32>,
    /// Most lines wanted; the daemon may send fewer, and never more than 1,000.
    pub limit: u32,
    /// How long to wait for a line if there is none, in milliseconds; at most 20,000.
    pub wait_ms: u64,
}

/// Some lines, and where the next ones start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// Pass it as `after` for what comes next. Opaque.
    pub cursor: String,
    /// Nothing more can come: the build is over, or the release asked for has ended.
    pub ended: bool,
}

/// A line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was printed.
    pub at: Timestamp,
    /// The release that printed it.
    pub release: ReleaseId,
    /// The instance that printed it; absent for build output.
    pub instance: Option<InstanceId>,
    /// Where it was printed.
    pub stream: LogStream,
    /// The line without its end, cut at 16 KiB, invalid UTF-8 replaced.
    pub text: String,
}

/// Where a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Said by the platform about the app.
    Platform,
}
