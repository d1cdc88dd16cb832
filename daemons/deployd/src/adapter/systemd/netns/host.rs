//! What is there on this host: routes, and the names of the interfaces to the outside.

use super::super::range::Range;
use serde::Deserialize;
use std::net::Ipv4Addr;

/// A line of `ip -json -4 route show table all`.
#[derive(Debug, Deserialize)]
struct Route {
    #[serde(default)]
    dst: String,
    #[serde(default)]
    dev: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

/// The routes of this host.
#[derive(Debug)]
pub(super) struct Routes(Vec<Route>);

impl Routes {
    /// Reads what `ip` printed.
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text.trim()).map(Self)
    }

    /// What others use: ranges and addresses that ours must not overlap.
    pub(super) fn present(&self) -> Vec<Range> {
        self.0
            .iter()
            // Ours are links to instances, and the claim of the whole range.
            .filter(|route| {
                route.kind.as_deref() != Some("unreachable")
                    && !route
                        .dev
                        .as_deref()
                        .is_some_and(|dev| dev.starts_with("tps"))
            })
            .filter_map(|route| Range::of_route(&route.dst))
            .collect()
    }

    /// The addresses of this host, by which its own services are reached.
    pub(super) fn own(&self) -> Vec<Ipv4Addr> {
        let mut found: Vec<Ipv4Addr> = self
            .0
            .iter()
            .filter(|route| route.kind.as_deref() == Some("local"))
            .filter_map(|route| route.dst.parse().ok())
            .filter(|address: &Ipv4Addr| !address.is_loopback())
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// The interfaces of the default routes.
    pub(super) fn uplinks(&self) -> Vec<String> {
        let mut found: Vec<String> = self
            .0
            .iter()
            .filter(|route| route.dst == "default")
            .filter_map(|route| route.dev.clone())
            // They become part of a rule.
            .filter(|dev| !dev.contains(['"', '\\', '*']))
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_ranges_are_present_and_ours_are_not() {
        let text = r#"[
            {"dst":"default","gateway":"192.0.2.1","dev":"eth0","flags":[]},
            {"dst":"172.17.0.0/16","dev":"docker0","flags":["linkdown"]},
            {"dst":"10.231.16.5","dev":"tpse71005","flags":[]},
            {"type":"unreachable","dst":"10.231.16.0/20","flags":[]},
            {"type":"local","dst":"192.0.2.7","dev":"eth0","table":"local","flags":[]}
        ]"#;
        let routes = Routes::parse(text).unwrap();
        let present: Vec<String> = routes.present().iter().map(Range::to_string).collect();
        assert_eq!(present, ["172.17.0.0/16", "192.0.2.7/32"]);
        assert_eq!(routes.uplinks(), ["eth0"]);
        assert_eq!(routes.own(), [Ipv4Addr::new(192, 0, 2, 7)]);
        assert!(Routes::parse("[]").unwrap().uplinks().is_empty());
    }
}
