//! What has to change so that the machine is as it was asked for, and changing it.

use super::Wanted;
use super::machine::Machine;
use super::port::PORTS;
use super::present::{FILE, GROUP, Present, Unit};
use temps_ipc::Fault;
use temps_ipc::types::{Check, CheckLevel, Host};

/// The daemon that reads what setup writes.
const DEPLOYD: &str = "temps-deployd.service";
/// The daemon that serves, and what stands in for it while it is stopped.
const PROXY: &str = "temps-proxy.service";
const HANDOVER: &str = "temps-proxy-handover.service";
/// Gives the apps that are there their new hosts.
const RECONCILE: &str = "temps-reconcile.service";

/// One change.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes the domain into the configuration.
    Domain(Host),
    /// Lets a user operate the platform.
    Operator(String),
    /// Has the next boot start units.
    Enable(Vec<String>),
    /// Starts units.
    Start(Vec<String>),
    /// Has deployd read its configuration.
    Apply,
}

/// Changes in the order in which they are made.
#[derive(Debug)]
pub struct Plan {
    /// None if everything is as it should be.
    pub changes: Vec<Change>,
}

impl Plan {
    /// Compares what is with what is wanted. A socket whose port is taken is not started: it would fail.
    pub fn new(present: &Present, wanted: &Wanted, checks: &[Check]) -> Self {
        let mut changes = Vec::new();
        let domain = &wanted.base_domain;
        let differs = present.base_domain != *domain;
        if differs && present.file.as_deref() != Some(&text(domain)) {
            changes.push(Change::Domain(domain.clone()));
        }
        for user in &wanted.operators {
            let change = Change::Operator(user.clone());
            // Root operates it anyway.
            if user != "root" && !present.operators.contains(user) && !changes.contains(&change) {
                changes.push(change);
            }
        }
        let names = |wanted: &dyn Fn(&&Unit) -> bool| -> Vec<String> {
            let units = present.units.iter().filter(wanted);
            units.map(|unit| unit.name.clone()).collect()
        };
        let disabled = names(&|unit| !unit.is_enabled);
        if !disabled.is_empty() {
            changes.push(Change::Enable(disabled));
        }
        let stopped = names(&|unit| !unit.is_active && !is_taken(&unit.name, checks));
        if !stopped.is_empty() {
            changes.push(Change::Start(stopped));
        }
        if changes
            .first()
            .is_some_and(|first| matches!(first, Change::Domain(_)))
        {
            changes.push(Change::Apply);
        }
        Self { changes }
    }

    /// Somebody becomes an operator.
    pub fn adds_operators(&self) -> bool {
        let mut changes = self.changes.iter();
        changes.any(|change| matches!(change, Change::Operator(_)))
    }
}

/// Whether somebody else has the port of a socket.
fn is_taken(socket: &str, checks: &[Check]) -> bool {
    PORTS.iter().any(|port| {
        let mut failed = checks
            .iter()
            .filter(|check| check.level == CheckLevel::Failed);
        port.socket == socket && failed.any(|check| check.name == port.name)
    })
}

/// What is written. A domain needs no quoting: it has letters, digits, dots and dashes only.
fn text(domain: &Host) -> String {
    format!(
        "# Written by `temps setup`, and again when it is run again. What is decided by hand goes into a file\n\
         # that comes later, such as 50-local.toml.\n\
         base-domain = \"{domain}\"\n"
    )
}

impl Change {
    /// What is done, as one line.
    pub fn words(&self) -> String {
        match self {
            Change::Domain(domain) => format!("write {FILE}: base-domain = \"{domain}\""),
            Change::Operator(user) => format!("let {user} operate the platform (group {GROUP})"),
            Change::Enable(units) => format!("have every boot start {}", units.join(", ")),
            Change::Start(units) => format!("start {}", units.join(", ")),
            Change::Apply => {
                "give the apps that are there their hosts under the new domain".to_owned()
            }
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// When it fails; what was done before stays.
    pub async fn make(&self, machine: &Machine) -> Result<(), Fault> {
        match self {
            Change::Domain(domain) => machine.write(FILE, &text(domain)),
            Change::Operator(user) => machine.add_member(user, GROUP).await,
            Change::Enable(units) => machine.order(&line("enable", units)).await,
            Change::Start(units) => start(machine, units).await,
            Change::Apply if machine.runs => {
                machine.order(&["try-restart", DEPLOYD]).await?;
                // Not waited for: it may have to start every app. The timer would do it anyway.
                machine.order(&["start", "--no-block", RECONCILE]).await
            }
            Change::Apply => Ok(()),
        }
    }
}

/// A socket cannot begin to listen while its service runs without it, so such a service is stopped for
/// a moment; what arrives at its other sockets waits in their queues.
async fn start(machine: &Machine, units: &[String]) -> Result<(), Fault> {
    // One that failed often is not tried again for a while; the reason may be gone now.
    machine.systemctl(&line("reset-failed", units)).await?;
    let mut stopped = Vec::new();
    for socket in units.iter().filter(|unit| unit.ends_with(".socket")) {
        let services = machine
            .systemctl(&["show", "--property=Triggers", "--value", socket])
            .await?;
        for service in services.split_whitespace() {
            let state = machine.systemctl(&["is-active", service]).await?;
            if state.trim() == "active" {
                machine.order(&["stop", service]).await?;
                if service == PROXY {
                    // It was called for by that stop, and would keep the port from the socket.
                    machine.order(&["stop", HANDOVER]).await?;
                }
                stopped.push(service.to_owned());
            }
        }
    }
    let started = machine.order(&line("start", units)).await;
    if !stopped.is_empty() {
        machine.order(&line("start", &stopped)).await?;
    }
    started
}

fn line<'a>(verb: &'a str, units: &'a [String]) -> Vec<&'a str> {
    std::iter::once(verb)
        .chain(units.iter().map(String::as_str))
        .collect()
}
