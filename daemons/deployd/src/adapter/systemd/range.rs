//! The range of addresses that instances have, and the addresses in it.
//!
//! The first one is the gateway: the host as instances see it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use temps_ipc::types::Address;

/// Where ranges are chosen if none is configured: inside 10.224.0.0/11, of which home and office
/// routers and other platforms use the least, and the container networks of ours nothing.
const AREA: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 0);
const AREA_PREFIX: u8 = 11;

/// 4,094 addresses, more than a machine runs instances.
const PREFIX: u8 = 20;

/// The last addresses of a range are for jobs of builds, which nobody records: a quarter of it, but no more
/// than these, four times what builds side by side can have.
const JOBS: u32 = 256;

/// How many ranges are tried.
const TRIES: u32 = 64;

/// A range of IPv4 addresses (`10.231.16.0/20`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range {
    first: u32,
    prefix: u8,
}

/// Text that is not a range, or not one for instances.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no range of private addresses: {problem}")]
pub struct BadRange {
    text: String,
    problem: &'static str,
}

impl Range {
    /// Any range of routing tables; a single address has no prefix there.
    pub(super) fn of_route(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, prefix.parse().ok()?),
            None => (text, 32),
        };
        let address: Ipv4Addr = address.parse().ok()?;
        (prefix <= 32).then(|| Self {
            first: u32::from(address) & mask(prefix),
            prefix,
        })
    }

    /// The host as instances see it.
    pub(super) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 1)
    }

    /// Whether an instance may have this address.
    pub(super) fn contains(self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.first);
        offset > 1 && offset < self.size() - 1
    }

    /// Whether the two have an address in common.
    pub(super) fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        self.first & mask == other.first & mask
    }

    /// An address that nothing has, from a random place on: one that was just given back should rest
    /// a while, since others may still hold connections to it.
    pub(super) fn free_address(self, taken: &[Address]) -> Option<Ipv4Addr> {
        let taken: HashSet<IpAddr> = taken
            .iter()
            .filter_map(|address| match address {
                Address::Tcp(address) => Some(address.ip()),
                _ => None,
            })
            .collect();
        self.shuffled(0, self.usable().saturating_sub(self.jobs()))
            .find(|address| !taken.contains(&IpAddr::V4(*address)))
    }

    /// The addresses that jobs of builds may have, from a random one on. No instance has any of them.
    pub(super) fn job_addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        self.shuffled(self.usable().saturating_sub(self.jobs()), self.jobs())
    }

    /// `count` usable addresses from the `begin`th on, each once, beginning anywhere.
    fn shuffled(self, begin: u32, count: u32) -> impl Iterator<Item = Ipv4Addr> {
        let mut noise = [0; 4];
        let _ = getrandom::fill(&mut noise);
        let start = u32::from_ne_bytes(noise) % count.max(1);
        (0..count).map(move |step| Ipv4Addr::from(self.first + 2 + begin + (start + step) % count))
    }

    /// Without the network's own address, the gateway, and the last.
    fn usable(self) -> u32 {
        self.size().saturating_sub(3)
    }

    fn jobs(self) -> u32 {
        (self.usable() / 4).min(JOBS)
    }

    fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }
}

/// A range that overlaps with nothing that is `present`, the same one for the same `seed` as long as
/// that is so.
pub(super) fn choose(seed: &str, present: &[Range]) -> Option<Range> {
    let ranges = 1_u32 << (PREFIX - AREA_PREFIX);
    let digest = Sha256::digest(seed.as_bytes());
    let start = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % ranges;
    (0..TRIES)
        .map(|step| Range {
            first: u32::from(AREA) + (((start + step) % ranges) << (32 - PREFIX)),
            prefix: PREFIX,
        })
        .find(|range| present.iter().all(|other| !other.overlaps(*range)))
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Range {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let bad = |problem| BadRange {
            text: text.chars().take(64).collect(),
            problem,
        };
        let range = text
            .contains('/')
            .then(|| Self::of_route(text))
            .flatten()
            .ok_or_else(|| bad("expected something like 10.231.16.0/20"))?;
        if !(8..=28).contains(&range.prefix) {
            return Err(bad("its prefix is from 8 to 28"));
        }
        if range.to_string() != text {
            return Err(bad("it does not begin where its prefix says"));
        }
        let first = Ipv4Addr::from(range.first);
        if first.is_private() || (first.octets()[0] == 100 && first.octets()[1] & 0xc0 == 64) {
            Ok(range)
        } else {
            Err(bad(
                "it lies in none of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 and 100.64.0.0/10",
            ))
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

impl TryFrom<String> for Range {
    type Error = BadRange;

    fn try_from(text: String) -> Result<Self, BadRange> {
        text.parse()
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_private_and_begins_where_it_says() {
        assert_eq!(range("10.231.16.0/20").to_string(), "10.231.16.0/20");
        assert_eq!(
            range("10.231.16.0/20").gateway(),
            Ipv4Addr::new(10, 231, 16, 1)
        );
        for text in [
            "10.231.16.0",
            "10.231.16.1/20",
            "8.8.8.0/24",
            "10.0.0.0/30",
            "10.0.0.0/x",
            "/",
        ] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_range_chosen_overlaps_with_nothing_and_stays_the_same() {
        let first = choose("a seed", &[]).unwrap();
        assert_eq!(choose("a seed", &[]), Some(first));
        let present = [first, Range::of_route("192.168.1.0/24").unwrap()];
        let second = choose("a seed", &present).unwrap();
        assert!(!second.overlaps(first));
        assert_eq!(
            choose("a seed", &[Range::of_route("10.0.0.0/8").unwrap()]),
            None
        );
        let single = Range::of_route(&first.gateway().to_string()).unwrap();
        assert!(single.overlaps(first) && !single.overlaps(second));
    }

    #[test]
    fn every_address_is_given_once_and_never_the_gateways() {
        let range = range("10.231.16.0/28");
        let mut taken = Vec::new();
        while let Some(address) = range.free_address(&taken) {
            assert!(range.contains(address) && address != range.gateway());
            taken.push(Address::Tcp((address, 8080).into()));
        }
        assert_eq!(taken.len(), 10);
        for address in range.job_addresses() {
            assert!(range.contains(address));
            taken.push(Address::Tcp((address, 8080).into()));
        }
        let all: HashSet<_> = taken.iter().collect();
        assert_eq!((taken.len(), all.len()), (13, 13));
        assert!(!range.contains(range.gateway()));
        assert!(!range.contains(Ipv4Addr::new(10, 231, 16, 15)));
    }
}
