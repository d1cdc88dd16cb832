//! The program that makes the networks of instances (`temps-netns`), started by the service manager
//! as root with the two capabilities that it takes; deployd has neither.
//!
//! | command | unit | does |
//! |---|---|---|
//! | `network up` | `temps-network.service` | chooses the range, forwards, masquerades, sets the rules |
//! | `network down` | the same | takes them away, unless somebody has a link |
//! | `network check` | `temps-network-check.service` | fails if the rules are not there |
//! | `up ID` | `temps-netns@ID.service` | namespace, rules in it, link, address, routes |
//! | `down ID` | the same | takes them away, and what is shared if that was to go before |
//!
//! `ID` is an instance, or a job of a build (`job-…`), which gets an address here.
//!
//! Each can be repeated: what is there already is made anew. An instance has one interface, `eth0`,
//! with one address and a default route to the gateway, an address that the host has on every link.
//! It has no IPv6 but its own loopback.

mod foreign;
mod host;
mod inside;
mod rules;
mod tool;

use super::directory::{InstanceDirectory, Shared};
use super::job::JobId;
use super::name;
use super::range::{self, Range};
use super::resolver;
use crate::config::Settings;
use host::Routes;
use rules::Resolvers;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use temps_ipc::id::InstanceId;
use temps_unit::Applet;
use temps_unit::config;
use temps_unit::exit::Exit;

/// The program that makes the networks of instances.
pub const NETNS_APPLET: Applet = Applet {
    name: "temps-netns",
    about: "makes the networks of apps (started by the service manager)",
    run,
};

/// The routing protocol that our claim of the range is marked with, among numbers that nobody else
/// has (rtnetlink(7) leaves those above 4 to users).
const PROTOCOL: &str = "84";

/// Where the kernel shows the links of this host.
const LINKS: &str = "/sys/class/net";

/// How many addresses a job tries to get: others may get the same one at the same time.
const TRIES: usize = 8;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

#[derive(Debug, thiserror::Error)]
enum NetnsError {
    #[error("usage: temps-netns network up|down|check, or temps-netns up|down INSTANCE|job-ID")]
    Usage,
    #[error("{0}")]
    Config(String),
    #[error(
        "every range of addresses that could be used is in use on this host; set `apps-network` in deployd.toml"
    )]
    NoRange,
    #[error("{0} is not in the range of instances, {1}")]
    Foreign(Ipv4Addr, Range),
    #[error("the range of instances, {0}, has no free address for a job of a build")]
    NoAddress(Range),
    #[error("the rules are not there")]
    NoRules,
    #[error(transparent)]
    Tool(#[from] tool::ToolError),
    #[error("{0}: {1}")]
    File(PathBuf, #[source] io::Error),
    #[error("the routes of this host cannot be read: {0}")]
    Routes(#[from] serde_json::Error),
}

impl NetnsError {
    fn exit(&self) -> Exit {
        match self {
            Self::Usage => Exit::Usage,
            Self::Config(_) | Self::NoRange => Exit::Config,
            _ => Exit::Internal,
        }
    }
}

fn run(args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match carry_out(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The level of the journal's line.
            let _ = writeln!(io::stderr(), "<3>{error}");
            error.exit().into()
        }
    }
}

fn carry_out(args: &[&str]) -> Result<(), NetnsError> {
    let state = || {
        std::env::var_os("STATE_DIRECTORY")
            .map(PathBuf::from)
            .ok_or_else(|| NetnsError::Config("STATE_DIRECTORY is not set".to_owned()))
    };
    match args {
        ["network", "up"] => network_up(&state()?),
        ["network", "down"] => network_down(&state()?),
        ["network", "check"] => network_check(),
        ["up", id] => up(&state()?, &id.parse()?),
        ["down", id] => {
            down(&id.parse()?)?;
            // It was to go before, as when the package is removed, and stayed for this one.
            if !has_links() && !is_shared_part_wanted() {
                network_down(&state()?)?;
            }
            Ok(())
        }
        _ => Err(NetnsError::Usage),
    }
}

/// Whose a network is.
enum Owner {
    Instance(InstanceId),
    Job(JobId),
}

impl FromStr for Owner {
    type Err = NetnsError;

    fn from_str(text: &str) -> Result<Self, NetnsError> {
        let job = text.parse().map(Self::Job);
        job.or_else(|()| text.parse().map(Self::Instance))
            .map_err(|_| NetnsError::Usage)
    }
}

impl Owner {
    fn namespace(&self) -> String {
        match self {
            Self::Instance(id) => name::namespace(id),
            Self::Job(id) => name::namespace(id),
        }
    }
}

/// The settings of deployd, as it runs with them itself: the last good ones if somebody made a mistake,
/// which deployd tells about, and the defaults if there are none. A mistake there is no reason for apps to
/// have no network.
fn settings(state: &Path, directories: &[PathBuf]) -> Settings {
    let warn = |text: &str| {
        let _ = writeln!(io::stderr(), "<4>the configuration is wrong: {text}");
    };
    match config::load_or_last_good("deployd", directories, state, Settings::check) {
        Ok(found) => {
            if let Some(problem) = found.problem {
                warn(&format!("{problem}; the last good one is used"));
            }
            found.settings
        }
        Err(problem) => {
            warn(&format!(
                "{problem}; without one that was good, the defaults are used"
            ));
            Settings::default()
        }
    }
}

/// The ports of the proxy.
fn ports(settings: &Settings) -> Vec<u16> {
    let mut ports = vec![80, 443];
    ports.extend(settings.public_port);
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn routes() -> Result<Routes, NetnsError> {
    let listed = tool::ip(&["-json", "-4", "route", "show", "table", "all"])?;
    Ok(Routes::parse(&listed)?)
}

fn network_up(state: &Path) -> Result<(), NetnsError> {
    let settings = settings(state, &config::directories());
    let routes = routes()?;
    let range = range_for(state, settings.apps_network, &routes)?;
    let shared = Shared { range };
    shared
        .write(state)
        .map_err(|error| NetnsError::File(state.to_owned(), error))?;
    // Instances reach the world only through the host. It stays on: others may rely on it by then.
    write(FORWARDING, "1")?;
    // So that the range is seen in the table of routes, and packets to an instance that is gone are
    // refused at once instead of leaving by the default route.
    unclaim();
    let claim = range.to_string();
    tool::ip(&["route", "add", "unreachable", &claim, "proto", PROTOCOL])?;
    let resolvers = Resolvers {
        apps: resolver::servers(&settings.apps_resolvers),
        host: resolver::servers(&[]),
    };
    let ports = ports(&settings);
    tool::nft_apply(&rules::table(range, &ports, &routes.uplinks(), &resolvers))?;
    foreign::admit(range)?;
    foreign::admit_legacy();
    Ok(())
}

/// The configured range; else the one of last time, which recorded addresses are of; else a free one.
fn range_for(
    state: &Path,
    configured: Option<Range>,
    routes: &Routes,
) -> Result<Range, NetnsError> {
    if let Some(range) = configured {
        return Ok(range);
    }
    let present = routes.present();
    let last = Shared::read(state).ok().map(|shared| shared.range);
    if let Some(last) = last.filter(|last| present.iter().all(|other| !other.overlaps(*last))) {
        return Ok(last);
    }
    let seed = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    range::choose(seed.trim(), &present).ok_or(NetnsError::NoRange)
}

fn network_check() -> Result<(), NetnsError> {
    let listed = tool::nft(&["list", "table", "inet", "temps"])?;
    let whole = ["hook input", "hook forward", "hook postrouting"];
    if whole.iter().all(|hook| listed.contains(hook)) {
        Ok(())
    } else {
        Err(NetnsError::NoRules)
    }
}

fn network_down(state: &Path) -> Result<(), NetnsError> {
    if has_links() {
        // Without the rules nothing would keep apart those that run.
        let _ = writeln!(io::stderr(), "<5>apps or builds run: their rules stay");
        return Ok(());
    }
    let range = Shared::read(state).ok().map(|shared| shared.range);
    foreign::withdraw(range)?;
    let table = rules::TABLE;
    tool::nft_apply(&format!("table {table}\ndelete table {table}\n"))?;
    unclaim();
    Ok(())
}

/// Whether what all share is there, is being made, or is being taken away by its own unit; also if
/// nobody says.
fn is_shared_part_wanted() -> bool {
    let state = tool::systemctl(&["show", "--value", "--property=ActiveState", name::SHARED]);
    !state.is_ok_and(|state| matches!(state.trim(), "inactive" | "failed"))
}

/// Removes the claim, if there is one: having none is a failure to some versions of ip.
fn unclaim() {
    let _ = tool::ip(&["route", "flush", "type", "unreachable", "proto", PROTOCOL]);
}

/// Whether there is a link to an instance or a job, or a bridge of containers.
fn has_links() -> bool {
    let ours = [name::INTERFACES, name::BRIDGES].map(|pattern| pattern.trim_end_matches('*'));
    fs::read_dir(LINKS).is_ok_and(|found| {
        found.flatten().any(|link| {
            let link = link.file_name();
            let link = link.to_string_lossy();
            ours.iter().any(|prefix| link.starts_with(prefix))
        })
    })
}

fn up(state: &Path, owner: &Owner) -> Result<(), NetnsError> {
    let file = |error| NetnsError::File(state.to_owned(), error);
    let range = Shared::read(state).map_err(file)?.range;
    // Without the rules nothing would keep instances apart.
    tool::nft(&["list", "chain", "inet", "temps", "input"])?;
    // What a killed run of this very command left, under the same name or with the same address.
    down(owner)?;
    let settings = settings(state, &config::directories());
    let rules = inside::table(
        range,
        &routes()?.own(),
        &ports(&settings),
        &resolver::servers(&settings.apps_resolvers),
    );
    let namespace = owner.namespace();
    let is_there = |address| Path::new(LINKS).join(name::interface(address)).exists();
    match owner {
        Owner::Instance(id) => {
            let address = InstanceDirectory::new(state, id).address().map_err(file)?;
            if !range.contains(address) {
                return Err(NetnsError::Foreign(address, range));
            }
            if is_there(address) {
                tool::ip(&["link", "delete", &name::interface(address)])?;
            }
            connect(&namespace, &rules, range, address)?;
        }
        Owner::Job(_) => {
            let mut made = Err(NetnsError::NoAddress(range));
            let free = range.job_addresses().filter(|address| !is_there(*address));
            for address in free.take(TRIES) {
                made = connect(&namespace, &rules, range, address);
                if made.is_ok() {
                    break;
                }
                // Another job may have taken it in between.
                down(owner)?;
            }
            made?;
        }
    }
    foreign::admit(range)
}

/// Makes the namespace, its rules before its link: there is no moment without them.
fn connect(
    namespace: &str,
    rules: &str,
    range: Range,
    address: Ipv4Addr,
) -> Result<(), NetnsError> {
    let (gateway, interface) = (range.gateway(), name::interface(address));
    tool::ip(&["netns", "add", namespace])?;
    tool::nft_apply_in(namespace, rules)?;
    tool::ip_batch(
        None,
        &[
            format!("link add {interface} type veth peer name eth0 netns {namespace}"),
            // No address of IPv6, not even a link-local one, on either end.
            format!("link set {interface} addrgenmode none"),
            format!("address add {gateway}/32 dev {interface}"),
            format!("link set {interface} up"),
            format!("route add {address}/32 dev {interface} src {gateway}"),
        ],
    )?;
    tool::ip_batch(
        Some(namespace),
        &[
            "link set lo up".to_owned(),
            "link set eth0 addrgenmode none".to_owned(),
            format!("address add {address}/32 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add {gateway} dev eth0 scope link"),
            format!("route add default via {gateway}"),
        ],
    )?;
    Ok(())
}

fn down(owner: &Owner) -> Result<(), NetnsError> {
    let namespace = owner.namespace();
    if Path::new("/run/netns").join(&namespace).exists() {
        // It would go with the end that is in the namespace, but some time later. There may be none.
        let _ = tool::ip(&["-n", &namespace, "link", "delete", "eth0"]);
        tool::ip(&["netns", "delete", &namespace])?;
    }
    Ok(())
}

fn write(path: &str, text: &str) -> Result<(), NetnsError> {
    if fs::read_to_string(path).is_ok_and(|found| found.trim() == text) {
        return Ok(());
    }
    fs::write(path, text).map_err(|error| NetnsError::File(PathBuf::from(path), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_the_settings_leaves_the_last_good_ones_and_without_them_the_defaults() {
        let (files, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = files.path().join("deployd.toml");
        // The first directory is the vendor's, whose mistakes are never the administrator's.
        let directories = [PathBuf::from("/nonexistent"), files.path().to_owned()];
        let port = || settings(state.path(), &directories).public_port;
        fs::write(&path, "public-port = 8080\n").unwrap();
        assert_eq!(port(), Some(8080));
        fs::write(&path, "public-prt = 8080\n").unwrap();
        assert_eq!(port(), Some(8080));
        fs::remove_file(state.path().join("deployd.toml.last-good")).unwrap();
        assert_eq!(port(), None);
    }

    #[test]
    fn an_owner_is_an_instance_or_a_job() {
        let id = InstanceId::fresh().to_string();
        assert!(matches!(id.parse(), Ok(Owner::Instance(_))));
        assert!(matches!(format!("job-{id}").parse(), Ok(Owner::Job(_))));
        for text in ["", "job-", "job", "../x", "job-../x"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }
}
