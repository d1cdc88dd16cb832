//! The installation's own bridge network, and the addresses on it.
//!
//! Its bridge has a name that rules of the firewall know ([`BRIDGES`]). Networks of before that are
//! called otherwise: what is started goes on the new one, and the old one goes when nothing is on it.

use super::engine::{CallError, Engine};
use crate::adapter::systemd::BRIDGES;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use temps_ipc::Fault;
use temps_ipc::types::Address;

/// Where our networks lie: inside 10.192.0.0/11, of which home and office routers and other
/// platforms use the least.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 192, 0, 0);

/// A network holds 4,096 addresses, more than an engine runs containers.
const PREFIX: u32 = 20;

/// How many ranges there are, and how many are tried before we give up.
const RANGES: u32 = 1 << (PREFIX - 11);
const TRIES: u32 = 32;

/// The network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) name: String,
    first: u32,
    prefix: u32,
    gateway: Option<Ipv4Addr>,
    in_use: HashSet<Ipv4Addr>,
}

impl Network {
    /// The network, made if there is none.
    pub(super) async fn ensure(engine: &Engine) -> Result<Self, CallError> {
        if let Some(found) = Self::find(engine).await? {
            return Ok(found);
        }
        // It may be in use, or of somebody else.
        let _ = remove(engine, &old_name(engine)).await;
        let mut last = String::new();
        for subnet in candidates(engine.installation()) {
            let request = request(engine, &subnet);
            let docker = engine.docker().await?;
            match engine.call(docker.create_network(request)).await {
                Ok(_) => break,
                // Somebody's network is there; Docker says it in one way, Podman in another.
                Err(CallError::Failed(why) | CallError::Refused(why))
                    if why.contains("overlap") || why.contains("already used") =>
                {
                    last = why;
                }
                // Another call of ours was first.
                Err(CallError::Refused(why)) if why.contains("already exists") => break,
                Err(error) => return Err(error),
            }
        }
        Self::find(engine).await?.ok_or_else(|| {
            CallError::Own(
                Fault::unavailable(format!(
                    "no range of addresses is free for containers: {last}"
                ))
                .hint("`docker network prune` removes networks that nothing uses"),
            )
        })
    }

    pub(super) async fn remove(engine: &Engine) -> Result<(), CallError> {
        remove(engine, &name(engine)).await?;
        remove(engine, &old_name(engine)).await
    }

    async fn find(engine: &Engine) -> Result<Option<Self>, CallError> {
        let docker = engine.docker().await?;
        match engine
            .call(docker.inspect_network(&name(engine), None))
            .await
        {
            Ok(found) if engine.owns(found.labels.as_ref()) => {
                Self::read(found).map(Some).ok_or_else(|| {
                    CallError::Failed(format!("the network {} has no range", name(engine)))
                })
            }
            Ok(_) => Err(CallError::Own(
                Fault::unavailable(format!(
                    "the network {} exists and is not ours",
                    name(engine)
                ))
                .hint(format!("remove it: `docker network rm {}`", name(engine))),
            )),
            Err(CallError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(found: NetworkInspect) -> Option<Self> {
        let config = found.ipam?.config?.into_iter().find_map(|config| {
            let (first, prefix) = parse(config.subnet.as_deref()?)?;
            Some((first, prefix, config.gateway))
        });
        let (first, prefix, gateway) = config?;
        let in_use = found
            .containers
            .unwrap_or_default()
            .into_values()
            .filter_map(|endpoint| {
                let address = endpoint.ipv4_address?;
                address.split('/').next()?.parse().ok()
            })
            .collect();
        Some(Self {
            name: found.name?,
            first,
            prefix,
            gateway: gateway.and_then(|gateway| gateway.parse().ok()),
            in_use,
        })
    }

    fn size(&self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// Whether the address is on this network.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else {
            return false;
        };
        let number = u32::from(address);
        number > self.first && number - self.first < self.size() - 1
    }

    /// An address that nothing has. From a random place on: one that was just given back should
    /// rest a while, since others may still hold connections to it.
    pub(super) fn free_address(&self, port: u16, taken: &[Address]) -> Option<SocketAddr> {
        // Without the network's own address, the first (the gateway's, by custom), and the last.
        let count = self.size().checked_sub(3).filter(|&count| count > 0)?;
        let mut noise = [0; 4];
        let _ = getrandom::fill(&mut noise);
        let start = u32::from_ne_bytes(noise) % count;
        let taken: HashSet<IpAddr> = taken
            .iter()
            .filter_map(|address| match address {
                Address::Tcp(address) => Some(address.ip()),
                Address::Unix(_) => None,
            })
            .collect();
        (0..count)
            .map(|step| Ipv4Addr::from(self.first + 2 + (start + step) % count))
            .find(|address| {
                Some(*address) != self.gateway
                    && !self.in_use.contains(address)
                    && !taken.contains(&IpAddr::V4(*address))
            })
            .map(|address| SocketAddr::from((address, port)))
    }
}

async fn remove(engine: &Engine, name: &str) -> Result<(), CallError> {
    let docker = engine.docker().await?;
    engine
        .call(docker.remove_network(name))
        .await
        .or_else(CallError::gone_is_fine)
}

fn name(engine: &Engine) -> String {
    format!("temps-apps-{}", engine.installation())
}

/// What it was called when its bridge had a name that nobody knew.
fn old_name(engine: &Engine) -> String {
    format!("temps-{}", engine.installation())
}

/// The name of the bridge; of interfaces it is at most 15 bytes long.
fn bridge(engine: &Engine) -> String {
    let digits = engine.installation().chars().take(10);
    BRIDGES
        .trim_end_matches('*')
        .chars()
        .chain(digits)
        .collect()
}

fn request(engine: &Engine, subnet: &str) -> NetworkCreateRequest {
    NetworkCreateRequest {
        name: name(engine),
        driver: Some("bridge".to_owned()),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig {
                subnet: Some(subnet.to_owned()),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        options: Some(HashMap::from([
            // Apps do not talk to each other behind the proxy's back.
            (
                "com.docker.network.bridge.enable_icc".to_owned(),
                "false".to_owned(),
            ),
            ("com.docker.network.bridge.name".to_owned(), bridge(engine)),
        ])),
        labels: Some(engine.labels()),
        ..Default::default()
    }
}

/// The ranges to try, from one on that differs between installations.
fn candidates(installation: &str) -> impl Iterator<Item = String> {
    let start = u32::from_str_radix(installation.get(..6).unwrap_or_default(), 16).unwrap_or(0);
    (0..TRIES).map(move |step| {
        let range = start.wrapping_add(step) % RANGES;
        let first = u32::from(FIRST) + (range << (32 - PREFIX));
        format!("{}/{PREFIX}", Ipv4Addr::from(first))
    })
}

/// First address and prefix length of an IPv4 range.
fn parse(subnet: &str) -> Option<(u32, u32)> {
    let (first, prefix) = subnet.split_once('/')?;
    let first: Ipv4Addr = first.parse().ok()?;
    let prefix: u32 = prefix
        .parse()
        .ok()
        .filter(|prefix| (8..=29).contains(prefix))?;
    Some((u32::from(first) & (u32::MAX << (32 - prefix)), prefix))
}

#[cfg(test)]
mod tests {
    use super::super::engine::DockerSettings;
    use super::*;
    use std::path::Path;

    fn network(subnet: &str) -> Network {
        let (first, prefix) = parse(subnet).unwrap();
        Network {
            name: "temps-test".to_owned(),
            first,
            prefix,
            gateway: Some(Ipv4Addr::from(first + 1)),
            in_use: HashSet::new(),
        }
    }

    #[test]
    fn the_bridge_is_one_that_the_rules_know_and_differs_between_installations() {
        let bridge_of = |state: &str| {
            let engine = Engine::new(DockerSettings::default(), Path::new(state));
            let request = request(&engine, "10.192.0.0/20");
            let options = request.options.unwrap();
            assert_eq!(options["com.docker.network.bridge.enable_icc"], "false");
            options["com.docker.network.bridge.name"].clone()
        };
        let name = bridge_of("/var/lib/temps/deployd");
        assert!(name.starts_with("tpd-") && name.len() <= 15, "{name}");
        assert_ne!(name, bridge_of("/home/ada/.local/state/temps/deployd"));
    }

    #[test]
    fn addresses_are_free_and_on_the_network() {
        let mut small = network("10.192.0.0/29");
        small.in_use.insert(Ipv4Addr::new(10, 192, 0, 2));
        let mut taken = Vec::new();
        while let Some(address) = small.free_address(80, &taken) {
            assert!(small.contains(address.ip()), "{address}");
            taken.push(Address::Tcp(address));
        }
        let mut last: Vec<String> = taken.iter().map(Address::to_string).collect();
        last.sort();
        assert_eq!(
            last,
            [
                "10.192.0.3:80",
                "10.192.0.4:80",
                "10.192.0.5:80",
                "10.192.0.6:80"
            ]
        );
    }

    #[test]
    fn foreign_and_special_addresses_are_not_on_the_network() {
        let network = network("10.200.16.0/20");
        for (address, on) in [
            ("10.200.16.0", false),
            ("10.200.16.1", true),
            ("10.200.31.254", true),
            ("10.200.31.255", false),
            ("10.200.32.1", false),
            ("::1", false),
        ] {
            assert_eq!(network.contains(address.parse().unwrap()), on, "{address}");
        }
    }

    #[test]
    fn candidates_differ_and_lie_where_they_shall() {
        let all: HashSet<String> = candidates("ffffff000000").collect();
        assert_eq!(all.len(), TRIES as usize);
        for subnet in all {
            let (first, prefix) = parse(&subnet).unwrap();
            assert_eq!(prefix, PREFIX);
            assert_eq!(first >> 21, u32::from(FIRST) >> 21, "{subnet}");
        }
    }
}
