//! Who is calling, and what they may do.
//!
//! The kernel says who connected (`SO_PEERCRED`); it is asked before the first byte is read. A
//! caller has exactly one [`Role`], and each method of a service states which roles may call it.
//! On an installed system operators are root and the members of a group; under `temps up` the
//! user who started it, and nobody else; root too is asked to become that user first.

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use temps_ipc::{Code, Fault};

/// Members of this group operate an installed system.
pub const OPERATOR_GROUP: &str = "temps-admin";

/// The user temps-proxy runs as on an installed system.
pub const PROXY_USER: &str = "temps-proxy";

/// The process at the other end of a Unix socket, as it was when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, for messages only: a pid may be used again.
    pub pid: i32,
}

impl Peer {
    /// Asks the kernel who connected `stream`.
    pub fn of(stream: &impl AsFd) -> io::Result<Self> {
        let found = getsockopt(&stream.as_fd(), sockopt::PeerCredentials)?;
        Ok(Self {
            uid: found.uid(),
            gid: found.gid(),
            pid: found.pid(),
        })
    }

    /// This process itself.
    pub fn own() -> Self {
        Self {
            uid: Uid::effective().as_raw(),
            gid: Gid::effective().as_raw(),
            pid: std::process::id().cast_signed(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} (pid {})", self.uid, self.pid)
    }
}

/// What a caller is to this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// May do what an administrator may: root (as which temps-deployd runs), the operators' group,
    /// the owner of `temps up`.
    Operator,
    /// temps-proxy on an installed system. Under `temps up` it is an operator like everything else
    /// of that user, so a method for the proxy allows operators too.
    Proxy,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Operator => "an operator",
            Role::Proxy => "temps-proxy",
        })
    }
}

/// Who has which role. Everybody else is refused.
#[derive(Debug, Clone)]
pub struct Policy {
    owner: Owner,
    roles: BTreeMap<u32, Role>,
}

#[derive(Debug, Clone)]
enum Owner {
    /// `temps up`: this user only.
    User(u32),
    /// An installed system: root and this group.
    Group(&'static str),
}

impl Policy {
    /// The policy of an installed system: root and group `temps-admin` operate; the user
    /// `temps-proxy`, if there is one, is the proxy.
    pub fn system() -> Self {
        let policy = Self::of(Owner::Group(OPERATOR_GROUP));
        match User::from_name(PROXY_USER) {
            Ok(Some(user)) => policy.with_role(user.uid.as_raw(), Role::Proxy),
            Ok(None) => policy,
            Err(error) => {
                tracing::warn!(%error, "the user {PROXY_USER} cannot be looked up");
                policy
            }
        }
    }

    /// The policy of `temps up`: `uid` operates, everybody else is refused.
    pub fn only_uid(uid: u32) -> Self {
        Self::of(Owner::User(uid))
    }

    fn of(owner: Owner) -> Self {
        Self {
            owner,
            roles: BTreeMap::new(),
        }
    }

    /// Gives the user `uid` a role of its own. It is then nothing else.
    #[must_use]
    pub fn with_role(mut self, uid: u32, role: Role) -> Self {
        self.roles.insert(uid, role);
        self
    }

    /// The role of `peer`, or a fault that says whom to ask.
    ///
    /// May ask the name service and block: not to be called on an async thread.
    pub fn role(&self, peer: &Peer) -> Result<Role, Fault> {
        self.role_with(peer, is_member)
    }

    fn role_with(
        &self,
        peer: &Peer,
        is_member: impl Fn(&Peer, &str) -> nix::Result<bool>,
    ) -> Result<Role, Fault> {
        if let Some(role) = self.roles.get(&peer.uid) {
            return Ok(*role);
        }
        let denied = Fault::new(Code::Denied, format!("uid {} may not call this", peer.uid));
        match self.owner {
            Owner::User(uid) if uid == peer.uid => Ok(Role::Operator),
            Owner::User(uid) => Err(denied.hint(format!(
                "this instance belongs to uid {uid}; run the command as that user"
            ))),
            Owner::Group(_) if peer.uid == 0 => Ok(Role::Operator),
            Owner::Group(group) => match is_member(peer, group) {
                Ok(true) => Ok(Role::Operator),
                Ok(false) => Err(denied.hint(format!(
                    "ask to be added to group {group}, or run the command as root"
                ))),
                Err(error) => Err(Fault::new(
                    Code::Denied,
                    format!(
                        "the groups of uid {} cannot be looked up: {error}",
                        peer.uid
                    ),
                )
                .hint("run the command as root, and check nsswitch.conf")),
            },
        }
    }
}

/// Whether `peer` belongs to `group`, by its effective group or by the user database.
fn is_member(peer: &Peer, group: &str) -> nix::Result<bool> {
    let Some(group) = Group::from_name(group)? else {
        return Ok(false);
    };
    if group.gid.as_raw() == peer.gid {
        return Ok(true);
    }
    let Some(user) = User::from_uid(Uid::from_raw(peer.uid))? else {
        return Ok(false);
    };
    let name = CString::new(user.name).map_err(|_| nix::Error::EINVAL)?;
    Ok(getgrouplist(&name, user.gid)?.contains(&group.gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn peer(uid: u32) -> Peer {
        Peer {
            uid,
            gid: uid,
            pid: 1,
        }
    }

    fn member_is(uid: u32) -> impl Fn(&Peer, &str) -> nix::Result<bool> {
        move |peer, group| Ok(peer.uid == uid && group == OPERATOR_GROUP)
    }

    #[test]
    fn the_kernel_names_the_peer() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(Peer::of(&ours).unwrap(), Peer::own());
    }

    #[test]
    fn root_and_the_group_operate_an_installed_system() {
        let policy = Policy::of(Owner::Group(OPERATOR_GROUP)).with_role(990, Role::Proxy);
        for (uid, role) in [
            (0, Role::Operator),
            (1000, Role::Operator),
            (990, Role::Proxy),
        ] {
            assert_eq!(policy.role_with(&peer(uid), member_is(1000)).unwrap(), role);
        }
        let fault = policy.role_with(&peer(1001), member_is(1000)).unwrap_err();
        assert_eq!(fault.code, Code::Denied);
        assert_eq!(fault.what, "uid 1001 may not call this");
        assert!(fault.hint.contains("group temps-admin"), "{}", fault.hint);
    }

    #[test]
    fn an_own_role_takes_the_operators_rights_away() {
        let policy = Policy::of(Owner::Group(OPERATOR_GROUP)).with_role(990, Role::Proxy);
        assert_eq!(
            policy.role_with(&peer(990), member_is(990)).unwrap(),
            Role::Proxy
        );
    }

    #[test]
    fn only_its_user_operates_temps_up() {
        let policy = Policy::only_uid(1000);
        assert_eq!(policy.role(&peer(1000)).unwrap(), Role::Operator);
        for uid in [0, 1001, u32::MAX] {
            let fault = policy.role(&peer(uid)).unwrap_err();
            assert_eq!(fault.code, Code::Denied);
            assert!(fault.hint.contains("belongs to uid 1000"), "{}", fault.hint);
        }
    }

    #[test]
    fn a_failing_user_database_denies() {
        let policy = Policy::of(Owner::Group(OPERATOR_GROUP));
        let fault = policy
            .role_with(&peer(5), |_, _| Err(nix::Error::EIO))
            .unwrap_err();
        assert_eq!(fault.code, Code::Denied);
        assert!(
            policy
                .role_with(&peer(0), |_, _| Err(nix::Error::EIO))
                .is_ok()
        );
    }

    #[test]
    fn membership_is_found_in_the_real_user_database() {
        let own = Peer::own();
        let group = Group::from_gid(Gid::effective()).unwrap().unwrap();
        assert!(is_member(&own, &group.name).unwrap());
        assert!(!is_member(&own, "no-such-group-as-this").unwrap());
        assert!(!is_member(&peer(4_000_000_000), "root").unwrap());
    }
}
