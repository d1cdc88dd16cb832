//! `sh.temps.Deploy1.Job`: something that takes its time and is under way. When it has ended its
//! object is gone, and `JobRemoved` has said how it ended.

use super::ROOT;
use super::app::micros;
use super::manager::{app_name, release_id};
use super::shown::Shown;
use crate::engine::Engine;
use temps_ipc::Fault;
use temps_ipc::types::{DeploymentView, Phase, Timestamp};
use temps_unit::bus::authority::{Caller, authorise};
use temps_unit::bus::failure::Failure;
use temps_unit::idle::Idle;
use zbus::message::Header;
use zbus::{Connection, interface};

/// The kind of a job that is a deployment.
const DEPLOYMENT: &str = "deployment";

/// What is shown of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// `deployment`, `reconciliation` or `removal`.
    pub(super) kind: &'static str,
    /// The app, if it is about one.
    pub(super) app: String,
    /// The release that shall serve, if it is about one.
    pub(super) release: String,
    /// What is being done, in one word.
    pub(super) progress: &'static str,
    pub(super) created_at: Timestamp,
}

/// How a job ended: a result for programs, and a reason for people.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) result: &'static str,
    pub(super) reason: String,
}

impl End {
    /// It did what it was for.
    pub(super) fn done(reason: String) -> Self {
        let result = "done";
        Self { result, reason }
    }

    /// It could not.
    pub(super) fn failed(fault: &Fault) -> Self {
        Self {
            result: "failed",
            reason: fault.what.clone(),
        }
    }

    /// A deployment; none: it went with its app.
    pub(super) fn of(deployment: Option<DeploymentView>) -> Self {
        let outcome = deployment
            .as_ref()
            .and_then(|deployment| deployment.phase.outcome());
        match (outcome, deployment) {
            (Some(outcome), Some(deployment)) => Self {
                result: outcome.name(),
                reason: deployment.reason,
            },
            _ => Self {
                result: "cancelled",
                reason: String::new(),
            },
        }
    }
}

impl From<&DeploymentView> for Shape {
    fn from(deployment: &DeploymentView) -> Self {
        Self {
            kind: DEPLOYMENT,
            app: deployment.app.to_string(),
            release: deployment.release.to_string(),
            progress: deployment.phase.name(),
            created_at: deployment.created_at,
        }
    }
}

/// The object.
pub(super) struct Job {
    shape: Shown<Shape>,
    engine: Engine,
    idle: Idle,
}

/// The path of a job's object; an id consists of letters, digits and `_`.
pub(super) fn path(id: &str) -> String {
    format!("{ROOT}/job/{id}")
}

impl Job {
    pub(super) fn new(shape: Shape, engine: Engine, idle: Idle) -> Self {
        let shape = Shown::new(shape);
        Self {
            shape,
            engine,
            idle,
        }
    }

    pub(super) fn set(&self, shape: Shape) {
        self.shape.set(shape);
    }
}

#[interface(name = "sh.temps.Deploy1.Job", introspection_docs = false)]
impl Job {
    async fn cancel(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Failure> {
        let _busy = self.idle.busy();
        let Shape {
            kind, app, release, ..
        } = self.shape.get(Shape::clone);
        let details = [("app", app.as_str()), ("release", release.as_str())];
        let caller = authorise(connection, &header, "sh.temps.deploy.cancel", &details).await?;
        if kind != DEPLOYMENT {
            return Err(Fault::invalid(format!("a {kind} cannot be cancelled")).into());
        }
        let (name, release) = (app_name(&app)?, release_id(&release)?);
        let engine = self.engine.clone();
        let Caller { uid, actor } = caller;
        let cancel = async move { engine.cancel(name, release, actor, uid).await };
        self.engine.carry_out(cancel).await?;
        Ok(())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> &'static str {
        self.shape.get(|shape| shape.kind)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn app(&self) -> String {
        self.shape.get(|shape| shape.app.clone())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn release(&self) -> String {
        self.shape.get(|shape| shape.release.clone())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn created_at(&self) -> u64 {
        self.shape.get(|shape| micros(shape.created_at))
    }

    #[zbus(property)]
    fn state(&self) -> &'static str {
        self.shape.get(|shape| {
            if shape.progress == Phase::Queued.name() {
                "waiting"
            } else {
                "running"
            }
        })
    }

    #[zbus(property)]
    fn progress(&self) -> &'static str {
        self.shape.get(|shape| shape.progress)
    }
}
