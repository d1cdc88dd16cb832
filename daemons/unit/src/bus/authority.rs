//! Who may do what by the bus: root everything, everybody else what polkit allows. Without polkit
//! root only.
//!
//! Asked for each call that changes something; what may be read on the bus is said by its policy
//! file. The caller is named to polkit by the name that the bus gave its connection, which cannot be
//! somebody else's a moment later as a process id can.

use nix::unistd::{Uid, User};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use temps_ipc::types::Actor;
use temps_ipc::{Code, Fault};
use tokio::time::timeout;
use zbus::message::{Flags, Header};
use zbus::{Connection, Variant};

/// How long polkit may take if it asks nobody.
const ANSWER: Duration = Duration::from_secs(10);

/// How long somebody may take to enter a password: what polkit's own agents allow, and a bit.
const PASSWORD: Duration = Duration::from_secs(150);

/// Calls of one user that may wait for polkit at a time. Each may wait for a person, who answers one
/// after the other; a user that lets all of theirs wait keeps nobody else from calling.
const AT_ONCE: usize = 8;

/// In polkit's `CheckAuthorization`: somebody may be asked.
const ALLOW_USER_INTERACTION: u32 = 1;

static WAITING: Waiting = Waiting(Mutex::new(BTreeMap::new()));

/// How many calls of each user wait for polkit. Who has none is not in it.
struct Waiting(Mutex<BTreeMap<u32, usize>>);

impl Waiting {
    /// One more of this user's, if it may; it counts until it is dropped.
    fn begin(&self, uid: u32) -> Option<Wait<'_>> {
        let mut counts = self.counts();
        let count = counts.entry(uid).or_default();
        if *count >= AT_ONCE {
            return None;
        }
        *count += 1;
        Some(Wait { of: self, uid })
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        // Nothing is left half done in it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits.
struct Wait<'a> {
    of: &'a Waiting,
    uid: u32,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        if let Entry::Occupied(mut count) = counts.entry(self.uid) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Who made a call, and was allowed to.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user, as the bus vouches for it.
    pub uid: u32,
    /// As it is recorded.
    pub actor: Actor,
}

/// Whether the caller may do what `action` names. `details` are shown to who is asked for a password;
/// only root and the action's owner may give any.
///
/// # Errors
/// `Denied`; `Busy` if too many of the user's wait already; `Unavailable` if the bus does not say who calls.
pub async fn authorise(
    connection: &Connection,
    header: &Header<'_>,
    action: &str,
    details: &[(&str, &str)],
) -> Result<Caller, Fault> {
    let uid = user(connection, header).await?;
    if uid != 0 {
        let _waits = WAITING.begin(uid).ok_or_else(|| {
            let what = format!("{AT_ONCE} calls of yours wait for an authorisation already");
            Fault::new(Code::Busy, what).hint("answer what polkit asks, or try again later")
        })?;
        ask(connection, header, uid, action, details).await?;
    }
    // The user database may be slow, and blocks.
    let name = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)))
        .await
        .ok()
        .and_then(Result::ok)
        .flatten()
        .map_or_else(|| format!("uid {uid}"), |user| user.name);
    Ok(Caller {
        uid,
        actor: Actor::new(&name, "dbus"),
    })
}

/// The uid of who called.
///
/// # Errors
/// `Unavailable`.
pub async fn user(connection: &Connection, header: &Header<'_>) -> Result<u32, Fault> {
    let unknown = |why: &dyn std::fmt::Display| {
        Fault::unavailable(format!("the bus does not say who calls: {why}"))
    };
    let sender = header
        .sender()
        .ok_or_else(|| unknown(&"the call has no sender"))?;
    let name = sender.as_str();
    let call = connection.call_method(
        Some("org.freedesktop.DBus"),
        "/org/freedesktop/DBus",
        Some("org.freedesktop.DBus"),
        "GetConnectionUnixUser",
        &name,
    );
    let reply = timeout(ANSWER, call)
        .await
        .map_err(|error| unknown(&error))?
        .map_err(|error| unknown(&error))?;
    reply
        .body()
        .deserialize::<u32>()
        .map_err(|error| unknown(&error))
}

async fn ask(
    connection: &Connection,
    header: &Header<'_>,
    uid: u32,
    action: &str,
    details: &[(&str, &str)],
) -> Result<(), Fault> {
    let denied = || Fault::new(Code::Denied, format!("uid {uid} may not do this"));
    let sender = header.sender().map_or("", |sender| sender.as_str());
    let may_ask = header
        .primary()
        .flags()
        .contains(Flags::ALLOW_INTERACTIVE_AUTH);
    let (flags, patience) = if may_ask {
        (ALLOW_USER_INTERACTION, PASSWORD)
    } else {
        (0, ANSWER)
    };
    let subject = (
        "system-bus-name",
        HashMap::from([("name", Variant::from(sender))]),
    );
    let details: HashMap<&str, &str> = details.iter().copied().collect();
    let question = (subject, action, details, flags, "");
    let call = connection.call_method(
        Some("org.freedesktop.PolicyKit1"),
        "/org/freedesktop/PolicyKit1/Authority",
        Some("org.freedesktop.PolicyKit1.Authority"),
        "CheckAuthorization",
        &question,
    );
    let absent = |why: &dyn std::fmt::Display| {
        tracing::debug!(action, %why, "polkit does not answer");
        denied().hint("polkit does not answer here, so only root may: call it as root")
    };
    let reply = timeout(patience, call)
        .await
        .map_err(|error| absent(&error))?
        .map_err(|error| absent(&error))?;
    let (is_authorised, is_challenge, _) = reply
        .body()
        .deserialize::<(bool, bool, HashMap<String, String>)>()
        .map_err(|error| absent(&error))?;
    match (is_authorised, is_challenge) {
        (true, _) => Ok(()),
        (false, true) => Err(denied().hint(format!(
            "polkit wants a password for {action}: allow it to ask (busctl --allow-interactive-authorization=yes), or call it as root"
        ))),
        (false, false) => Err(denied().hint(format!(
            "polkit refuses {action}: an administrator can allow it by a rule, or call it as root"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lets_all_their_calls_wait_keeps_nobody_else_from_calling() {
        let waiting = Waiting(Mutex::new(BTreeMap::new()));
        let mut first: Vec<_> = (0..AT_ONCE).map(|_| waiting.begin(1000)).collect();
        assert!(first.iter().all(Option::is_some));
        assert!(waiting.begin(1000).is_none());
        assert!(waiting.begin(1001).is_some());
        first.pop();
        assert!(waiting.begin(1000).is_some());
        drop(first);
        assert!(waiting.counts().is_empty());
    }
}
