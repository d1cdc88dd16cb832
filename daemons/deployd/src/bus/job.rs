//! `sh.temps.Deploy1.Job`: something that takes its time and is under way. When it has ended its
//! object is gone, and `JobRemoved` has said how it ended.

use super::ROOT;
use super::app::micros;
use std::sync::{Mutex, PoisonError};
use temps_ipc::Fault;
use temps_ipc::types::{DeploymentView, Phase, Timestamp};
use zbus::interface;

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
            kind: "deployment",
            app: deployment.app.to_string(),
            release: deployment.release.to_string(),
            progress: deployment.phase.name(),
            created_at: deployment.created_at,
        }
    }
}

/// The object.
pub(super) struct Job {
    shape: Mutex<Shape>,
}

/// The path of a job's object; an id consists of letters, digits and `_`.
pub(super) fn path(id: &str) -> String {
    format!("{ROOT}/job/{id}")
}

impl Job {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape: Mutex::new(shape),
        }
    }

    pub(super) fn set(&self, shape: Shape) {
        *self.shape.lock().unwrap_or_else(PoisonError::into_inner) = shape;
    }

    fn get<T>(&self, part: impl FnOnce(&Shape) -> T) -> T {
        part(&self.shape.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[interface(name = "sh.temps.Deploy1.Job", introspection_docs = false)]
impl Job {
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> &'static str {
        self.get(|shape| shape.kind)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn app(&self) -> String {
        self.get(|shape| shape.app.clone())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn release(&self) -> String {
        self.get(|shape| shape.release.clone())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn created_at(&self) -> u64 {
        self.get(|shape| micros(shape.created_at))
    }

    #[zbus(property)]
    fn state(&self) -> &'static str {
        self.get(|shape| {
            if shape.progress == Phase::Queued.name() {
                "waiting"
            } else {
                "running"
            }
        })
    }

    #[zbus(property)]
    fn progress(&self) -> &'static str {
        self.get(|shape| shape.progress)
    }
}
