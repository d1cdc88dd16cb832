//! The hosts of apps. Every app has `APP.<base domain>`; more are given to it.

use super::{Engine, routes};
use crate::store::app::{self, App};
use crate::store::{RowError, audit};
use rusqlite::Connection;
use temps_ipc::Fault;
use temps_ipc::types::{Actor, AppName, Host};

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
        let asked = (host.clone(), base.clone());
        let app = self
            .store
            .change(move |tx| {
                let (host, base) = asked;
                let app = app::get(tx, &name)?;
                routes::supposing(tx, || give(tx, &app, &host, &base))?;
                audit::record(tx, uid, &actor, "domain add", name.as_str(), host.as_str())?;
                Ok(app)
            })
            .await?;
        let published = turn.offer(move |tx| give(tx, &app, &host, &base)).await?;
        self.changed();
        if let Ok(false) = published {
            return Err(Fault::unavailable("temps-deployd stops").hint("try again"));
        }
        published.map(drop)
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
        let turn = self.publishing().await;
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
        match turn.apply().await? {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault::unavailable("temps-deployd stops")
                .hint("the change is recorded and takes effect with its next start")),
            Err(fault) => Err(fault),
        }
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
