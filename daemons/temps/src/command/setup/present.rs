//! How the machine is set up now.

use super::machine::Machine;
use std::io::ErrorKind;
use std::path::PathBuf;
use temps_deployd::config::Settings;
use temps_ipc::types::Host;
use temps_ipc::{Code, Fault};
use temps_unit::config;

/// Where the package puts units.
const UNITS: &str = "/usr/lib/systemd/system";
/// The group of those who may operate the platform.
pub const GROUP: &str = "temps-admin";
/// What setup decides about temps-deployd.
pub const FILE: &str = "/etc/temps/deployd.toml.d/10-setup.toml";

/// A unit that belongs to a running platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// With its suffix.
    pub name: String,
    /// The next boot starts it.
    pub is_enabled: bool,
    /// It runs, listens or waits.
    pub is_active: bool,
}

/// How the machine is set up now.
#[derive(Debug)]
pub struct Present {
    /// Under which apps answer.
    pub base_domain: Host,
    /// The container engine's socket.
    pub engine: PathBuf,
    /// What setup has written, if it has.
    pub file: Option<String>,
    /// Who may operate the platform beside root.
    pub operators: Vec<String>,
    /// Every unit that is wanted by something of the system.
    pub units: Vec<Unit>,
}

impl Present {
    /// Looks.
    ///
    /// # Errors
    /// When the platform is not installed, its configuration is wrong, or the service manager does not
    /// answer.
    pub async fn read(machine: &Machine) -> Result<Self, Fault> {
        let names = units(machine)?;
        let settings = settings(machine)?;
        Ok(Self {
            base_domain: settings.base_domain,
            engine: settings.docker_socket,
            file: std::fs::read_to_string(machine.path(FILE)).ok(),
            operators: operators(machine)?,
            units: states(machine, names).await?,
        })
    }

    /// A unit, if it is part of the platform.
    pub fn unit(&self, name: &str) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.name == name)
    }
}

/// Under which domain apps answer, by all files.
///
/// # Errors
/// When one of them is wrong.
pub fn base_domain(machine: &Machine) -> Result<Host, Fault> {
    Ok(settings(machine)?.base_domain)
}

fn settings(machine: &Machine) -> Result<Settings, Fault> {
    let directories = if machine.is_this() {
        config::directories()
    } else {
        config::SYSTEM_DIRS.map(|dir| machine.path(dir)).to_vec()
    };
    config::load("deployd", &directories).map_err(|error| {
        Fault::new(Code::Config, error.to_string()).hint("mend it, or remove the file")
    })
}

/// Every unit of the platform that says by whom it is wanted.
fn units(machine: &Machine) -> Result<Vec<String>, Fault> {
    let directory = machine.path(UNITS);
    let missing = || {
        Fault::unavailable("the units of Temps are not installed")
            .hint("install the package; `temps up` runs the platform without")
    };
    let entries = std::fs::read_dir(&directory).map_err(|_| missing())?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|_| missing())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name.starts_with("temps-") || name.starts_with("temps.");
        let is_wanted = || {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            text.lines().any(|line| line.starts_with("WantedBy="))
        };
        if is_ours && !name.contains('@') && is_wanted() {
            names.push(name);
        }
    }
    // Sockets before what they start: it takes them when it starts.
    names.sort_by_key(|name| (!name.ends_with(".socket"), name.clone()));
    if names.is_empty() {
        return Err(missing());
    }
    Ok(names)
}

async fn states(machine: &Machine, names: Vec<String>) -> Result<Vec<Unit>, Fault> {
    let ask = |verb| {
        let line: Vec<&str> = std::iter::once(verb)
            .chain(names.iter().map(String::as_str))
            .collect();
        async move { machine.systemctl(&line).await }
    };
    let enabled = ask("is-enabled").await?;
    let active = match machine.runs {
        true => ask("is-active").await?,
        // Nothing is started there, so there is nothing to be told about it.
        false => "active\n".repeat(names.len()),
    };
    let (enabled, active): (Vec<&str>, Vec<&str>) =
        (enabled.lines().collect(), active.lines().collect());
    if enabled.len() != names.len() || active.len() != names.len() {
        return Err(Fault::unavailable(
            "the service manager does not tell the state of every unit",
        )
        .hint(
            "see `systemctl status 'temps*'`; after installing by hand, `systemctl daemon-reload`",
        ));
    }
    let states = enabled.iter().zip(&active);
    Ok(names
        .into_iter()
        .zip(states)
        .map(|(name, (enabled, active))| Unit {
            name,
            is_enabled: enabled.starts_with("enabled"),
            is_active: *active == "active",
        })
        .collect())
}

/// The members of the group. It is made by the package, so it is in the local file.
fn operators(machine: &Machine) -> Result<Vec<String>, Fault> {
    let text = match std::fs::read_to_string(machine.path("/etc/group")) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(Fault::unavailable(format!(
                "/etc/group cannot be read: {error}"
            )));
        }
    };
    // name:password:number:members, as group(5) says
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let members = lines.find_map(|fields| match fields[..] {
        [GROUP, _, _, members] => Some(members.to_owned()),
        _ => None,
    });
    Ok(members
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}
