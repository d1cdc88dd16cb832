//! How apps, releases and deployments look from outside.

use super::{Engine, restart, routes};
use crate::port::InstanceState;
use crate::store::app::{self, App};
use crate::store::deployment::{self, Deployment};
use crate::store::instance::{self, Instance, State};
use crate::store::release;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::{DeploymentId, ReleaseId};
use temps_ipc::types::{AppName, AppView, DeploymentView, Host, InstanceView, Phase, ReleaseView};

/// Longest wait of a caller for a change.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// How long an engine may take to say how an instance is.
const STATE_TIME: Duration = Duration::from_secs(2);

/// Rows per page.
const PAGE: u32 = 200;

impl Engine {
    /// A deployment as its callers see it.
    pub(super) fn view_deployment(&self, app: &AppName, deployment: &Deployment) -> DeploymentView {
        DeploymentView {
            id: deployment.id.clone(),
            app: app.clone(),
            release: deployment.release.clone(),
            phase: deployment.phase,
            reason: deployment.reason.clone(),
            last_lines: deployment.last_lines.clone(),
            url: self.settings.url(app),
            created_at: deployment.created_at,
            watch_until: deployment.watch_until,
            revision: deployment.revision,
        }
    }

    /// A deployment; waits until its revision is above `seen`, for `wait` at most.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn deployment(
        &self,
        id: DeploymentId,
        seen: u64,
        wait: Duration,
    ) -> Result<DeploymentView, Fault> {
        let mut changes = self.changes.subscribe();
        let deadline = tokio::time::Instant::now() + wait.min(LONGEST_WAIT);
        loop {
            let wanted = id.clone();
            let (row, name) = self
                .store
                .read(move |db| {
                    let row = deployment::get(db, &wanted)?;
                    let app = app::by_id(db, &row.app)?;
                    Ok((row, app.map(|app| app.name)))
                })
                .await?;
            let name = name.ok_or_else(|| Fault::not_found("its app was removed"))?;
            if row.revision > seen {
                return Ok(self.view_deployment(&name, &row));
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(self.view_deployment(&name, &row)),
                () = self.stopping.cancelled() => return Ok(self.view_deployment(&name, &row)),
            }
        }
    }

    /// Apps by name after `after`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn app_list(&self, after: Option<AppName>) -> Result<Vec<AppView>, Fault> {
        let base = self.settings.base_domain.clone();
        let rows = self
            .store
            .read(move |db| {
                app::list(db, after.as_ref(), PAGE)?
                    .into_iter()
                    .filter(|app| !app.destroying)
                    .map(|app| Facts::read(db, app, &base))
                    .collect::<Result<Vec<_>, _>>()
            })
            .await?;
        Ok(futures::future::join_all(rows.into_iter().map(|facts| self.view_app(facts))).await)
    }

    /// One app.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn app_show(&self, name: AppName) -> Result<AppView, Fault> {
        let base = self.settings.base_domain.clone();
        let facts = self
            .store
            .read(move |db| Facts::read(db, app::get(db, &name)?, &base))
            .await?;
        Ok(self.view_app(facts).await)
    }

    /// Every app by name with its open deployments, as written: no runtime is asked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn records(&self) -> Result<Vec<Record>, Fault> {
        let base = self.settings.base_domain.clone();
        let rows = self
            .store
            .read(move |db| {
                let mut rows = Vec::new();
                let mut after = None;
                loop {
                    let apps = app::list(db, after.as_ref(), PAGE)?;
                    let Some(last) = apps.last() else { break };
                    after = Some(last.name.clone());
                    for app in apps.into_iter().filter(|app| !app.destroying) {
                        rows.push(Facts::read(db, app, &base)?);
                    }
                }
                Ok(rows)
            })
            .await?;
        let record = |facts: Facts| Record {
            open: facts
                .open
                .iter()
                .map(|deployment| self.view_deployment(&facts.app.name, deployment))
                .collect(),
            app: self.view_facts(facts, "live"),
        };
        Ok(rows.into_iter().map(record).collect())
    }

    /// Whether the release was ever built, whatever became of it then.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn is_built(&self, id: &ReleaseId) -> Result<bool, Fault> {
        let id = id.clone();
        let release = self.store.read(move |db| release::get(db, &id)).await?;
        Ok(release.runtime.is_some())
    }

    async fn view_app(&self, facts: Facts) -> AppView {
        let states =
            futures::future::join_all(facts.serving.iter().map(|instance| self.state_of(instance)))
                .await;
        let is_gone = |state: &Option<InstanceState>| {
            matches!(
                state,
                Some(InstanceState::Exited { .. } | InstanceState::Absent)
            )
        };
        let rests =
            |state: &Option<InstanceState>| matches!(state, Some(InstanceState::Resting { .. }));
        let how = if states.iter().any(is_gone) {
            "down"
        } else if !states.is_empty() && states.iter().all(rests) {
            "resting"
        } else {
            "live"
        };
        self.view_facts(facts, how)
    }

    /// `how` is the word for an app that should serve, and for which something is there.
    fn view_facts(&self, facts: Facts, how: &str) -> AppView {
        let under_way = facts
            .open
            .iter()
            .any(|deployment| deployment.phase != Phase::Live);
        let state = match &facts.app.release {
            _ if under_way => "deploying",
            None if facts.never_served => "never-served",
            None => "empty",
            Some(_) if facts.serving.is_empty() => "down",
            Some(_) => how,
        };
        AppView {
            url: self.settings.url(&facts.app.name),
            runtime: facts.app.runtime,
            release: facts.app.release.clone(),
            state: state.to_owned(),
            hosts: facts.hosts,
            instances: facts
                .serving
                .into_iter()
                .map(|instance| InstanceView {
                    address: instance
                        .address
                        .map_or_else(|| "files".to_owned(), |address| address.to_string()),
                    id: instance.id,
                    release: instance.release,
                    started_at: instance.created_at,
                })
                .collect(),
            deployment: facts
                .open
                .last()
                .map(|deployment| self.view_deployment(&facts.app.name, deployment)),
            created_at: facts.app.created_at,
            restarts: facts.restarts,
            restart_at: self.restart_at(&facts.app),
            socket_activated: facts.socket_activated,
            name: facts.app.name,
        }
    }

    /// How the instance is; none if that is not known, or if it is files.
    pub(super) async fn state_of(&self, instance: &Instance) -> Option<InstanceState> {
        instance.address.as_ref()?;
        let Some(runtime) = self.runtimes.get(instance.runtime) else {
            return Some(InstanceState::Absent);
        };
        let state = tokio::time::timeout(STATE_TIME, runtime.state(&instance.id)).await;
        state.ok()?.ok()
    }

    /// Releases, latest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn release_list(
        &self,
        name: AppName,
        before: Option<ReleaseId>,
    ) -> Result<Vec<ReleaseView>, Fault> {
        let rows = self
            .store
            .read(move |db| {
                let app = app::get(db, &name)?;
                release::list(db, &app.id, before.as_ref(), PAGE)
            })
            .await?;
        Ok(rows
            .into_iter()
            .map(|row| ReleaseView {
                socket_activated: row.socket_activated,
                id: row.id,
                status: row.status,
                runtime: row.runtime.or(row.wanted_runtime),
                created_at: row.created_at,
                source: row.source,
                reason: row.reason,
                actor: row.actor,
            })
            .collect())
    }
}

/// An app as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// As its callers see it, but for an instance that died unnoticed.
    pub app: AppView,
    /// Its open deployments, oldest first.
    pub open: Vec<DeploymentView>,
}

/// What the database says of an app.
struct Facts {
    app: App,
    hosts: Vec<Host>,
    serving: Vec<Instance>,
    open: Vec<Deployment>,
    restarts: u32,
    socket_activated: bool,
    never_served: bool,
}

impl Facts {
    fn read(
        db: &rusqlite::Connection,
        app: App,
        base: &Host,
    ) -> Result<Self, crate::store::RowError> {
        Ok(Self {
            hosts: routes::hosts(db, &app, base)?,
            serving: instance::present(db, &app.id)?
                .into_iter()
                .filter(|instance| instance.state == State::Serving)
                .collect(),
            open: deployment::open(db, &app.id)?,
            restarts: restart::count(db, &app.id)?,
            socket_activated: match &app.release {
                Some(serving) => release::get(db, serving)?.socket_activated,
                None => app.socket_activated,
            },
            never_served: app.release.is_none() && release::never_served(db, &app.id)?,
            app,
        })
    }
}
