//! The proxy on the system bus: how it is, for administrators and their tools. One object,
//! `/sh/temps/Proxy1`; a thin adapter over the same parts as [`crate::rpc`], which has the work.
//!
//! Every local user may read and hear all of this, so nothing of a request is here but their number.

use crate::daemon::reload::Reload;
use crate::engine::news::News;
use crate::status::Status;
use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};
use temps_ipc::types::ProxyStatus;
use temps_ipc::{Code, Fault};
use temps_unit::bus::authority::authorise;
use temps_unit::bus::failure::Failure;
use temps_unit::bus::{Bus, Place, Service, update};
use temps_unit::idle::Idle;
use temps_unit::task::Supervisor;
use tokio::sync::broadcast::error::RecvError;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, interface};

/// The name on the bus.
pub const NAME: &str = "sh.temps.Proxy1";

/// The object.
pub const ROOT: &str = "/sh/temps/Proxy1";

/// Brings the proxy to the bus, now or when there is one.
pub fn start(status: &Arc<Status>, reload: Reload, place: Place, supervisor: &Supervisor) -> Bus {
    let service = ProxyBus {
        status: Arc::clone(status),
        reload,
    };
    Bus::start(Arc::new(service), place, Idle::never(), supervisor)
}

struct ProxyBus {
    status: Arc<Status>,
    reload: Reload,
}

#[async_trait]
impl Service for ProxyBus {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn register(&self, connection: &Connection) -> zbus::Result<()> {
        let manager = Manager {
            status: Arc::clone(&self.status),
            reload: self.reload.clone(),
            shown: Mutex::new(self.status.now()),
        };
        connection.object_server().at(ROOT, manager).await?;
        Ok(())
    }

    async fn follow(&self, connection: &Connection) -> zbus::Error {
        match self.told(connection).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }
}

impl ProxyBus {
    /// Keeps the properties true and emits the signals.
    async fn told(&self, connection: &Connection) -> zbus::Result<std::convert::Infallible> {
        let root = SignalEmitter::new(connection, ROOT)?;
        let mut generations = self.status.engine.generations();
        let mut news = self.status.engine.news();
        // What changed between the registration and now.
        self.refresh(connection).await?;
        generations.mark_unchanged();
        loop {
            tokio::select! {
                // The engine lives as long as we hold it, so neither channel is ever closed.
                _ = generations.changed() => {
                    generations.mark_unchanged();
                    self.refresh(connection).await?;
                    let table = self.status.engine.table();
                    let routes = u32::try_from(table.snapshot().routes.len()).unwrap_or(u32::MAX);
                    Manager::snapshot_applied(&root, table.generation(), routes).await?;
                }
                one = news.recv() => {
                    self.refresh(connection).await?;
                    match one {
                        Ok(News::Failed { target, why }) => {
                            Manager::target_failed(&root, target.as_str(), &why).await?;
                        }
                        Ok(News::Recovered { target }) => {
                            Manager::target_recovered(&root, target.as_str()).await?;
                        }
                        Err(RecvError::Lagged(missed)) => {
                            tracing::debug!(missed, "the bus was too slow for some news");
                        }
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            }
        }
    }

    async fn refresh(&self, connection: &Connection) -> zbus::Result<()> {
        let now = self.status.now();
        update::<Manager>(
            connection,
            ROOT,
            &["Certificates", "Connections", "Requests"],
            |manager| {
                *manager.shown.lock().unwrap_or_else(PoisonError::into_inner) = now;
            },
        )
        .await
    }
}

/// The object.
struct Manager {
    status: Arc<Status>,
    reload: Reload,
    /// As it was told last: what is read is what the signals said.
    shown: Mutex<ProxyStatus>,
}

impl Manager {
    fn get<T>(&self, part: impl FnOnce(&ProxyStatus) -> T) -> T {
        part(&self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[interface(name = "sh.temps.Proxy1", introspection_docs = false)]
impl Manager {
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn started_at(&self) -> u64 {
        self.get(|status| u64::try_from(status.started_at.0).unwrap_or(0) * 1000)
    }

    #[zbus(property)]
    fn generation(&self) -> u64 {
        self.get(|status| status.generation)
    }

    #[zbus(property)]
    fn routes(&self) -> u32 {
        self.get(|status| status.routes)
    }

    #[zbus(property)]
    fn targets(&self) -> u32 {
        self.get(|status| status.targets)
    }

    #[zbus(property)]
    fn unhealthy_targets(&self) -> u32 {
        self.get(|status| status.unhealthy)
    }

    // Made when somebody first asks for a host.
    #[zbus(property(emits_changed_signal = "false"))]
    fn certificates(&self) -> u32 {
        u32::try_from(self.status.certificates.count()).unwrap_or(u32::MAX)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn connections(&self) -> u32 {
        u32::try_from(self.status.live.connections()).unwrap_or(u32::MAX)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn requests(&self) -> u64 {
        self.status.live.requests()
    }

    async fn reload(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Failure> {
        authorise(connection, &header, "sh.temps.proxy.reload", &[]).await?;
        self.reload.now().await.map_err(|wrong| {
            let what = format!("the configuration is wrong: {wrong}");
            Fault::new(Code::Config, what).hint("mend it; the settings before it stay")
        })?;
        Ok(())
    }

    #[zbus(signal)]
    async fn snapshot_applied(
        emitter: &SignalEmitter<'_>,
        generation: u64,
        routes: u32,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn target_failed(
        emitter: &SignalEmitter<'_>,
        target: &str,
        reason: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn target_recovered(emitter: &SignalEmitter<'_>, target: &str) -> zbus::Result<()>;
}
