//! What the daemon is made of, put together.

use super::start::{Failed, Start};
use crate::config as settings;
use crate::engine::Engine;
use crate::http::app::App;
use crate::http::front::Front;
use crate::http::live::Live;
use crate::spool::Spool;
use crate::status::Status;
use crate::store::Store;
use crate::tls;
use crate::tls::authority::Authority;
use crate::tls::certificates::Certificates;
use arc_swap::ArcSwap;
use std::path::Path;
use std::sync::Arc;
use temps_ipc::types::Timestamp;
use temps_unit::dirs;
use temps_unit::exit::Exit;

/// Everything that is shared.
pub(super) struct Parts {
    pub(super) engine: Arc<Engine>,
    pub(super) live: Arc<Live>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) front: Arc<Front>,
    pub(super) status: Arc<Status>,
    pub(super) timeouts: Arc<ArcSwap<settings::Timeouts>>,
    pub(super) header_bytes: Arc<ArcSwap<usize>>,
}

/// Puts them together; what is stored is served from now on.
pub(super) async fn parts(start: &Start, spool: Spool) -> Result<Parts, Failed> {
    let settings = &start.settings;
    let engine = Arc::new(Engine::new(Store::new(&start.state)));
    let live = Arc::new(Live::default());
    let certificates = {
        let (engine, state) = (Arc::clone(&engine), start.state.clone());
        let open = if start.is_helper() { borrow } else { open };
        let opened = tokio::task::spawn_blocking(move || open(engine, &state)).await;
        Arc::new(opened.map_err(|error| (Exit::Internal, error.to_string()))??)
    };
    let tls = tls::server_config(Arc::clone(&certificates))
        .map_err(|error| (Exit::Internal, error.to_string()))?;
    let timeouts = Arc::new(ArcSwap::from_pointee(settings.timeouts));
    let header_bytes = Arc::new(ArcSwap::from_pointee(settings.limits.header_bytes));
    let app = App {
        engine: Arc::clone(&engine),
        live: Arc::clone(&live),
        spool: spool.clone(),
        timeouts: Arc::clone(&timeouts),
    };
    let front = Front::new(
        app,
        Arc::clone(&certificates),
        tls,
        &settings.limits,
        Arc::clone(&header_bytes),
        settings.threads(),
    );
    let status = Status {
        engine: Arc::clone(&engine),
        live: Arc::clone(&live),
        certificates: Arc::clone(&certificates),
        spool,
        problem: Arc::clone(&start.problem),
        started_at: Timestamp::now(),
        http: start
            .http
            .first()
            .and_then(|listener| listener.local_addr().ok()),
        https: start
            .https
            .first()
            .and_then(|listener| listener.local_addr().ok()),
    };
    Ok(Parts {
        engine,
        live,
        certificates,
        front: Arc::new(front),
        status: Arc::new(status),
        timeouts,
        header_bytes,
    })
}

/// What is read from the state directory at the start. Blocks on the disk.
fn open(engine: Arc<Engine>, state: &Path) -> Result<Certificates, Failed> {
    let directory = state.join("certificates");
    dirs::create_private(&directory).map_err(|error| (Exit::Config, error.to_string()))?;
    engine.restore();
    // So that a helper finds it; a full disk must not keep the proxy from serving.
    if let Err(error) = Store::new(state).try_turn() {
        tracing::warn!(%error, "no helper can serve at the next restart");
    }
    let authority = Authority::open(state).map_err(|error| (Exit::Config, error.to_string()))?;
    Ok(Certificates::new(engine, authority, directory))
}

/// The same as the main process has left it: nothing is written. Blocks on the disk.
fn borrow(engine: Arc<Engine>, state: &Path) -> Result<Certificates, Failed> {
    engine.borrow();
    let authority =
        Authority::existing(state).map_err(|error| (Exit::Config, error.to_string()))?;
    let directory = state.join("certificates");
    Ok(Certificates::new(engine, authority, directory).in_memory())
}
