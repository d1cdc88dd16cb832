//! `proxy.toml`: everything has a default. Durations are texts such as `30s`, `2m` or `250ms`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::path::PathBuf;
use std::time::Duration;
use temps_unit::duration;

/// Name of the configuration, without `.toml`.
pub const NAME: &str = "proxy";

/// The configuration. Only [`Timeouts`] and [`Limits::header_bytes`] follow a reload; the rest is
/// read at the start.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Worker threads; 0 takes one per core, at most 4: a proxy waits more than it computes.
    pub threads: usize,
    /// Set by `temps up`: run by an ordinary user without systemd. Only its own uid may call.
    pub standalone: bool,
    /// Where deployd listens, for the report of a bad target.
    pub deployd_socket: PathBuf,
    /// Where the helper of a restart is called. Not used by a standalone proxy.
    pub handover_socket: PathBuf,
    /// How long requests in flight may take after SIGTERM. Below the unit's `TimeoutStopSec=`.
    #[serde(deserialize_with = "wait")]
    pub drain_deadline: Duration,
    /// How long connections without a request are kept after SIGTERM, since one may be on its way.
    #[serde(deserialize_with = "wait")]
    pub fresh_grace: Duration,
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
    /// See [`Limits`].
    pub limits: Limits,
    /// See [`Probes`].
    pub probes: Probes,
    /// See [`Spool`].
    pub spool: Spool,
}

/// How long anybody is waited for.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Timeouts {
    /// A client's whole request header, from its first byte.
    #[serde(deserialize_with = "wait")]
    pub client_header: Duration,
    /// A client between requests, and before its first. As nginx and browsers: a minute.
    #[serde(deserialize_with = "wait")]
    pub client_idle: Duration,
    /// A client that sends a body, or takes an answer: between two reads or writes.
    #[serde(deserialize_with = "wait")]
    pub client_body: Duration,
    /// A TLS handshake, from its first byte.
    #[serde(deserialize_with = "wait")]
    pub handshake: Duration,
    /// A connection to a target: on the same machine, so even a full queue answers sooner.
    #[serde(deserialize_with = "wait")]
    pub connect: Duration,
    /// A target's next bytes, the first included. As nginx's `proxy_read_timeout`.
    #[serde(deserialize_with = "wait")]
    pub read: Duration,
    /// The same for WebSockets and event streams, which are silent for long by nature.
    #[serde(deserialize_with = "wait")]
    pub stream: Duration,
    /// An idle connection to a target. Below the 5 s after which Node closes its side: a request
    /// sent into that moment would be lost.
    #[serde(deserialize_with = "wait")]
    pub keep: Duration,
}

/// How much anybody may take.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// A request's header in bytes.
    pub header_bytes: usize,
    /// Client connections; more wait in the queue of the socket.
    pub connections: usize,
    /// Idle connections to targets, over all of them.
    pub idle_upstreams: usize,
}

/// How targets are checked.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Probes {
    /// Between two checks of a routed target.
    #[serde(deserialize_with = "wait")]
    pub routed: Duration,
    /// Between two attempts while deployd waits for a new one.
    #[serde(deserialize_with = "wait")]
    pub fresh: Duration,
    /// Between two reports of a target that stays bad.
    #[serde(deserialize_with = "wait")]
    pub report: Duration,
}

/// How access events are kept.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Spool {
    /// All segments together, in bytes; the oldest go first. 0 keeps no access events.
    pub bytes: u64,
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 0,
            standalone: false,
            deployd_socket: PathBuf::from("/run/temps/deployd.sock"),
            handover_socket: PathBuf::from("/run/temps/proxy-handover.sock"),
            drain_deadline: s(30),
            fresh_grace: s(3),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            probes: Probes::default(),
            spool: Spool::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            client_header: s(10),
            client_idle: s(60),
            client_body: s(60),
            handshake: s(10),
            connect: s(5),
            read: s(60),
            stream: s(3600),
            keep: s(4),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 * 1024,
            connections: 10_000,
            idle_upstreams: 1024,
        }
    }
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            routed: s(5),
            fresh: Duration::from_millis(250),
            report: s(30),
        }
    }
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            bytes: 64 * 1024 * 1024,
        }
    }
}

/// A day: longer waits are mistakes.
const LONGEST: Duration = s(86_400);

/// How long something is waited for. Not at all is a mistake, too: nothing would work.
fn wait<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let wait = duration::deserialize(deserializer)?;
    if wait.is_zero() || wait > LONGEST {
        let shown = duration::show(wait);
        return Err(D::Error::custom(format!("{shown} is not from 1ms to 24h")));
    }
    Ok(wait)
}

impl Settings {
    /// Worker threads to start.
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(4),
            some => some.min(256),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temps_unit::config::{Text, parse};

    fn read(text: &str) -> Result<Settings, temps_unit::config::ConfigError> {
        let file = "proxy.toml".to_owned();
        parse(&[Text {
            file,
            text: text.to_owned(),
        }])
    }

    #[test]
    fn nothing_needs_to_be_configured() {
        let settings = read("").unwrap();
        assert_eq!(settings.drain_deadline, s(30));
        assert!((1..=4).contains(&settings.threads()));
    }

    #[test]
    fn durations_are_texts_with_a_unit() {
        let text =
            "fresh-grace = \"500ms\"\n[timeouts]\nconnect = \"2m\"\n[probes]\nrouted = \"1s\"";
        let settings = read(text).unwrap();
        assert_eq!(settings.fresh_grace, Duration::from_millis(500));
        assert_eq!(settings.timeouts.connect, s(120));
        assert_eq!(settings.timeouts.read, s(60));
    }

    #[test]
    fn unknown_keys_and_nonsense_are_refused() {
        for value in [
            "1",
            "\"1\"",
            "\"0s\"",
            "\"-1s\"",
            "\"25h\"",
            "\"1 s\"",
            "\"99999999999999999999s\"",
        ] {
            assert!(read(&format!("fresh-grace = {value}")).is_err(), "{value}");
        }
        for text in ["colour = 1", "[limits]\nx = 1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
