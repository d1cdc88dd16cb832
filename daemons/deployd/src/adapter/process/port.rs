//! Chooses the TCP port of a new instance.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use temps_ipc::types::Address;

/// Below the range from which the kernel takes the ports of outgoing connections (32768 and up), so
/// that none of those can take the port between our choice and the app's `bind`.
const FIRST: u16 = 21_000;
const COUNT: u16 = 9_000;

/// A port of 127.0.0.1 on which nothing listens and which is not among `taken`.
pub(super) fn choose(taken: &[Address]) -> Option<SocketAddr> {
    let mut noise = [0; 2];
    // Without randomness we start at the first port, which is as good but for clashes with others
    // who choose at the same time.
    let _ = getrandom::fill(&mut noise);
    let start = u16::from_ne_bytes(noise) % COUNT;
    (0..COUNT)
        .map(|step| FIRST + (start + step) % COUNT)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .filter(|address| !taken.contains(&Address::Tcp(*address)))
        .find(|address| TcpListener::bind(address).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_or_taken_is_not_chosen() {
        let first = choose(&[]).unwrap();
        let held = TcpListener::bind(first).unwrap();
        let all_but_two: Vec<Address> = (FIRST..FIRST + COUNT)
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .filter(|address| *address != first && address.port() != FIRST)
            .map(Address::Tcp)
            .collect();
        let chosen = choose(&all_but_two);
        assert!(
            chosen.is_none_or(|address| address.port() == FIRST),
            "{chosen:?}"
        );
        drop(held);
    }

    #[test]
    fn ports_stay_below_the_ephemeral_range() {
        const { assert!(FIRST + COUNT <= 30_000) };
        assert!((FIRST..FIRST + COUNT).contains(&choose(&[]).unwrap().port()));
    }
}
