//! `sh.temps.Deploy1.App`: one app as it is now. Its object goes with it.

use super::shown::Shown;
use super::{ROOT, job};
use temps_ipc::id::DeploymentId;
use temps_ipc::types::{AppName, AppView, RuntimeKind, Timestamp};
use temps_unit::bus::path_element;
use zbus::{ObjectPath, OwnedObjectPath, interface};

/// What stands for an object that there is not.
const NOTHING: &str = "/";

/// What is shown of an app.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) view: AppView,
    /// The deployment that is under way now.
    pub(super) job: Option<DeploymentId>,
}

/// The object.
pub(super) struct App {
    shape: Shown<Shape>,
}

/// The path of an app's object.
pub(super) fn path(name: &AppName) -> String {
    format!("{ROOT}/app/{}", path_element(name.as_str()))
}

/// Microseconds since 1970, as D-Bus has its times.
pub(super) fn micros(moment: Timestamp) -> u64 {
    u64::try_from(moment.0).unwrap_or(0).saturating_mul(1000)
}

/// Text that is an object path, since it is made of an id or an escaped name.
pub(super) fn object(path: String) -> OwnedObjectPath {
    ObjectPath::try_from(path)
        .map(OwnedObjectPath::from)
        .unwrap_or_else(|_| ObjectPath::from_static_str_unchecked(NOTHING).into())
}

impl App {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape: Shown::new(shape),
        }
    }

    pub(super) fn set(&self, shape: Shape) {
        self.shape.set(shape);
    }
}

#[interface(name = "sh.temps.Deploy1.App", introspection_docs = false)]
impl App {
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.shape.get(|shape| shape.view.name.to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn created_at(&self) -> u64 {
        self.shape.get(|shape| micros(shape.view.created_at))
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn url(&self) -> String {
        self.shape.get(|shape| shape.view.url.clone())
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.shape.get(|shape| shape.view.state.clone())
    }

    #[zbus(property)]
    fn runtime(&self) -> String {
        self.shape.get(|shape| {
            shape
                .view
                .runtime
                .map_or_else(String::new, |kind: RuntimeKind| kind.name().to_owned())
        })
    }

    #[zbus(property)]
    fn release(&self) -> String {
        self.shape.get(|shape| {
            let release = shape.view.release.as_ref();
            release.map_or_else(String::new, ToString::to_string)
        })
    }

    #[zbus(property)]
    fn hosts(&self) -> Vec<String> {
        self.shape
            .get(|shape| shape.view.hosts.iter().map(ToString::to_string).collect())
    }

    #[zbus(property)]
    fn instances(&self) -> Vec<(String, String, String, u64)> {
        self.shape.get(|shape| {
            let instances = shape.view.instances.iter();
            instances
                .map(|instance| {
                    (
                        instance.id.to_string(),
                        instance.release.to_string(),
                        instance.address.clone(),
                        micros(instance.started_at),
                    )
                })
                .collect()
        })
    }

    #[zbus(property)]
    fn job(&self) -> OwnedObjectPath {
        self.shape.get(|shape| match &shape.job {
            Some(id) => object(job::path(id.as_str())),
            None => object(NOTHING.to_owned()),
        })
    }

    #[zbus(property)]
    fn restarts(&self) -> u32 {
        self.shape.get(|shape| shape.view.restarts)
    }

    #[zbus(property)]
    fn restart_at(&self) -> u64 {
        self.shape
            .get(|shape| shape.view.restart_at.map_or(0, micros))
    }
}
