//! What the proxy is told: a full snapshot made from the database, one at a time.
//!
//! A snapshot holds the routes of every app, and the proxy refuses it as a whole. So that an app
//! suffers for nobody else's routes, whoever changes what is routed takes its turn *before* it
//! records the change, and gives the turn back when the proxy serves it, or when the record of what
//! the proxy refused was taken back ([`Publishing`]). Only a crash between the two leaves a refused
//! record for others to meet, until its own worker takes it up again. A change that has no worker, such
//! as a new host, is offered to the proxy first, and recorded when it was taken.

use super::Engine;
use crate::port::Artifact;
use crate::store::instance::{self, State};
use crate::store::{RowError, StoreError, app, release};
use rusqlite::{Connection, OptionalExtension, Transaction};
use std::sync::Arc;
use std::time::Duration;
use temps_ipc::types::{Backend, Host, PathPrefix, Route, Snapshot, StaticSite, Target};
use temps_ipc::{Code, Fault};
use tokio::sync::MutexGuard;
use tracing::warn;

/// First pause before a proxy that does not answer is told again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Apps per page while the snapshot is made.
const PAGE: u32 = 500;

/// A change to what is routed.
type Change = Arc<dyn Fn(&Transaction<'_>) -> Result<(), RowError> + Send + Sync>;

/// The turn to change what is routed; nobody else does meanwhile.
pub(super) struct Publishing<'a> {
    engine: &'a Engine,
    _turn: MutexGuard<'a, ()>,
}

impl Engine {
    /// Waits for the turn to change what is routed.
    pub(super) async fn publishing(&self) -> Publishing<'_> {
        Publishing {
            engine: self,
            _turn: self.publishing.lock().await,
        }
    }

    /// Takes a turn to give the present routes to the proxy; see [`Publishing::apply`].
    pub(super) async fn publish(&self) -> Result<Result<bool, Fault>, StoreError> {
        self.publishing().await.apply().await
    }

    /// The generation of the last snapshot that was made.
    pub(super) async fn generation(&self) -> Result<u64, StoreError> {
        self.store.read(current_generation).await
    }
}

impl Publishing<'_> {
    /// Gives the present routes to the proxy and answers when it serves them (true), or when the
    /// daemon stops (false). Waits for a proxy that does not answer, however long: until it has
    /// answered nobody knows what it serves.
    ///
    /// # Errors
    /// Outer: the database. Inner: the proxy's refusal; it still serves what it served.
    pub(super) async fn apply(&self) -> Result<Result<bool, Fault>, StoreError> {
        let applied = self.deliver(None).await?;
        Ok(applied.map(|generation| generation.is_some()))
    }

    /// As [`apply`](Self::apply), with a change that is recorded only when the proxy serves it: what it
    /// refuses is written nowhere, so no failure of ours can leave it for others to meet.
    ///
    /// A crash, or a failing write, between the two leaves the proxy with a generation that the
    /// database does not know, which the next reconciliation sees.
    pub(super) async fn offer<F>(&self, change: F) -> Result<Result<bool, Fault>, StoreError>
    where
        F: Fn(&Transaction<'_>) -> Result<(), RowError> + Send + Sync + 'static,
    {
        let change: Change = Arc::new(change);
        let offered = self.deliver(Some(&change)).await?;
        let generation = match offered {
            Ok(Some(generation)) => generation,
            Ok(None) => return Ok(Ok(false)),
            Err(fault) => {
                // What it wrote before it failed is not what it shall serve after its next start.
                self.put_back().await?;
                return Ok(Err(fault));
            }
        };
        let recorded = self
            .engine
            .store
            .write(move |tx| {
                change(tx)?;
                next_generation(tx, generation - 1).map(drop)
            })
            .await;
        if let Err(error) = recorded {
            self.put_back().await?;
            return Err(error);
        }
        Ok(Ok(true))
    }

    /// Gives the recorded routes to a proxy that was given others.
    pub(super) async fn put_back(&self) -> Result<(), StoreError> {
        if let Err(fault) = self.apply().await? {
            warn!(%fault, "the proxy refused the routes before it, too");
        }
        Ok(())
    }

    /// Gives the present routes, or those after `change`, of which nothing is recorded, until they are
    /// served or refused; their generation, none if the daemon stops.
    async fn deliver(
        &self,
        change: Option<&Change>,
    ) -> Result<Result<Option<u64>, Fault>, StoreError> {
        let engine = self.engine;
        let mut pause = FIRST_PAUSE;
        let mut floor = 0;
        loop {
            let snapshot = self.snapshot(floor, change.cloned()).await?;
            let generation = snapshot.generation;
            let fault = match engine.proxy.apply(snapshot).await {
                Ok(()) => return Ok(Ok(Some(generation))),
                Err(fault) => fault,
            };
            match fault.code {
                // It has a newer snapshot than we ever made: our database was restored.
                Code::Busy => match engine.proxy.generation().await {
                    Ok(generation) => floor = generation,
                    Err(fault) => warn!(%fault, "the proxy does not say which routes it serves"),
                },
                Code::Unavailable => warn!(%fault, "the proxy does not answer; telling it again"),
                _ => return Ok(Err(fault)),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = engine.stopping.cancelled() => return Ok(Ok(None)),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn snapshot(&self, floor: u64, change: Option<Change>) -> Result<Snapshot, StoreError> {
        let base = self.engine.settings.base_domain.clone();
        let made = move |tx: &Transaction<'_>| match change {
            None => snapshot(tx, floor, &base),
            Some(change) => supposing(tx, || {
                change(tx)?;
                snapshot(tx, floor, &base)
            }),
        };
        self.engine.store.write(made).await
    }
}

/// What `work` says; what it wrote is taken back.
pub(super) fn supposing<T>(
    tx: &Transaction<'_>,
    work: impl FnOnce() -> Result<T, RowError>,
) -> Result<T, RowError> {
    tx.execute_batch("SAVEPOINT supposing")?;
    let done = work();
    tx.execute_batch("ROLLBACK TO supposing; RELEASE supposing")?;
    done
}

fn snapshot(tx: &Transaction<'_>, floor: u64, base: &Host) -> Result<Snapshot, RowError> {
    Ok(Snapshot {
        generation: next_generation(tx, floor)?,
        routes: routes(tx, base)?,
    })
}

fn current_generation(db: &Connection) -> Result<u64, RowError> {
    let text: Option<String> = db
        .query_row(
            "SELECT value FROM meta WHERE key = 'generation'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// The generation of the next snapshot, above `floor`.
pub(super) fn next_generation(tx: &Transaction<'_>, floor: u64) -> Result<u64, RowError> {
    let next = current_generation(tx)?.max(floor) + 1;
    tx.execute(
        "UPDATE meta SET value = ?1 WHERE key = 'generation'",
        [next.to_string()],
    )?;
    Ok(next)
}

/// Every route that shall be served.
fn routes(db: &Connection, base: &Host) -> Result<Vec<Route>, RowError> {
    let mut routes = Vec::new();
    let mut after = None;
    loop {
        let apps = app::list(db, after.as_ref(), PAGE)?;
        let Some(last) = apps.last() else {
            return Ok(routes);
        };
        after = Some(last.name.clone());
        for app in apps.iter().filter(|app| !app.destroying) {
            let Some(id) = &app.release else { continue };
            let Some(backend) = backend(db, app, &release::get(db, id)?)? else {
                continue;
            };
            for host in hosts(db, app, base)? {
                routes.push(Route {
                    host,
                    path_prefix: PathPrefix::root(),
                    app: app.name.clone(),
                    release: id.clone(),
                    backend: backend.clone(),
                });
            }
        }
    }
}

/// The app's hosts, the platform's own first.
pub(super) fn hosts(db: &Connection, app: &app::App, base: &Host) -> Result<Vec<Host>, RowError> {
    let mut hosts = Vec::new();
    if let Ok(own) = format!("{}.{base}", app.name).parse() {
        hosts.push(own);
    }
    for host in app::domains(db, &app.id)? {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

/// Who answers for the app now; nobody while nothing of it is meant to serve.
fn backend(
    db: &Connection,
    app: &app::App,
    release: &release::Release,
) -> Result<Option<Backend>, RowError> {
    let serving: Vec<_> = instance::present(db, &app.id)?
        .into_iter()
        .filter(|instance| instance.state == State::Serving)
        .collect();
    if let Some(Artifact::Files { root, spa }) = &release.artifact {
        return Ok(serving.first().map(|instance| {
            Backend::Static(StaticSite {
                id: instance.id.clone(),
                root: root.clone(),
                spa: *spa,
            })
        }));
    }
    let check = super::activation::check(db, app, release)?;
    let targets: Vec<Target> = serving
        .into_iter()
        .filter_map(|instance| {
            Some(Target {
                id: instance.id,
                address: instance.address?,
                check: check.clone(),
            })
        })
        .collect();
    Ok((!targets.is_empty()).then_some(Backend::Targets(targets)))
}
