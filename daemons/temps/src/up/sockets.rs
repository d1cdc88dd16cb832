//! Every socket of the platform, bound once and passed to the daemons that serve it.

use super::place::Place;
use crate::instance::{DEPLOYD, PROXY, UPLOAD};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use temps_ipc::{Code, Fault};

/// A socket with the name by which its daemon knows it (`LISTEN_FDNAMES`).
pub type Named = (&'static str, OwnedFd);

/// Every socket, not passed yet.
#[derive(Debug)]
pub struct Sockets {
    http: TcpListener,
    https: TcpListener,
    http_address: SocketAddr,
    https_address: SocketAddr,
    proxy: UnixListener,
    deployd: UnixListener,
    upload: UnixListener,
}

impl Sockets {
    /// Binds them all.
    ///
    /// # Errors
    /// When an address is taken or not ours, with the option that chooses another.
    pub fn bind(place: &Place, http: SocketAddr, https: SocketAddr) -> Result<Self, Fault> {
        let (http, http_address) = tcp(http, "--http")?;
        let (https, https_address) = tcp(https, "--https")?;
        let unix = |name: &str| unix(&place.runtime.join(name));
        Ok(Self {
            http,
            https,
            http_address,
            https_address,
            proxy: unix(PROXY)?,
            deployd: unix(DEPLOYD)?,
            upload: unix(UPLOAD)?,
        })
    }

    /// The port of HTTP.
    pub fn http_port(&self) -> u16 {
        self.http_address.port()
    }

    /// Where HTTP is served.
    pub fn http_url(&self) -> String {
        format!("http://{}", reachable(self.http_address))
    }

    /// Where HTTPS is served.
    pub fn https_url(&self) -> String {
        format!("https://{}", reachable(self.https_address))
    }

    /// The proxy's sockets.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn for_proxy(&self) -> Result<Vec<Named>, Fault> {
        Ok(vec![
            (temps_proxy::daemon::HTTP[0], copy(&self.http)?),
            (temps_proxy::daemon::HTTPS[0], copy(&self.https)?),
            ("control", copy(&self.proxy)?),
        ])
    }

    /// Deployd's sockets.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn for_deployd(&self) -> Result<Vec<Named>, Fault> {
        Ok(vec![
            (temps_deployd::daemon::CONTROL, copy(&self.deployd)?),
            (temps_deployd::daemon::UPLOAD, copy(&self.upload)?),
        ])
    }
}

/// An address to connect to for one to listen on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn copy(socket: &impl AsFd) -> Result<OwnedFd, Fault> {
    socket
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Fault::internal(format!("a socket cannot be duplicated: {error}")))
}

fn tcp(address: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), Fault> {
    let bound = TcpListener::bind(address).and_then(|socket| {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    });
    bound.map_err(|error| {
        let choose = format!("choose another with {flag} ADDR:PORT (port 0 chooses a free one)");
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                Fault::new(Code::Busy, format!("{address} is taken by another program"))
                    .hint(choose)
            }
            io::ErrorKind::PermissionDenied => {
                let what = format!(
                    "{address} cannot be used by this user: ports below 1024 are the system's"
                );
                Fault::new(Code::Denied, what).hint(choose)
            }
            io::ErrorKind::AddrNotAvailable => {
                Fault::invalid(format!("{} is no address of this machine", address.ip()))
                    .hint(choose)
            }
            _ => Fault::internal(format!("{address} cannot be used: {error}")).hint(choose),
        }
    })
}

/// A socket that only this user can connect to. Its directory is ours alone and locked, so one that
/// is there already is a leftover.
fn unix(path: &Path) -> Result<UnixListener, Fault> {
    let bind = || {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(path)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    bind().map_err(|error| {
        Fault::internal(format!(
            "the socket {} cannot be made: {error}",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_says_how_to_choose_another() {
        let (_held, address) = tcp("127.0.0.1:0".parse().unwrap(), "--http").unwrap();
        let fault = tcp(address, "--http").unwrap_err();
        assert_eq!(fault.code, Code::Busy);
        assert!(fault.hint.contains("--http"), "{}", fault.hint);
        let fault = tcp("192.0.2.1:0".parse().unwrap(), "--https").unwrap_err();
        assert!(fault.hint.contains("--https"), "{}", fault.hint);
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(unix(&path).unwrap());
        let _socket = unix(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_address_for_all_is_shown_as_one_that_can_be_reached() {
        let shown = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(shown("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(shown("[::]:80"), "[::1]:80");
        assert_eq!(shown("10.0.0.1:80"), "10.0.0.1:80");
    }
}
