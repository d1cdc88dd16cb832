//! How the proxy is, for `temps status` and `temps doctor`.

use crate::engine::Engine;
use crate::engine::table::UNHEALTHY_AFTER;
use crate::http::live::Live;
use crate::spool::Spool;
use crate::tls::certificates::Certificates;
use arc_swap::ArcSwapOption;
use std::net::SocketAddr;
use std::sync::Arc;
use temps_ipc::types::{Check, CheckLevel, ProxyStatus, Timestamp};

/// What is wrong with the configuration files as they are now.
pub type Problem = Arc<ArcSwapOption<String>>;

/// Everything a status is made of.
pub struct Status {
    /// Routes and targets.
    pub engine: Arc<Engine>,
    /// Connections and requests.
    pub live: Arc<Live>,
    /// Certificates.
    pub certificates: Arc<Certificates>,
    /// Access events.
    pub spool: Spool,
    /// What is wrong with the configuration files, if the settings are those before.
    pub problem: Problem,
    /// When this process started.
    pub started_at: Timestamp,
    /// Where HTTP is served.
    pub http: Option<SocketAddr>,
    /// Where HTTPS is served.
    pub https: Option<SocketAddr>,
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Status {
    /// As of now.
    pub fn now(&self) -> ProxyStatus {
        let table = self.engine.table();
        ProxyStatus {
            build: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            generation: table.generation(),
            routes: count(table.snapshot().routes.len()),
            targets: count(table.targets().len()),
            unhealthy: count(self.engine.unhealthy()),
            certificates: count(self.certificates.count()),
            http: self.http,
            https: self.https,
            connections: count(self.live.connections()),
            requests: self.live.requests(),
            local_ca: self.certificates.authority().to_owned(),
            checks: self.checks(),
        }
    }

    /// One line for the service manager.
    pub fn line(&self) -> String {
        let table = self.engine.table();
        format!(
            "{} routes, {} targets, {} certificates",
            table.snapshot().routes.len(),
            table.targets().len(),
            self.certificates.count()
        ) + if self.problem.load().is_some() {
            "; the configuration is wrong, and the last good one is used"
        } else {
            ""
        }
    }

    fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.routes(), self.targets(), self.access_events()];
        checks.extend(self.configuration());
        checks
    }

    fn configuration(&self) -> Option<Check> {
        let problem = self.problem.load_full()?;
        Some(check(
            "proxy.toml",
            CheckLevel::Failed,
            format!("the configuration is wrong: {problem}; the last good one is used"),
            "mend it, then reload temps-proxy",
        ))
    }

    fn routes(&self) -> Check {
        let generation = self.engine.table().generation();
        if generation == 0 {
            return check(
                "routes",
                CheckLevel::Warning,
                "no routes have been received yet; every request is answered 404".to_owned(),
                "deploy an app, or see whether temps-deployd runs",
            );
        }
        check(
            "routes",
            CheckLevel::Ok,
            format!("generation {generation} is served"),
            "",
        )
    }

    fn targets(&self) -> Check {
        let table = self.engine.table();
        let bad: Vec<String> = table
            .targets()
            .iter()
            .filter(|(target, _)| target.failures() >= UNHEALTHY_AFTER)
            .filter_map(|(target, _)| Some(format!("{} ({})", target.id(), target.address()?)))
            .take(10)
            .collect();
        if bad.is_empty() {
            return check(
                "targets",
                CheckLevel::Ok,
                "every routed target passes its health check".to_owned(),
                "",
            );
        }
        check(
            "targets",
            CheckLevel::Failed,
            format!("these fail their health check: {}", bad.join(", ")),
            "see the app's log: temps logs APP",
        )
    }

    fn access_events(&self) -> Check {
        match self.spool.lost() {
            0 => check(
                "access events",
                CheckLevel::Ok,
                "none lost since the start".to_owned(),
                "",
            ),
            lost => check(
                "access events",
                CheckLevel::Warning,
                format!("{lost} lost since the start"),
                "see whether the disk of the state directory is full or slow",
            ),
        }
    }
}

fn check(name: &str, level: CheckLevel, what: String, hint: &str) -> Check {
    Check {
        name: name.to_owned(),
        level,
        what,
        hint: hint.to_owned(),
    }
}
