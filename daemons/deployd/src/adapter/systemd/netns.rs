//! The program that makes the networks of instances (`temps-netns`), started by the service manager
//! as root with the two capabilities that it takes; deployd has neither.
//!
//! | command | unit | does |
//! |---|---|---|
//! | `network up` | `temps-network.service` | chooses the range, forwards, masquerades, sets the rules |
//! | `network down` | the same | takes them away |
//! | `up INSTANCE` | `temps-netns@INSTANCE.service` | namespace, link, address, routes |
//! | `down INSTANCE` | the same | takes them away |
//!
//! Each can be repeated: what is there already is made anew. An instance has one interface, `eth0`,
//! with one address and a default route to the gateway, an address that the host has on every link.
//! It has no IPv6 but its own loopback.

mod foreign;
mod host;
mod rules;
mod tool;

use super::directory::{InstanceDirectory, Shared};
use super::name;
use super::range::{self, Range};
use super::resolver;
use crate::config::Settings;
use host::Routes;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
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

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

#[derive(Debug, thiserror::Error)]
enum NetnsError {
    #[error("usage: temps-netns network up|down, or temps-netns up|down INSTANCE")]
    Usage,
    #[error("{0}")]
    Config(String),
    #[error(
        "every range of addresses that could be used is in use on this host; set `apps-network` in deployd.toml"
    )]
    NoRange,
    #[error("{0} is not in the range of instances, {1}")]
    Foreign(Ipv4Addr, Range),
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
    let state = std::env::var_os("STATE_DIRECTORY")
        .map(PathBuf::from)
        .ok_or_else(|| NetnsError::Config("STATE_DIRECTORY is not set".to_owned()))?;
    let instance = |text: &str| text.parse::<InstanceId>().map_err(|_| NetnsError::Usage);
    match args {
        ["network", "up"] => network_up(&state),
        ["network", "down"] => network_down(&state),
        ["up", id] => up(&state, &instance(id)?),
        ["down", id] => down(&instance(id)?),
        _ => Err(NetnsError::Usage),
    }
}

fn network_up(state: &Path) -> Result<(), NetnsError> {
    // deployd tells about a mistake in its settings; the network goes on with what is said.
    let settings: Settings = config::load("deployd", &config::directories())
        .map_err(|error| NetnsError::Config(error.to_string()))?;
    let routes = Routes::parse(&tool::ip(&[
        "-json", "-4", "route", "show", "table", "all",
    ])?)?;
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
    let mut ports = vec![80, 443];
    ports.extend(settings.public_port);
    ports.sort_unstable();
    ports.dedup();
    let resolvers = resolver::servers(&settings.apps_resolvers);
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

fn network_down(state: &Path) -> Result<(), NetnsError> {
    let range = Shared::read(state).ok().map(|shared| shared.range);
    foreign::withdraw(range)?;
    let table = rules::TABLE;
    tool::nft_apply(&format!("table {table}\ndelete table {table}\n"))?;
    unclaim();
    Ok(())
}

/// Removes the claim, if there is one: having none is a failure to some versions of ip.
fn unclaim() {
    let _ = tool::ip(&["route", "flush", "type", "unreachable", "proto", PROTOCOL]);
}

fn up(state: &Path, id: &InstanceId) -> Result<(), NetnsError> {
    let file = |error| NetnsError::File(state.to_owned(), error);
    let range = Shared::read(state).map_err(file)?.range;
    let address = InstanceDirectory::new(state, id).address().map_err(file)?;
    if !range.contains(address) {
        return Err(NetnsError::Foreign(address, range));
    }
    // Without the rules nothing would keep instances apart.
    tool::nft(&["list", "chain", "inet", "temps", "input"])?;
    // What a killed run of this very command left, under the same name or with the same address.
    down(id)?;
    let (namespace, interface) = (name::namespace(id), name::interface(address));
    if Path::new("/sys/class/net").join(&interface).exists() {
        tool::ip(&["link", "delete", &interface])?;
    }
    let gateway = range.gateway();
    tool::ip(&["netns", "add", &namespace])?;
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
        Some(&namespace),
        &[
            "link set lo up".to_owned(),
            "link set eth0 addrgenmode none".to_owned(),
            format!("address add {address}/32 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add {gateway} dev eth0 scope link"),
            format!("route add default via {gateway}"),
        ],
    )?;
    foreign::admit(range)
}

fn down(id: &InstanceId) -> Result<(), NetnsError> {
    let namespace = name::namespace(id);
    // The link goes with the end that is in it.
    if Path::new("/run/netns").join(&namespace).exists() {
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
