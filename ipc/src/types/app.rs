//! Apps: their names, runtimes, and how they look from outside.

use crate::id::{InstanceId, ReleaseId};
use crate::types::{DeploymentView, Host, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;

/// An app's name: a DNS label (RFC 1123) of at most 40 characters in lower case that starts with a
/// letter, since it becomes a host name, a container name and a unit name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AppName(String);

/// Room for the prefixes and suffixes of container, unit and network interface names.
const MAX_NAME: usize = 40;

/// Names that would clash with the platform's own hosts and units.
const RESERVED: [&str; 3] = ["temps", "localhost", "local"];

/// Text that cannot be an app's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAppName {
    /// Wrong characters or length.
    #[error(
        "`{0}` is not an app name: use 1 to {MAX_NAME} characters of a-z, 0-9 and `-`, starting with a letter and not ending with `-`"
    )]
    Form(String),
    /// Reserved by the platform.
    #[error("the name `{0}` is reserved")]
    Reserved(String),
}

impl AppName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppName {
    type Err = BadAppName;

    fn from_str(text: &str) -> Result<Self, BadAppName> {
        let characters = text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let starts = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_lowercase());
        if !characters || !starts || text.ends_with('-') || text.len() > MAX_NAME {
            return Err(BadAppName::Form(text.chars().take(80).collect()));
        }
        if RESERVED.contains(&text) {
            return Err(BadAppName::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AppName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// How an app's instances run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// A container on a Docker-compatible engine.
    Docker,
    /// A plain process beside the daemon; only under `temps up`, trusted code only.
    Process,
    /// A transient systemd unit with its own sandbox.
    Systemd,
    /// Files, served by the proxy itself.
    Static,
}

impl RuntimeKind {
    /// The name on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            RuntimeKind::Docker => "docker",
            RuntimeKind::Process => "process",
            RuntimeKind::Systemd => "systemd",
            RuntimeKind::Static => "static",
        }
    }
}

impl FromStr for RuntimeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Docker, Self::Process, Self::Systemd, Self::Static]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| {
                let text: String = text.chars().take(40).collect();
                format!("`{text}` is not a runtime: expected docker, process, systemd or static")
            })
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An app as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppView {
    /// Its name.
    pub name: AppName,
    /// Where it answers, such as `http://shop.localhost:8080`.
    pub url: String,
    /// How its instances run; absent before its first release was built.
    pub runtime: Option<RuntimeKind>,
    /// The release that serves, if one does.
    pub release: Option<ReleaseId>,
    /// One word: `live`, `resting` (it was started by no request yet, or ended while there was none:
    /// the next one starts it), `deploying`, `down` (a release should serve and does not) or `empty`.
    pub state: String,
    /// Every host it answers to, the platform's own first.
    pub hosts: Vec<Host>,
    /// The running copies of the serving release.
    pub instances: Vec<InstanceView>,
    /// The deployment under way or in its watch window, if any.
    pub deployment: Option<DeploymentView>,
    /// When the app was made.
    pub created_at: Timestamp,
    /// How often its serving instance was replaced by a fresh one in the last 15 minutes.
    pub restarts: u32,
    /// When it is replaced next: it died again, and waits for a pause to end.
    pub restart_at: Option<Timestamp>,
    /// Whether a request starts it, in a socket that the service manager holds.
    pub socket_activated: bool,
}

/// A running copy of a release as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Its id.
    pub id: InstanceId,
    /// The release it runs.
    pub release: ReleaseId,
    /// Where it listens, such as `127.0.0.1:41234`.
    pub address: String,
    /// When it was started.
    pub started_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_dns_labels_are_taken() {
        for name in ["a", "shop", "my-shop-2"] {
            assert_eq!(
                name.parse::<AppName>().map(|n| n.to_string()),
                Ok(name.to_owned())
            );
        }
    }

    #[test]
    fn names_that_could_mean_something_to_a_shell_or_a_path_are_refused() {
        let long = "a".repeat(41);
        for name in [
            "",
            "-a",
            "a-",
            "1a",
            "A",
            "a.b",
            "a/b",
            "../a",
            "a b",
            "$(id)",
            "a\n",
            "é",
            &long,
            "temps",
            "localhost",
        ] {
            assert!(name.parse::<AppName>().is_err(), "{name:?}");
        }
    }
}
