//! What is on the bus now, kept the same as what the database says.
//!
//! Every change is made by [`Board::refresh`], one at a time: it reads what there is, compares it with
//! what is shown, and adds, changes and removes objects. It runs after each change in the engine, and
//! before a method names an object in its answer. Signals of what happened follow the properties that
//! they are about.
//!
//! An instance that dies changes nothing that is written, until the proxy finds it out: so the runtimes
//! are asked again from time to time ([`LOOK`]), as long as deployd runs for another reason.

use super::ROOT;
use super::app::{self, App};
use super::job::{self, End, Job};
use super::manager::{self, Counts, Manager};
use crate::engine::news::News;
use crate::engine::view::Record;
use crate::engine::{Engine, cancel};
use futures::stream::{self, StreamExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use temps_ipc::types::{AppName, DeploymentView, Phase, Timestamp};
use temps_ipc::{Code, Fault};
use temps_unit::bus::update;
use temps_unit::idle::Idle;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};
use zbus::Connection;
use zbus::object_server::SignalEmitter;

/// How long changes are gathered before they are shown, together: a deployment passes several phases
/// within a moment.
const GATHERED: Duration = Duration::from_millis(50);

/// How often the runtimes are asked whether every instance still runs: before the proxy has found out
/// (three checks of five seconds), and seldom enough for a hundred apps.
const LOOK: Duration = Duration::from_secs(5);

/// Apps whose runtime is asked at a time.
const AT_ONCE: usize = 16;

/// Operations by the bus that may be under way: each is a task.
const MOST_OPERATIONS: usize = 32;

/// Why the bus does not show what is.
#[derive(Debug, thiserror::Error)]
pub(super) enum BoardError {
    #[error(transparent)]
    Bus(#[from] zbus::Error),
    #[error("the database does not answer: {0}")]
    Engine(#[from] Fault),
}

/// See the module.
pub(super) struct Board {
    engine: Engine,
    idle: Idle,
    shown: tokio::sync::Mutex<Shown>,
    counts: Mutex<Counts>,
    operations: Mutex<Operations>,
    /// Jobs that a method has named or is about to: their end is told even if they were never shown.
    promised: Mutex<BTreeSet<String>>,
    /// Rung when an operation has ended.
    ended: Notify,
}

/// What is on the present connection.
#[derive(Default)]
struct Shown {
    apps: BTreeMap<AppName, Record>,
    jobs: BTreeMap<String, job::Shape>,
}

/// What was begun by the bus and is no deployment.
#[derive(Default)]
struct Operations {
    last: u64,
    open: BTreeMap<String, (job::Shape, Option<End>)>,
}

impl Board {
    pub(super) fn new(engine: Engine, idle: Idle) -> Self {
        Self {
            engine,
            idle,
            shown: tokio::sync::Mutex::default(),
            counts: Mutex::default(),
            operations: Mutex::default(),
            promised: Mutex::default(),
            ended: Notify::new(),
        }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn idle(&self) -> &Idle {
        &self.idle
    }

    pub(super) fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows everything on a new connection.
    pub(super) async fn begin(&self, connection: &Connection) -> zbus::Result<()> {
        *self.shown.lock().await = Shown::default();
        match self.refresh(connection).await {
            Ok(()) => Ok(()),
            Err(BoardError::Bus(error)) => Err(error),
            // Shown when it answers again.
            Err(error @ BoardError::Engine(_)) => {
                warn!(%error, "the bus does not show the apps yet");
                Ok(())
            }
        }
    }

    /// Keeps everything true; ends when the bus fails.
    pub(super) async fn follow(&self, connection: &Connection) -> zbus::Error {
        let mut changes = self.engine.changes();
        let mut news = self.engine.news();
        // What changed between the registration and now.
        changes.mark_changed();
        let mut happened = Vec::new();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let again = tokio::select! {
                // The engine lives as long as we hold it, so neither channel is ever closed.
                _ = changes.changed() => false,
                one = news.recv() => {
                    match one {
                        Ok(one) => happened.push(one),
                        Err(RecvError::Lagged(missed)) => debug!(missed, "the bus was too slow for some news"),
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                    false
                }
                () = self.ended.notified() => false,
                _ = look.tick() => true,
            };
            sleep(GATHERED).await;
            loop {
                match news.try_recv() {
                    Ok(one) => happened.push(one),
                    Err(TryRecvError::Lagged(missed)) => {
                        debug!(missed, "the bus was too slow for some news");
                    }
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            changes.mark_unchanged();
            match self.show(connection, again).await {
                Ok(()) => {}
                Err(BoardError::Bus(error)) => return error,
                Err(error @ BoardError::Engine(_)) => warn!(%error, "the bus shows what was"),
            }
            for one in happened.drain(..) {
                if let Err(error) = self.announce(connection, one).await {
                    return error;
                }
            }
        }
    }

    /// Makes the bus show what is.
    pub(super) async fn refresh(&self, connection: &Connection) -> Result<(), BoardError> {
        self.show(connection, false).await
    }

    /// Makes the bus show what is; also of what is written as before, if it is to look `again`.
    async fn show(&self, connection: &Connection, again: bool) -> Result<(), BoardError> {
        let mut shown = self.shown.lock().await;
        let records = self.engine.records().await?;
        self.show_apps(connection, &mut shown, &records, again)
            .await?;
        self.show_jobs(connection, &mut shown, &records).await?;
        let (apps, (deployments, watching)) = self.engine.counts().await?;
        let counts = Counts {
            apps,
            deployments,
            watching,
        };
        update::<Manager>(connection, ROOT, &[], |_| {
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        })
        .await?;
        Ok(())
    }

    async fn show_apps(
        &self,
        connection: &Connection,
        shown: &mut Shown,
        records: &[Record],
        again: bool,
    ) -> Result<(), BoardError> {
        let server = connection.object_server();
        let names: BTreeSet<&AppName> = records.iter().map(|record| &record.app.name).collect();
        let gone: Vec<AppName> = shown
            .apps
            .keys()
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        for name in gone {
            shown.apps.remove(&name);
            server.remove::<App, _>(app::path(&name)).await?;
        }
        let differs = |record: &&Record| {
            let is_running = !record.app.instances.is_empty();
            again && is_running || shown.apps.get(&record.app.name) != Some(*record)
        };
        let changed: Vec<(Record, app::Shape)> =
            stream::iter(records.iter().filter(differs).cloned())
                .map(|record| async move {
                    let shape = self.shape(&record).await;
                    (record, shape)
                })
                .buffered(AT_ONCE)
                .collect()
                .await;
        for (record, shape) in changed {
            let name = record.app.name.clone();
            let path = app::path(&name);
            if shown.apps.insert(name, record).is_some() {
                update::<App>(connection, &path, &[], |app| app.set(shape)).await?;
            } else {
                server.at(path, App::new(shape)).await?;
            }
        }
        Ok(())
    }

    /// The app, and whether its instances are there: only its runtime knows.
    async fn shape(&self, record: &Record) -> app::Shape {
        let asked = self.engine.app_show(record.app.name.clone()).await;
        let under_way = |phase: Phase| phase.outcome().is_none();
        app::Shape {
            // It may just have gone.
            view: asked.unwrap_or_else(|_| record.app.clone()),
            job: record
                .open
                .iter()
                .find(|deployment| under_way(deployment.phase))
                .map(|deployment| deployment.id.clone()),
        }
    }

    async fn show_jobs(
        &self,
        connection: &Connection,
        shown: &mut Shown,
        records: &[Record],
    ) -> Result<(), BoardError> {
        let server = connection.object_server();
        let mut jobs: BTreeMap<String, job::Shape> = records
            .iter()
            .flat_map(|record| &record.open)
            .filter(|deployment| deployment.phase.outcome().is_none())
            .map(|deployment| (deployment.id.to_string(), job::Shape::from(deployment)))
            .collect();
        let mut ends = self.open_operations(&mut jobs);
        // One that was over before it could be shown has somebody who waits for its end all the same.
        let promised = std::mem::take(&mut *self.promised());
        let gone: BTreeSet<String> = shown
            .jobs
            .keys()
            .chain(&promised)
            .filter(|id| !jobs.contains_key(*id))
            .cloned()
            .collect();
        for id in gone {
            let end = match ends.remove(&id) {
                Some(end) => end,
                None => self.end_of(&id).await,
            };
            let path = job::path(&id);
            if shown.jobs.remove(&id).is_some() {
                server.remove::<Job, _>(path.as_str()).await?;
            }
            let root = SignalEmitter::new(connection, ROOT)?;
            let object = app::object(path);
            Manager::job_removed(&root, object.as_ref(), end.result, &end.reason).await?;
            self.operations().open.remove(&id);
        }
        for (id, shape) in jobs {
            let path = job::path(&id);
            match shown.jobs.insert(id, shape.clone()) {
                Some(before) if before == shape => {}
                Some(_) => update::<Job>(connection, &path, &[], |job| job.set(shape)).await?,
                None => {
                    let job = Job::new(shape, self.engine.clone(), self.idle.clone());
                    server.at(path, job).await?;
                }
            }
        }
        Ok(())
    }

    /// How a deployment ended that is not under way any more.
    async fn end_of(&self, id: &str) -> End {
        let Ok(id) = id.parse() else {
            return End::of(None);
        };
        let mut ended = self.engine.deployment(id, 0, Duration::ZERO).await.ok();
        if let Some(deployment) = &mut ended {
            self.make_public(deployment).await;
        }
        End::of(ended)
    }

    /// Adds the operations under way to `jobs`; gives those that have ended.
    fn open_operations(&self, jobs: &mut BTreeMap<String, job::Shape>) -> BTreeMap<String, End> {
        let operations = self.operations();
        let mut ends = BTreeMap::new();
        for (id, (shape, end)) in &operations.open {
            match end {
                None => {
                    jobs.insert(id.clone(), shape.clone());
                }
                Some(end) => {
                    ends.insert(id.clone(), end.clone());
                }
            }
        }
        ends
    }

    fn operations(&self) -> std::sync::MutexGuard<'_, Operations> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn promised(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of this job will be told, however soon it comes.
    pub(super) fn promise(&self, id: &str) {
        self.promised().insert(id.to_owned());
    }

    /// Records an operation, which is shown from the next refresh on. Its id.
    ///
    /// # Errors
    /// `Busy` if too many are under way.
    pub(super) fn open(&self, kind: &'static str, app: &str) -> Result<String, Fault> {
        let mut operations = self.operations();
        if operations.open.len() >= MOST_OPERATIONS {
            return Err(Fault::new(Code::Busy, "too many jobs are under way").hint("try again"));
        }
        operations.last += 1;
        let id = format!("{kind}_{}", operations.last);
        let shape = job::Shape {
            kind,
            app: app.to_owned(),
            release: String::new(),
            progress: "running",
            created_at: Timestamp::now(),
        };
        operations.open.insert(id.clone(), (shape, None));
        Ok(id)
    }

    /// The operation has ended.
    pub(super) fn close(&self, id: &str, end: End) {
        if let Some(operation) = self.operations().open.get_mut(id) {
            operation.1 = Some(end);
        }
        self.ended.notify_one();
    }

    /// Emits the signal for what happened, if there is one.
    async fn announce(&self, connection: &Connection, mut news: News) -> zbus::Result<()> {
        if let News::Deployment(deployment) = &mut news {
            self.make_public(deployment).await;
        }
        let root = SignalEmitter::new(connection, ROOT)?;
        manager::announce(&root, news).await
    }

    /// Leaves nothing in a deployment's reason that a build printed: every local user hears it. Of
    /// what comes after the build the reasons are in our own words.
    async fn make_public(&self, deployment: &mut DeploymentView) {
        if deployment.reason.is_empty() || cancel::is_reason(&deployment.reason) {
            return;
        }
        // Whose release is gone was refused long ago.
        let built = self.engine.is_built(&deployment.release).await;
        if !built.unwrap_or(false) {
            deployment.reason = format!(
                "it could not be built; `temps app show {}` says why",
                deployment.app
            );
        }
    }
}
