//! The network of a job of a build: a namespace like that of an instance, so that what a stranger's source
//! makes of it reaches the outside and nothing of this host, neither its loopback nor its abstract sockets.
//!
//! Nobody records it: it is made for one run of one unit, gets one of the addresses that no instance has
//! ([`Range::job_addresses`](super::Range)), and goes with its unit, which nobody else needs.

use super::{name, resolver};
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use temps_ipc::id::InstanceId;

/// Which job's it is (`job-…`); never the same twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobId(InstanceId);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job-{}", self.0)
    }
}

impl FromStr for JobId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let id = text.strip_prefix("job-").ok_or(())?;
        id.parse().map(Self).map_err(drop)
    }
}

/// A network for one run of a unit, by what the unit is told.
#[derive(Debug)]
pub struct JobNetwork {
    /// The unit that makes it, and takes it away when nobody needs it.
    pub unit: String,
    /// For `NetworkNamespacePath=`.
    pub namespace: String,
    /// To be seen as `/etc/resolv.conf`.
    pub resolver: PathBuf,
}

/// Where networks of jobs come from.
#[derive(Debug, Clone)]
pub struct JobNetworks {
    /// The state directory.
    pub state: PathBuf,
    /// Servers that are asked for names, instead of the host's.
    pub resolvers: Vec<IpAddr>,
}

impl JobNetworks {
    /// A network that is made when its unit is started.
    ///
    /// # Errors
    /// When the disk does not take the file.
    pub fn fresh(&self) -> io::Result<JobNetwork> {
        let id = JobId(InstanceId::fresh());
        Ok(JobNetwork {
            unit: name::namespace_unit(&id),
            namespace: format!("/run/netns/{}", name::namespace(&id)),
            resolver: self.resolver()?,
        })
    }

    /// The file that says whom to ask for names, as it is now. Jobs that run keep what they began with.
    fn resolver(&self) -> io::Result<PathBuf> {
        let path = self.state.join("jobs.resolv.conf");
        let text = resolver::resolver(&self.resolvers);
        if fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
            return Ok(path);
        }
        replace(&path, &text)?;
        Ok(path)
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    // Whatever the mask of our files is: it is a stranger that reads it.
    fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_network_is_used_once_and_known_by_its_name() {
        let state = tempfile::tempdir().unwrap();
        let networks = JobNetworks {
            state: state.path().to_owned(),
            resolvers: vec!["9.9.9.9".parse().unwrap()],
        };
        let (one, other) = (networks.fresh().unwrap(), networks.fresh().unwrap());
        assert_ne!(one.namespace, other.namespace);
        let id = one.unit.strip_prefix("temps-netns@").unwrap();
        let id: JobId = id.strip_suffix(".service").unwrap().parse().unwrap();
        assert!(one.namespace.ends_with(&name::namespace(&id)));
        assert!(InstanceId::fresh().to_string().parse::<JobId>().is_err());
        let text = fs::read_to_string(&one.resolver).unwrap();
        assert!(text.ends_with("nameserver 9.9.9.9\n"), "{text}");
        let mode = fs::metadata(&one.resolver).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }
}
