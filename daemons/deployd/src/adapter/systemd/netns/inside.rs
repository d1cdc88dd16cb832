//! The rules inside a namespace, for what leaves it: those of the host ([`super::rules`]) once more, so far
//! as they are known when the namespace is made. Whoever flushes the host's rules does not reach these, and
//! who runs in the namespace has no right to change them.

use super::super::range::Range;
use super::rules::{NOWHERE, TABLE, list, names};
use std::net::Ipv4Addr;

/// The table. `own` are the addresses of the host, beside the gateway; `ports` those of the proxy.
pub(super) fn table(
    range: Range,
    own: &[Ipv4Addr],
    ports: &[u16],
    resolvers: &[Ipv4Addr],
) -> String {
    let resolvers = names(resolvers);
    let ports = list(ports.iter().map(u16::to_string));
    let mut host = own.to_vec();
    host.push(range.gateway());
    host.sort_unstable();
    host.dedup();
    let host = list(host.iter().map(Ipv4Addr::to_string));
    format!(
        r#"table {TABLE} {{
    chain output {{
        type filter hook output priority filter; policy accept;
        oifname "lo" accept
        meta nfproto ipv6 drop
        ct state established,related accept{resolvers}
        ip daddr {host} tcp dport {ports} accept
        ip daddr {host} jump refused
        ip daddr {range} jump refused
        ip daddr {{ {NOWHERE} }} jump refused
    }}
    chain refused {{
        meta l4proto tcp reject with tcp reset
        reject with icmp admin-prohibited
    }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_reached_and_nothing_else_of_the_host() {
        let range: Range = "10.231.16.0/20".parse().unwrap();
        let own = [Ipv4Addr::new(192, 0, 2, 7), range.gateway()];
        let text = table(
            range,
            &own,
            &[80, 443],
            &[Ipv4Addr::new(169, 254, 169, 254)],
        );
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let at = |line: &str| lines.iter().position(|found| *found == line).expect(line);
        let host = "ip daddr { 10.231.16.1, 192.0.2.7 }";
        assert!(
            at(&format!("{host} tcp dport {{ 80, 443 }} accept"))
                < at(&format!("{host} jump refused"))
        );
        let names = "ip daddr { 169.254.169.254 } meta l4proto { tcp, udp } th dport 53 accept";
        assert!(at(names) < at(&format!("ip daddr {{ {NOWHERE} }} jump refused")));
        assert!(at(names) < at("ip daddr 10.231.16.0/20 jump refused"));
    }
}
