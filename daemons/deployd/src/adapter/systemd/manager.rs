//! A client of the service manager (`org.freedesktop.systemd1`, see org.freedesktop.systemd1(5)), as
//! far as instances and builds need it: start a transient unit, stop it, look at it.
//!
//! Who may: the manager lets uid 0 do everything, however few capabilities it has, whether or not
//! polkit runs (over the bus, capabilities of the sender are not known, so its uid counts; over the
//! private socket the file's mode counts). So deployd needs no capability for it.
//!
//! What holds:
//! - every call has a time limit; after it the caller knows nothing about what happened, and has to
//!   look;
//! - a job is over when the manager says so (`JobRemoved`, subscribed to before the job is made) or,
//!   if that was missed, when the job's object is gone;
//! - the connection is made when it is needed, made again when it was lost, and closed when nobody
//!   used it for a while ([`connection`]).

mod connection;
mod private;

use connection::{Connections, Link};
use futures::StreamExt;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use zbus::{DynamicType, Message, OwnedObjectPath, OwnedVariant, Variant};

const DESTINATION: &str = "org.freedesktop.systemd1";
const ROOT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long the manager may take to answer. It is one thread that also starts everything else.
const CALL_LIMIT: Duration = Duration::from_secs(15);

/// How long until a job of which nothing was heard is looked for: the word may have been lost while
/// the manager executed itself anew.
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// The properties of a transient unit, by their names on the bus.
pub type Properties = Vec<(&'static str, Variant<'static>)>;

/// Why the manager did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagerError {
    /// It cannot be reached, or does not answer.
    #[error("the service manager cannot be reached: {0}")]
    Unreachable(String),
    /// There is no such unit.
    #[error("there is no such unit")]
    NoSuchUnit,
    /// The unit exists already.
    #[error("the unit exists already")]
    Exists,
    /// It refuses.
    #[error("the service manager refuses: {text} ({name})")]
    Refused {
        /// The error's name on the bus.
        name: String,
        /// What it says.
        text: String,
    },
    /// It took longer than it may.
    #[error("the service manager did not do it within {} s", .0.as_secs())]
    TooLong(Duration),
}

impl From<zbus::Error> for ManagerError {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) => {
                let (name, text) = (name.to_string(), text.unwrap_or_default());
                match name.strip_prefix("org.freedesktop.systemd1.") {
                    Some("NoSuchUnit") => Self::NoSuchUnit,
                    Some("UnitExists") => Self::Exists,
                    _ => Self::Refused { name, text },
                }
            }
            zbus::Error::FDO(error) => match *error {
                zbus::fdo::Error::UnknownObject(_) => Self::NoSuchUnit,
                zbus::fdo::Error::AccessDenied(text) => Self::Refused {
                    name: "AccessDenied".to_owned(),
                    text,
                },
                zbus::fdo::Error::InvalidArgs(text) => Self::Refused {
                    name: "InvalidArgs".to_owned(),
                    text,
                },
                other => Self::Unreachable(other.to_string()),
            },
            other => Self::Unreachable(other.to_string()),
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobResult {
    /// As wished.
    Done,
    /// Otherwise: `failed`, `timeout`, `canceled`, `dependency`, `skipped`…
    Other(String),
    /// It is over, and how was missed: the unit's state tells.
    Unknown,
}

/// A unit in the manager's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUnit {
    /// Its name, such as `temps-app-x.service`.
    pub name: String,
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active: String,
    /// Whether something is to be done with it: it is being stopped, or will be.
    pub has_job: bool,
}

/// A row of `ListUnitsByPatterns`: name, description, load, active and sub state, following, path,
/// and the job's number, kind and path.
type Row = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// The service manager of this machine.
#[derive(Debug, Default)]
pub struct Manager {
    connections: Connections,
}

impl Manager {
    /// Nothing is connected before the first call.
    pub fn new() -> Self {
        Self::default()
    }

    /// The manager's version, such as `252.39-1~deb12u1`.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn version(&self) -> Result<String, ManagerError> {
        let link = self.connections.link().await?;
        let reply = call(&link, ROOT, PROPERTIES, "Get", &(MANAGER, "Version")).await?;
        let version: OwnedVariant = reply.body().deserialize()?;
        Ok(String::try_from(version)?)
    }

    /// Makes a transient unit and starts it; returns when its start job is over, within `limit`.
    ///
    /// # Errors
    /// `Exists` if there is a unit of that name, also one that has ended and is kept; `Refused` if a
    /// property is wrong.
    pub async fn start_transient(
        &self,
        unit: &str,
        properties: Properties,
        limit: Duration,
    ) -> Result<JobResult, ManagerError> {
        self.start_with(unit, properties, Vec::new(), limit).await
    }

    /// As [`start_transient`](Self::start_transient), with other units that the started one needs: they
    /// are made together, or none is.
    ///
    /// # Errors
    /// The same.
    pub async fn start_with(
        &self,
        unit: &str,
        properties: Properties,
        others: Vec<(String, Properties)>,
        limit: Duration,
    ) -> Result<JobResult, ManagerError> {
        let body = (unit, "fail", properties, others);
        self.job("StartTransientUnit", &body, limit).await
    }

    /// Starts a unit that is installed; nothing happens if it runs.
    ///
    /// # Errors
    /// `NoSuchUnit`, or the manager's refusal.
    pub async fn start(&self, unit: &str, limit: Duration) -> Result<JobResult, ManagerError> {
        self.job("StartUnit", &(unit, "replace"), limit).await
    }

    /// Carries out an installed unit's `ExecReload=`, or starts it if it does not run.
    ///
    /// # Errors
    /// `NoSuchUnit`, or the manager's refusal.
    pub async fn reload_or_start(
        &self,
        unit: &str,
        limit: Duration,
    ) -> Result<JobResult, ManagerError> {
        self.job("ReloadOrRestartUnit", &(unit, "replace"), limit)
            .await
    }

    /// Stops a unit; returns when nothing of it runs any more, within `limit`.
    ///
    /// # Errors
    /// `NoSuchUnit` if it is not loaded.
    pub async fn stop(&self, unit: &str, limit: Duration) -> Result<JobResult, ManagerError> {
        self.job("StopUnit", &(unit, "replace"), limit).await
    }

    /// Sends a signal to all processes of a unit.
    ///
    /// # Errors
    /// `NoSuchUnit` if it is not loaded.
    pub async fn kill(&self, unit: &str, signal: i32) -> Result<(), ManagerError> {
        let link = self.connections.link().await?;
        call(&link, ROOT, MANAGER, "KillUnit", &(unit, "all", signal)).await?;
        Ok(())
    }

    /// Forgets that a unit failed; a transient one is unloaded by that. Succeeds if it is gone.
    ///
    /// # Errors
    /// When the manager cannot be reached.
    pub async fn reset_failed(&self, unit: &str) -> Result<(), ManagerError> {
        let link = self.connections.link().await?;
        match call(&link, ROOT, MANAGER, "ResetFailedUnit", &(unit,)).await {
            Ok(_) | Err(ManagerError::NoSuchUnit) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Every property of a unit that is loaded, of `org.freedesktop.systemd1.Unit` and of `Service`;
    /// nothing if it is not loaded.
    ///
    /// # Errors
    /// When the manager cannot be reached.
    pub async fn properties(
        &self,
        unit: &str,
    ) -> Result<Option<HashMap<String, OwnedVariant>>, ManagerError> {
        let link = self.connections.link().await?;
        let read = async {
            let reply = call(&link, ROOT, MANAGER, "GetUnit", &(unit,)).await?;
            let path: OwnedObjectPath = reply.body().deserialize()?;
            // An empty name means all interfaces at once, so that both halves are of one moment.
            let reply = call(&link, path.as_str(), PROPERTIES, "GetAll", &("",)).await?;
            Ok(reply.body().deserialize()?)
        };
        match read.await {
            Ok(found) => Ok(Some(found)),
            Err(ManagerError::NoSuchUnit) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The sub state of a unit (`running`, `exited`, `failed`, `dead`); nothing if it is not loaded. Much
    /// less work than all its properties.
    ///
    /// # Errors
    /// When the manager cannot be reached.
    pub async fn sub_state(&self, unit: &str) -> Result<Option<String>, ManagerError> {
        let state = self.property(unit, "SubState").await?;
        Ok(state.map(String::try_from).transpose()?)
    }

    /// When the unit became active last, in microseconds since boot: another with every start; 0 if it
    /// never did. Nothing if it is not loaded.
    ///
    /// # Errors
    /// When the manager cannot be reached.
    pub async fn started(&self, unit: &str) -> Result<Option<u64>, ManagerError> {
        let time = self.property(unit, "ActiveEnterTimestampMonotonic").await?;
        Ok(time.map(u64::try_from).transpose()?)
    }

    async fn property(
        &self,
        unit: &str,
        name: &'static str,
    ) -> Result<Option<OwnedVariant>, ManagerError> {
        let link = self.connections.link().await?;
        let read = async {
            let reply = call(&link, ROOT, MANAGER, "GetUnit", &(unit,)).await?;
            let path: OwnedObjectPath = reply.body().deserialize()?;
            let get = ("org.freedesktop.systemd1.Unit", name);
            let reply = call(&link, path.as_str(), PROPERTIES, "Get", &get).await?;
            Ok(reply.body().deserialize()?)
        };
        match read.await {
            Ok(value) => Ok(Some(value)),
            Err(ManagerError::NoSuchUnit) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The loaded units whose names match the pattern (`temps-app-*.service`).
    ///
    /// # Errors
    /// When the manager cannot be reached.
    pub async fn list(&self, pattern: &str) -> Result<Vec<ListedUnit>, ManagerError> {
        let link = self.connections.link().await?;
        let states: Vec<&str> = Vec::new();
        let body = (states, vec![pattern]);
        let reply = call(&link, ROOT, MANAGER, "ListUnitsByPatterns", &body).await?;
        let rows: Vec<Row> = reply.body().deserialize()?;
        Ok(rows
            .into_iter()
            .map(|row| ListedUnit {
                name: row.0,
                active: row.3,
                has_job: row.7 != 0,
            })
            .collect())
    }

    /// Calls a method that makes a job, and waits for the job's end.
    async fn job<B>(
        &self,
        method: &'static str,
        body: &B,
        limit: Duration,
    ) -> Result<JobResult, ManagerError>
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        let deadline = Instant::now() + limit;
        let link = self.connections.link().await?;
        // Before the job is made, or its end may be missed.
        let mut removed = link.jobs_removed().await?;
        let reply = call(&link, ROOT, MANAGER, method, body).await?;
        let job: OwnedObjectPath = reply.body().deserialize()?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ManagerError::TooLong(limit));
            }
            match timeout(left.min(LOOK_AFTER), removed.next()).await {
                Ok(Some(Ok(message))) => {
                    if let Some(result) = end_of(&message, &job) {
                        return Ok(result);
                    }
                }
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(None) => {
                    return Err(ManagerError::Unreachable(
                        "the connection was closed".to_owned(),
                    ));
                }
                Err(_) if !exists(&link, &job).await? => return Ok(JobResult::Unknown),
                Err(_) => {}
            }
        }
    }
}

/// The job's result, if the message says that it ended.
fn end_of(message: &Message, job: &OwnedObjectPath) -> Option<JobResult> {
    let body = message.body();
    let (_, path, _, result): (u32, OwnedObjectPath, String, String) = body.deserialize().ok()?;
    (path == *job).then_some(match result.as_str() {
        "done" => JobResult::Done,
        _ => JobResult::Other(result),
    })
}

async fn exists(link: &Link, job: &OwnedObjectPath) -> Result<bool, ManagerError> {
    let get = ("org.freedesktop.systemd1.Job", "State");
    match call(link, job.as_str(), PROPERTIES, "Get", &get).await {
        Ok(_) => Ok(true),
        Err(ManagerError::Unreachable(why)) if link.is_closed() => {
            Err(ManagerError::Unreachable(why))
        }
        // However it is said: there is no such object.
        Err(_) => Ok(false),
    }
}

/// A call within its time limit.
async fn call<B>(
    link: &Link,
    path: &str,
    interface: &'static str,
    method: &'static str,
    body: &B,
) -> Result<Message, ManagerError>
where
    B: serde::Serialize + DynamicType + Sync,
{
    let call =
        link.connection()
            .call_method(Some(DESTINATION), path, Some(interface), method, body);
    match timeout(CALL_LIMIT, call).await {
        Ok(reply) => Ok(reply?),
        Err(_) => Err(ManagerError::TooLong(CALL_LIMIT)),
    }
}
