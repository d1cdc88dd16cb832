//! The connection to the manager: by the system bus, or, where there is no bus, by the manager's
//! private socket, as systemctl does it for root.
//!
//! ```text
//! (none) --a call--> connected --nobody used it for a while--> (none)
//!                       '--lost: the next call finds it closed--> (none)
//! ```

use super::{DESTINATION, MANAGER, ManagerError, ROOT, private};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, connection};

/// The system bus.
const BUS: &str = "/run/dbus/system_bus_socket";

/// The manager's own socket; its mode lets root alone in.
const PRIVATE: &str = "/run/systemd/private";

/// How long connecting may take, the bus's own start included.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept. Every word about any job of the machine comes over it.
const KEEP: Duration = Duration::from_secs(10);

/// Words about jobs that wait to be read: a boot ends a few hundred jobs within a second.
const QUEUE: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not 0");

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    used: Mutex<Instant>,
}

impl Link {
    pub(super) fn connection(&self) -> &Connection {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        &self.connection
    }

    pub(super) fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    fn unused_for(&self) -> Duration {
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }

    /// The ends of all jobs from now on.
    pub(super) async fn jobs_removed(&self) -> Result<MessageStream, ManagerError> {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .interface(MANAGER)
            .member("JobRemoved")
            .path(ROOT)
            .build()?;
        let stream = MessageStream::for_match_rule(rule, &self.connection, Some(QUEUE));
        match timeout(CONNECT_LIMIT, stream).await {
            Ok(stream) => Ok(stream?),
            Err(_) => Err(ManagerError::TooLong(CONNECT_LIMIT)),
        }
    }
}

/// At most one connection at a time.
#[derive(Debug, Default)]
pub(super) struct Connections(tokio::sync::Mutex<Option<Arc<Link>>>);

/// What closes a connection that nobody uses holds it only weakly.
type Slot = Weak<Link>;

impl Connections {
    /// The connection, made if there is none.
    pub(super) async fn link(&self) -> Result<Arc<Link>, ManagerError> {
        let mut slot = self.0.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| !link.is_closed()) {
            // Marks it as used.
            link.connection();
            return Ok(Arc::clone(link));
        }
        // Nothing is lost if the caller goes away meanwhile: the slot stays empty.
        let link = Arc::new(Link {
            connection: connect().await?,
            used: Mutex::new(Instant::now()),
        });
        tokio::spawn(close_when_unused(Arc::downgrade(&link)));
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }
}

/// Closes the connection when nobody has used it for a while. Ends with it.
async fn close_when_unused(slot: Slot) {
    while let Some(link) = slot.upgrade() {
        // A call under way, or a job that is waited for, holds the link too.
        let held = Arc::strong_count(&link) > 2;
        if !held && link.unused_for() >= KEEP {
            // The next caller finds it closed and makes another.
            let _ = link.connection.clone().close().await;
            return;
        }
        drop(link);
        sleep(KEEP).await;
    }
}

async fn connect() -> Result<Connection, ManagerError> {
    let bus = within(subscribed(by_bus())).await;
    let problem = match bus {
        Ok(connection) => return Ok(connection),
        Err(problem) => problem,
    };
    if !Path::new(PRIVATE).exists() {
        return Err(problem);
    }
    // Everybody's signals come over this one unasked.
    within(private::connect(Path::new(PRIVATE)))
        .await
        .map_err(|other| {
            ManagerError::Unreachable(format!(
                "by the system bus: {problem}; by {PRIVATE}: {other}"
            ))
        })
}

async fn within(
    connecting: impl Future<Output = zbus::Result<Connection>>,
) -> Result<Connection, ManagerError> {
    match timeout(CONNECT_LIMIT, connecting).await {
        Ok(connection) => Ok(connection?),
        Err(_) => Err(ManagerError::TooLong(CONNECT_LIMIT)),
    }
}

async fn by_bus() -> zbus::Result<Connection> {
    connection::Builder::address(format!("unix:path={BUS}").as_str())
        .build()
        .await
}

/// Over the bus the manager tells about jobs only those who asked for it.
async fn subscribed(
    connecting: impl Future<Output = zbus::Result<Connection>>,
) -> zbus::Result<Connection> {
    let connection = connecting.await?;
    connection
        .call_method(Some(DESTINATION), ROOT, Some(MANAGER), "Subscribe", &())
        .await?;
    Ok(connection)
}
