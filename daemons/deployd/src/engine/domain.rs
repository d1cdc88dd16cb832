//! The hosts of apps. Every app has `APP.<base domain>`; more are given to it.

use super::{Engine, routes};
use crate::store::app::{self, App};
use crate::store::{RowError, audit};
use rusqlite::Connection;
use temps_ipc::types::{Actor, AppName, Host};
use temps_ipc::{Code, Fault};
use tracing::warn;

/// Most hosts of an app. Every host is a route, and all routes travel in one frame.
const MAX_DOMAINS: usize = 100;

impl Engine {
    /// Gives a host to the app and routes it at once.
    ///
    /// # Errors
    /// `NotFound`, `Exists` if another app has it, the proxy's refusal.
    pub async fn domain_add(
        &self,
        name: AppName,
        host: Host,
        actor: Actor,
        uid: u32,
    ) -> Result<(), Fault> {
        let base = self.settings.base_domain.clone();
        let turn = self.publishing().await;
        let given = host.clone();
        let (app, is_new) = self
            .store
            .change(move |tx| {
                let app = app::get(tx, &name)?;
                let is_new = !routes::hosts(tx, &app, &base)?.contains(&host);
                give(tx, &app, &host, &base)?;
                audit::record(tx, uid, &actor, "domain add", name.as_str(), host.as_str())?;
                Ok((app.id, is_new))
            })
            .await?;
        let published = told(turn.apply().await?);
        if let Err(fault) = &published
            && fault.code != Code::Unavailable
            && is_new
        {
            // Otherwise every later snapshot would be refused for it, whosever it is.
            self.store
                .write(move |tx| app::remove_domain(tx, &app, &given))
                .await?;
            // What it wrote before it failed is not what it shall serve after its next start.
            if let Err(fault) = turn.apply().await? {
                warn!(%fault, "the proxy refused the routes before it, too");
            }
        }
        self.changed();
        published
    }

    /// Takes a host from the app.
    ///
    /// # Errors
    /// `NotFound` if it has not got it, `Invalid` for its own host, the proxy's refusal.
    pub async fn domain_remove(
        &self,
        name: AppName,
        host: Host,
        actor: Actor,
        uid: u32,
    ) -> Result<(), Fault> {
        let base = self.settings.base_domain.clone();
        if host.as_str() == format!("{name}.{base}") {
            return Err(Fault::invalid(format!(
                "{host} is the app's own host and goes with the app"
            ))
            .hint("only hosts that were added can be removed"));
        }
        self.store
            .change(move |tx| {
                let app = app::get(tx, &name)?;
                if !app::remove_domain(tx, &app.id, &host)? {
                    return Err(RowError::Missing(format!(
                        "the app `{name}` has no host {host}"
                    )));
                }
                audit::record(
                    tx,
                    uid,
                    &actor,
                    "domain remove",
                    name.as_str(),
                    host.as_str(),
                )
            })
            .await?;
        self.changed();
        self.published().await
    }

    /// The app's hosts, its own first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn domain_list(&self, name: AppName) -> Result<Vec<Host>, Fault> {
        let base = self.settings.base_domain.clone();
        let hosts = self
            .store
            .read(move |db| {
                let app = app::get(db, &name)?;
                routes::hosts(db, &app, &base)
            })
            .await?;
        Ok(hosts)
    }

    /// Publishes for a caller that waits.
    pub(super) async fn published(&self) -> Result<(), Fault> {
        told(self.publish().await?)
    }
}

/// What came of publishing, for a caller.
fn told(published: Result<bool, Fault>) -> Result<(), Fault> {
    match published {
        Ok(true) => Ok(()),
        Ok(false) => Err(Fault::unavailable("temps-deployd stops")
            .hint("the change is recorded and takes effect with its next start")),
        Err(fault) => Err(fault),
    }
}

/// Gives `host` to `app`, unless it is another app's.
pub(super) fn give(
    tx: &rusqlite::Transaction<'_>,
    app: &App,
    host: &Host,
    base: &Host,
) -> Result<(), RowError> {
    let under_base = host
        .as_str()
        .strip_suffix(base.as_str())
        .and_then(|rest| rest.strip_suffix('.'));
    if let Some(label) = under_base
        && label != app.name.as_str()
        && let Ok(other) = label.parse::<AppName>()
        && app::find(tx, &other)?.is_some()
    {
        return Err(RowError::Exists(format!(
            "{host} is the own host of the app `{other}`"
        )));
    }
    if app::domains(tx, &app.id)?.len() >= MAX_DOMAINS {
        return Err(RowError::Busy(format!(
            "the app `{}` has {MAX_DOMAINS} hosts already",
            app.name
        )));
    }
    app::add_domain(tx, &app.id, host)
}

/// Refuses a new app whose own host was given to another one.
pub(super) fn own_host_is_free(db: &Connection, app: &App, base: &Host) -> Result<(), RowError> {
    let own = format!("{}.{base}", app.name);
    let taken: i64 = db.query_row(
        "SELECT count(*) FROM domain WHERE host = ?1",
        [&own],
        |row| row.get(0),
    )?;
    if taken > 0 {
        return Err(RowError::Exists(format!("{own} was given to another app")));
    }
    Ok(())
}
