//! The firewall rules of instances and of containers, as nft(8) reads them.
//!
//! | from | to | |
//! |---|---|---|
//! | the host | an instance | allowed: the proxy |
//! | an instance | the host, ports of the proxy | allowed: `TEMPS_URL`, and apps by their public names |
//! | an instance | the host, where it is itself the server for names | allowed |
//! | an instance | the host, anything else | rejected |
//! | an instance | an instance, other bridges and links of this host (containers, machines) | rejected |
//! | an instance | the server for names, port 53 | allowed, wherever it is |
//! | an instance | metadata services of clouds ([`NOWHERE`]), multicast, IPv6 | rejected |
//! | an instance | elsewhere | allowed, with the host's address |
//! | elsewhere | an instance | dropped, unless it is an answer |
//! | a container of ours ([`BRIDGES`]) | the host, ports of the proxy, and port 53 | allowed: the engine may serve names there |
//! | a container | the host, anything else but answers | rejected |
//! | a container | the servers for names, port 53 | allowed, wherever they are |
//! | a container | metadata services of clouds ([`NOWHERE`], [`NOWHERE_V6`]), multicast | rejected |
//! | a container | other containers, elsewhere | as the engine has it |
//!
//! What one may not do is rejected, not dropped, so that it fails at once instead of hanging.
//! The rules name no instance: they hold from before the first one is there.

use super::super::name::{BRIDGES, INTERFACES};
use super::super::range::Range;
use std::net::Ipv4Addr;

/// The rules' own table.
pub(super) const TABLE: &str = "inet temps";

/// Where no instance gets to: the addresses of links, of which clouds have 169.254.169.254 and others for
/// what a machine may know of itself, credentials included; the same of Alibaba and of Azure, which have
/// theirs elsewhere; and groups of machines.
pub(super) const NOWHERE: &str = "169.254.0.0/16, 100.100.100.200, 168.63.129.16, 224.0.0.0/4";

/// The same by IPv6, which containers have if the engine gives it to them: of Amazon and of Google; of
/// others it is the address of a link.
pub(super) const NOWHERE_V6: &str = "fd00:ec2::254, fd20:ce::254, fe80::/10, ff00::/8";

/// The servers for names.
#[derive(Debug, Default)]
pub(super) struct Resolvers {
    /// Those that instances ask.
    pub(super) apps: Vec<Ipv4Addr>,
    /// Those of the host, which the engine asks for its containers.
    pub(super) host: Vec<Ipv4Addr>,
}

/// Replaces the table at once: there is no moment without rules. `uplinks` are the interfaces of the
/// default routes, which may themselves be bridges.
pub(super) fn table(
    range: Range,
    ports: &[u16],
    uplinks: &[String],
    servers: &Resolvers,
) -> String {
    let resolvers = names(&servers.apps);
    let mut all = [&servers.apps[..], &servers.host].concat();
    all.sort_unstable();
    all.dedup();
    let of_containers = names(&all);
    let ports = list(ports.iter().map(u16::to_string));
    let uplinks = if uplinks.is_empty() {
        String::new()
    } else {
        let names = list(uplinks.iter().map(|name| format!("\"{name}\"")));
        format!("\n        oifname {names} accept")
    };
    format!(
        r#"table {TABLE}
delete table {TABLE}
table {TABLE} {{
    chain input {{
        type filter hook input priority filter - 10; policy accept;
        iifname "{BRIDGES}" goto containers_input
        iifname != "{INTERFACES}" accept
        meta nfproto ipv6 drop
        ip saddr != {range} drop
        ct state established,related accept
        fib daddr type local tcp dport {ports} accept{resolvers}
        meta l4proto tcp reject with tcp reset
        reject with icmp admin-prohibited
    }}
    chain forward {{
        type filter hook forward priority filter - 10; policy accept;
        iifname "{BRIDGES}" jump containers
        iifname != "{INTERFACES}" jump inward
        iifname "{INTERFACES}" jump outward
    }}
    chain inward {{
        oifname != "{INTERFACES}" return
        ct state established,related accept
        drop
    }}
    chain outward {{
        meta nfproto ipv6 drop
        ip saddr != {range} drop
        ct state established,related accept
        oifname "{INTERFACES}" jump refused{resolvers}
        ip daddr {range} jump refused
        ip daddr {{ {NOWHERE} }} jump refused{uplinks}
        meta oifkind {{ "bridge", "veth" }} jump refused
        accept
    }}
    chain containers {{{of_containers}
        ip daddr {{ {NOWHERE} }} jump refused
        ip6 daddr {{ {NOWHERE_V6} }} jump refused
    }}
    chain containers_input {{
        icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
        jump containers
        ct state established,related accept
        fib daddr type local tcp dport {ports} accept
        fib daddr type local meta l4proto {{ tcp, udp }} th dport 53 accept
        jump refused
    }}
    chain refused {{
        meta l4proto tcp reject with tcp reset
        reject with icmpx admin-prohibited
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {range} oifname != "{INTERFACES}" masquerade
    }}
}}
"#
    )
}

/// Chains of other firewalls that end in a refusal for what is forwarded: Docker's place for rules of
/// others, and the chain itself where the rules are those of iptables-nft without Docker.
pub(super) const FOREIGN: [&str; 2] = ["DOCKER-USER", "FORWARD"];

/// Rules for such a chain of `ip filter`, by the arguments of `nft insert rule`: what our own table
/// has let through goes through there too.
pub(super) fn foreign() -> [String; 2] {
    [
        format!("iifname \"{INTERFACES}\" counter accept"),
        format!("oifname \"{INTERFACES}\" ct state established,related counter accept"),
    ]
}

/// The same, by the arguments of `iptables-legacy -I FORWARD`.
pub(super) fn legacy() -> [String; 2] {
    // It has another sign for a part of a name.
    let interfaces = INTERFACES.replace('*', "+");
    [
        format!("-i {interfaces} -j ACCEPT"),
        format!("-o {interfaces} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
    ]
}

/// The handles of our rules in the listing of such a chain (`nft -a list chain ip filter …`).
pub(super) fn handles(listing: &str) -> Vec<u64> {
    let ours = format!("ifname \"{INTERFACES}\"");
    listing
        .lines()
        .filter(|line| line.contains(&ours))
        .filter_map(|line| line.rsplit_once("# handle ")?.1.trim().parse().ok())
        .collect()
}

/// The rule that lets through questions for names, on a line of its own; nothing if nobody is asked.
pub(super) fn names(resolvers: &[Ipv4Addr]) -> String {
    if resolvers.is_empty() {
        return String::new();
    }
    let servers = list(resolvers.iter().map(Ipv4Addr::to_string));
    format!("\n        ip daddr {servers} meta l4proto {{ tcp, udp }} th dport 53 accept")
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("{{ {} }}", items.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_replaced_at_once_and_names_the_range() {
        let range = "10.231.16.0/20".parse().unwrap();
        let text = table(range, &[80, 443], &["br0".to_owned()], &resolvers());
        // Adding it first makes the deletion succeed where it is not there yet.
        assert!(text.starts_with("table inet temps\ndelete table inet temps\n"));
        assert!(text.contains("tcp dport { 80, 443 } accept"));
        assert!(text.contains("oifname { \"br0\" } accept"));
        assert!(text.contains("ip daddr 10.231.16.0/20 jump refused"));
        assert!(text.contains("ip daddr { 169.254.0.0/16, 100.100.100.200, 168.63.129.16,"));
        let names = "ip daddr { 192.0.2.53 } meta l4proto { tcp, udp } th dport 53 accept";
        let (to_the_host, to_others) = text.split_once("chain outward").unwrap();
        assert!(to_the_host.contains(names));
        // Clouds have their server for names beside that for credentials, or at the same address.
        assert!(to_others.find(names) < to_others.find("169.254.0.0/16"));
        assert!(!table(range, &[80], &[], &Resolvers::default()).contains("{  }"));
    }

    #[test]
    fn containers_reach_names_and_the_proxy_and_no_metadata_whichever_way_it_goes() {
        let range = "10.231.16.0/20".parse().unwrap();
        let text = table(range, &[80, 443], &[], &resolvers());
        let chain = |name: &str| {
            let (_, rest) = text.split_once(&format!("chain {name} {{")).expect(name);
            let (rules, _) = rest.split_once("\n    }").unwrap();
            rules.lines().map(str::trim).collect::<Vec<_>>()
        };
        let at = |rules: &[&str], rule: &str| {
            let found = rules.iter().position(|found| *found == rule);
            found.unwrap_or_else(|| panic!("{rule}: {rules:?}"))
        };
        let both = chain("containers");
        let names =
            "ip daddr { 169.254.169.254, 192.0.2.53 } meta l4proto { tcp, udp } th dport 53 accept";
        assert!(at(&both, names) < at(&both, &format!("ip daddr {{ {NOWHERE} }} jump refused")));
        at(&both, &format!("ip6 daddr {{ {NOWHERE_V6} }} jump refused"));
        let input = chain("containers_input");
        let proxy = "fib daddr type local tcp dport { 80, 443 } accept";
        // Somebody else may serve that address on this very machine.
        assert!(at(&input, "jump containers") < at(&input, proxy));
        assert_eq!(input.last(), Some(&"jump refused"));
        for (hook, rule) in [
            ("input", "iifname \"tpd-*\" goto containers_input"),
            ("forward", "iifname \"tpd-*\" jump containers"),
        ] {
            assert_eq!(at(&chain(hook), rule), 2, "{hook}");
        }
    }

    fn resolvers() -> Resolvers {
        Resolvers {
            apps: vec![Ipv4Addr::new(192, 0, 2, 53)],
            host: vec![
                Ipv4Addr::new(192, 0, 2, 53),
                Ipv4Addr::new(169, 254, 169, 254),
            ],
        }
    }

    #[test]
    fn iptables_legacy_has_its_own_sign_for_all_our_links() {
        let [out, back] = legacy();
        assert_eq!(out, "-i tps+ -j ACCEPT");
        assert!(back.starts_with("-o tps+ ") && back.contains("ESTABLISHED"));
    }

    #[test]
    fn only_our_own_rules_are_found_in_others_chains() {
        let listing = r#"table ip filter {
	chain DOCKER-USER { # handle 12
		iifname "tps*" counter packets 0 bytes 0 accept # handle 31
		oifname "tps*" ct state established,related counter packets 0 bytes 0 accept # handle 32
		iifname "docker0" counter packets 0 bytes 0 return # handle 13
	}
}"#;
        assert_eq!(handles(listing), [31, 32]);
    }
}
