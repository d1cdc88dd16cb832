//! Everything that accepts: clients, and callers of the control socket or of the helper.

use super::parts::Parts;
use super::start::{Duty, Start};
use crate::config::Settings;
use crate::handover::client::Everybody;
use crate::handover::server::Desk;
use crate::http::front::Scheme;
use crate::rpc::Rpc;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use tarpc::server::Serve as _;
use temps_ipc::rpc::Proxy as _;
use temps_unit::authz::Policy;
use temps_unit::idle::Idle;
use temps_unit::serve::{Limits as RpcLimits, serve_rpc};
use temps_unit::task::Supervisor;
use temps_unit::watchdog::Watchdog;
use tokio_util::sync::CancellationToken;

/// When what ends.
pub(super) struct Ends {
    /// Nothing is accepted any more.
    pub(super) closed: CancellationToken,
    /// The drain has ended.
    pub(super) over: CancellationToken,
}

/// Opens them all; the desk, if it is the helper.
pub(super) fn open(
    start: Start,
    parts: &Parts,
    supervisor: &Supervisor,
    watchdog: &Watchdog,
    ends: &Ends,
) -> io::Result<Option<Arc<Desk>>> {
    let (helper, settings) = (start.helper(), start.settings);
    let plain = start.http.into_iter().map(|one| (one, Scheme::Http));
    let secured = start.https.into_iter().map(|one| (one, Scheme::Https));
    for (listener, scheme) in plain.chain(secured) {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let name = if scheme == Scheme::Http {
            "http"
        } else {
            "https"
        };
        let alive = watchdog.register(name).ticker();
        let front = Arc::clone(&parts.front);
        let task = front.accept(listener, scheme, alive, ends.closed.clone());
        supervisor.critical(name, task);
    }
    match start.duty {
        Duty::Main { control, .. } => {
            let everybody = Everybody::new(Arc::clone(&parts.engine), helper);
            let task = serve_control(control, parts, everybody, &settings, &ends.closed);
            supervisor.critical("control", task);
            Ok(None)
        }
        Duty::Helper {
            listener, caller, ..
        } => {
            let desk = Arc::new(Desk::new(Arc::clone(&parts.engine)));
            let alive = watchdog.register("handover").ticker();
            // It answers for its requests as long as there are any.
            let task = Arc::clone(&desk).answer(listener, Some(caller), alive, ends.over.clone());
            supervisor.critical("handover", task);
            Ok(Some(desk))
        }
    }
}

fn serve_control(
    control: UnixListener,
    parts: &Parts,
    everybody: Everybody,
    settings: &Settings,
    closed: &CancellationToken,
) -> impl Future<Output = io::Result<()>> + Send + use<> {
    let policy = if settings.standalone {
        Policy::only_uid(nix::unistd::geteuid().as_raw())
    } else {
        Policy::system()
    };
    let limits = RpcLimits {
        drain: settings.drain_deadline,
        ..RpcLimits::default()
    };
    let (engine, status) = (Arc::clone(&parts.engine), Arc::clone(&parts.status));
    let probes = settings.probes;
    let closed = closed.clone();
    serve_rpc(
        control,
        policy,
        limits,
        Idle::never(),
        closed,
        move |_, role| {
            let service = Rpc::new(
                Arc::clone(&engine),
                everybody.clone(),
                Arc::clone(&status),
                probes,
                role,
            )
            .serve();
            move |context, request| service.clone().serve(context, request)
        },
    )
}
