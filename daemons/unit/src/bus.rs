//! A daemon's name on the system bus, for as long as there is a bus. Nothing waits for it: a daemon
//! serves and is ready without one.
//!
//! ```text
//!            bus found: objects registered, then the name requested
//! away ---------------------------------------------------------------> owned
//!  ^ ^     no bus, name taken or refused                                 | |
//!  | +--------------------- pause, 1 s doubled up to 60 s --------------+ | leave()
//!  +--------------- the bus is gone --------------------------------------+-----> name released,
//!                                                            what was called is answered, closed
//! ```
//!
//! - Objects come before the name: a call that the bus activated us for arrives with the name, and
//!   would find nothing.
//! - The name goes before the connection: what the bus handed us until then is answered, what comes
//!   later starts the next process.
//! - Whatever passes on the bus counts as activity for [`Idle`].

pub mod authority;
pub mod failure;
pub mod log_control;

use crate::idle::Idle;
use crate::task::Supervisor;
use async_trait::async_trait;
use log_control::LogControl;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use zbus::fdo::{Properties, RequestNameFlags};
use zbus::object_server::Interface;
use zbus::{Connection, ObjectServer, Variant};

/// Pause before the bus is looked for again; doubled after every failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause: an administrator who starts the bus sees the daemon there within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the bus may take to answer before it counts as absent.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long each step of leaving may take, of which there are three: a part of what the unit's
/// `TimeoutStopSec=` allows.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long nothing passes until every message that was read has been taken up.
const SETTLED: Duration = Duration::from_millis(100);

/// Why a daemon is not on the bus now.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// It does not answer.
    #[error("the bus does not answer")]
    Silent,
    /// There is none, or it refused us: our name, for example.
    #[error(transparent)]
    Refused(#[from] zbus::Error),
}

/// Where the bus is.
#[derive(Debug, Clone, Default)]
pub enum Place {
    /// The system bus: `DBUS_SYSTEM_BUS_ADDRESS`, or where it usually is.
    #[default]
    System,
    /// At this D-Bus address: another bus, for tests.
    At(String),
}

/// What a daemon shows on the bus.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// The name it owns, such as `sh.temps.Deploy1`.
    fn name(&self) -> &'static str;

    /// Registers its objects, before the name is requested.
    async fn register(&self, connection: &Connection) -> zbus::Result<()>;

    /// Keeps the objects true and emits signals while the name is owned. Ends only by an error,
    /// after which everything is registered anew on a new connection; may be dropped at any point.
    async fn follow(&self, connection: &Connection) -> zbus::Error;
}

/// A daemon's presence on the bus.
#[derive(Debug)]
pub struct Bus {
    leave: CancellationToken,
    task: JoinHandle<Option<()>>,
}

impl Bus {
    /// Looks for the bus in a task, now and again until [`Bus::leave`].
    pub fn start(
        service: Arc<dyn Service>,
        place: Place,
        idle: Idle,
        supervisor: &Supervisor,
    ) -> Self {
        let leave = CancellationToken::new();
        let task = supervisor.spawn("bus", keep(service, place, idle, leave.clone()));
        Self { leave, task }
    }

    /// Gives the name back and answers what was called before. To be called after `STOPPING=1`: the
    /// service manager then starts the daemon again for the next call, instead of finding it there.
    pub async fn leave(self) {
        self.leave.cancel();
        // Longer only if the bus hangs while the name is requested. A panic was logged by the supervisor.
        let _ = timeout(FAREWELL * 4, self.task).await;
    }
}

async fn keep(service: Arc<dyn Service>, place: Place, idle: Idle, leave: CancellationToken) {
    let name = service.name();
    let mut pause = FIRST_PAUSE;
    let mut said = false;
    // Whoever was started for a call by the bus has to be there for it first.
    let mut first_look = Some(idle.busy());
    loop {
        // Not cut while the name is being requested: it would be ours, and nobody would answer.
        let Some(registered) = leave
            .run_until_cancelled(registered(&*service, &place))
            .await
        else {
            return;
        };
        let owned = match registered {
            Ok(connection) => claim(&connection, name).await.map(|()| connection),
            Err(error) => Err(error),
        };
        drop(first_look.take());
        match owned {
            Ok(connection) => {
                info!(bus_name = name, "{name} is on the bus");
                (pause, said) = (FIRST_PAUSE, false);
                if serve(&*service, connection, &idle, &leave).await {
                    return;
                }
            }
            Err(error) if said => debug!(bus_name = name, %error, "still not on the bus"),
            Err(error) => {
                info!(bus_name = name, %error, "{name} is not on the bus, which is tried again; everything else works without it");
                said = true;
            }
        }
        if leave.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A connection on which everything answers that will be called by the name.
async fn registered(service: &dyn Service, place: &Place) -> Result<Connection, BusError> {
    let builder = match place {
        Place::System => zbus::connection::Builder::system(),
        Place::At(address) => zbus::connection::Builder::address(address.as_str()),
    };
    let work = async {
        // With an object from the start: only then `build` waits until calls are listened to, and the
        // first of them come together with the name.
        let builder = builder.serve_at(log_control::PATH, LogControl);
        // Every call of ours has an end, also those that zbus makes by itself.
        let connection = builder.method_timeout(PATIENCE).build().await?;
        service.register(&connection).await?;
        Ok(connection)
    };
    timeout(PATIENCE, work)
        .await
        .unwrap_or(Err(BusError::Silent))
}

async fn claim(connection: &Connection, name: &'static str) -> Result<(), BusError> {
    // Waiting in a queue would look like owning it.
    let request = connection.request_name_with_flags(name, RequestNameFlags::DO_NOT_QUEUE);
    timeout(PATIENCE, request)
        .await
        .map_err(|_| BusError::Silent)??;
    Ok(())
}

/// Serves until the bus is gone (`false`) or we are to leave (`true`).
async fn serve(
    service: &dyn Service,
    connection: Connection,
    idle: &Idle,
    leave: &CancellationToken,
) -> bool {
    let name = service.name();
    let left = tokio::select! {
        () = leave.cancelled() => true,
        () = connection.closed() => {
            warn!(bus_name = name, "the bus is gone, which is looked for again");
            return false;
        }
        error = service.follow(&connection) => {
            warn!(bus_name = name, %error, "the objects on the bus cannot be kept true; they are made anew");
            false
        }
        () = activity(&connection, idle) => false,
    };
    depart(connection, name).await;
    left
}

/// Never ends.
async fn activity(connection: &Connection, idle: &Idle) {
    loop {
        connection.monitor_activity().await;
        idle.touch();
    }
}

async fn depart(connection: Connection, name: &'static str) {
    match timeout(FAREWELL, connection.release_name(name)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => debug!(%error, "the name could not be given back"),
        Err(_) => debug!("the bus does not answer at the end"),
    }
    // The answer came after every call that was routed to us; the last of them may still be on its
    // way through this process, and is lost if the connection goes first.
    let settled = async {
        while timeout(SETTLED, connection.monitor_activity())
            .await
            .is_ok()
        {}
    };
    let _ = timeout(FAREWELL, settled).await;
    if timeout(FAREWELL, connection.graceful_shutdown())
        .await
        .is_err()
    {
        warn!(bus_name = name, "some calls by the bus were not answered");
    }
}

/// Changes an object and tells what changed of it in one signal. Properties named in `quiet` are not
/// told: those whose introspection says so.
pub async fn update<I: Interface>(
    connection: &Connection,
    path: &str,
    quiet: &[&str],
    change: impl FnOnce(&I),
) -> zbus::Result<()> {
    let server: &ObjectServer = connection.object_server();
    let object = server.interface::<_, I>(path).await?;
    let emitter = object.signal_emitter();
    let (before, after) = {
        // Shared: a method of the object may be the reason for the change, and waits for it.
        let object = object.get().await;
        let before = object.get_all(server, connection, None, emitter).await?;
        change(&object);
        let after = object.get_all(server, connection, None, emitter).await?;
        (before, after)
    };
    let changed: HashMap<&str, Variant<'_>> = after
        .iter()
        .filter(|(name, value)| {
            !quiet.contains(&name.as_str()) && before.get(*name) != Some(*value)
        })
        .map(|(name, value)| Ok((name.as_str(), Variant::try_from(value)?)))
        .collect::<zbus::Result<_>>()?;
    if changed.is_empty() {
        return Ok(());
    }
    Properties::properties_changed(emitter, I::name(), changed, Cow::Borrowed(&[])).await
}

/// `name` as one element of an object path: everything but letters and digits becomes `_` and its
/// code in hexadecimal, as systemd does it.
pub fn path_element(name: &str) -> String {
    let mut element = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() {
            element.push(char::from(byte));
        } else {
            element.push_str(&format!("_{byte:02x}"));
        }
    }
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_are_never_one_path() {
        assert_eq!(path_element("shop"), "shop");
        assert_eq!(path_element("my-shop"), "my_2dshop");
        assert_eq!(path_element("my_2dshop"), "my_5f2dshop");
    }
}
