//! How much is logged, changed while the daemon runs: `systemctl service-log-level` sets it by the
//! names of syslog(3), of which four differ for us.

use super::DEFAULT_FILTER;
use std::sync::OnceLock;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::reload;

/// Names that systemd knows, and the filter for each. `debug` is about Temps: what its libraries say
/// at that level helps nobody who administers a server.
const LEVELS: [(&str, &str); 8] = [
    ("emerg", "error,tarpc=off"),
    ("alert", "error,tarpc=off"),
    ("crit", "error,tarpc=off"),
    ("err", "error,tarpc=off"),
    ("warning", "warn,tarpc=off"),
    ("notice", DEFAULT_FILTER),
    ("info", DEFAULT_FILTER),
    ("debug", "info,temps=debug,tarpc=off"),
];

/// What was set up by [`super::init`].
pub(super) struct Running {
    pub(super) filter: reload::Handle<EnvFilter, Registry>,
    pub(super) applet: String,
    pub(super) is_journal: bool,
}

pub(super) static RUNNING: OnceLock<Running> = OnceLock::new();

/// The level by its name in syslog(3); `info` where nothing is logged yet.
pub fn level() -> &'static str {
    let hint = RUNNING
        .get()
        .and_then(|running| running.filter.with_current(EnvFilter::max_level_hint).ok())
        .map_or(Some(LevelFilter::INFO), |hint| hint);
    name(hint)
}

/// Logs at this level from now on.
///
/// # Errors
/// A sentence that says which names there are.
pub fn set_level(wanted: &str) -> Result<(), String> {
    let filter = filter(wanted)?;
    match RUNNING.get() {
        Some(running) => running
            .filter
            .reload(filter)
            .map_err(|error| error.to_string()),
        None => Err("nothing is logged".to_owned()),
    }
}

/// Where events go, by the names of org.freedesktop.LogControl1(5): `journal` or `console`.
pub fn target() -> &'static str {
    match RUNNING.get() {
        Some(running) if running.is_journal => "journal",
        _ => "console",
    }
}

/// The `SYSLOG_IDENTIFIER=` of this process.
pub fn identifier() -> &'static str {
    RUNNING.get().map_or("", |running| &running.applet)
}

fn name(hint: Option<LevelFilter>) -> &'static str {
    match hint {
        Some(LevelFilter::OFF | LevelFilter::ERROR) => "err",
        Some(LevelFilter::WARN) => "warning",
        Some(LevelFilter::INFO) => "info",
        _ => "debug",
    }
}

fn filter(wanted: &str) -> Result<EnvFilter, String> {
    LEVELS
        .iter()
        .find(|(name, _)| *name == wanted)
        .map(|(_, filter)| EnvFilter::new(filter))
        .ok_or_else(|| {
            let wanted: String = wanted.chars().take(40).collect();
            let names: Vec<&str> = LEVELS.iter().map(|(name, _)| *name).collect();
            format!("`{wanted}` is no level: expected {}", names.join(", "))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_of_syslog_is_a_level_that_reads_back_as_the_nearest_of_ours() {
        let read = |wanted: &str| name(filter(wanted).unwrap().max_level_hint());
        for (wanted, found) in [
            ("emerg", "err"),
            ("err", "err"),
            ("warning", "warning"),
            ("notice", "info"),
            ("info", "info"),
            ("debug", "debug"),
        ] {
            assert_eq!(read(wanted), found, "{wanted}");
        }
    }

    #[test]
    fn what_is_no_level_is_refused_with_those_there_are() {
        let problem = filter("loud").unwrap_err();
        assert!(
            problem.contains("`loud`") && problem.contains("warning"),
            "{problem}"
        );
    }
}
