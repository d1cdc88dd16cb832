//! The accept loop of a tarpc service on a Unix socket.
//!
//! ```text
//! accept ─> SO_PEERCRED ─> role? ── no ──> stranger: one answer "denied", closed
//!    │                      yes
//!    │                       v
//!    │                  connection ── request ──> handler (a task; holds a BusyGuard) ─> answer
//! shutdown: accepting stops at once; each connection ends when it has nothing in flight, all of
//!           them at the latest when the drain time is over
//! ```
//!
//! Invariants:
//! - nothing is decoded before the peer is known, and no handler runs for a stranger;
//! - connections, requests per connection, frame size and every wait are bounded;
//! - a request holds a [`BusyGuard`](crate::idle::BusyGuard), an open connection does not;
//! - a handler is dropped when its client hangs up or its deadline passes, so what must not stop
//!   half-way belongs to a task of the engine, not to the handler;
//! - the listener is only dropped, never shut down: its queue belongs to the service manager.

mod call;
mod connection;
mod stranger;

use crate::authz::{Peer, Policy, Role};
use crate::idle::Idle;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;
use stranger::Strangers;
use tarpc::context::Context;
use tarpc::{RequestName, ServerError};
use temps_ipc::Fault;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after accept failed for want of descriptors or memory; until then the queue waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Bounds of a service.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections of authorised callers; more wait in the queue of the socket.
    pub connections: usize,
    /// Requests in flight on one connection; one more is answered with an error.
    pub requests: usize,
    /// A connection without a request for this long is closed; clients connect again.
    pub quiet: Duration,
    /// How long requests in flight may take after the shutdown; less than `TimeoutStopSec=`.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Every command and daemon has one; leaves most of the usual 1024 descriptors free.
            connections: 256,
            // Twice what our own clients keep in flight.
            requests: 128,
            quiet: Duration::from_secs(600),
            drain: Duration::from_secs(20),
        }
    }
}

/// Serves until `shutdown`, then drains; returns when the last connection has ended.
///
/// `make` is called once per connection and gives the handler of its requests. With a service made by
/// `#[tarpc::service]`:
///
/// ```ignore
/// use tarpc::server::Serve;
/// serve_rpc(listener, policy, Limits::default(), idle, shutdown, move |peer, role| {
///     let service = Rpc::new(engine.clone(), peer, role).serve();
///     move |context, request| service.clone().serve(context, request)
/// })
/// .await?;
/// ```
///
/// # Errors
/// Only if the listener itself is unusable.
pub async fn serve_rpc<Req, Resp, Make, Handler, Answer>(
    listener: UnixListener,
    policy: Policy,
    limits: Limits,
    idle: Idle,
    shutdown: CancellationToken,
    make: Make,
) -> io::Result<()>
where
    Req: DeserializeOwned + RequestName + Send + 'static,
    Resp: Serialize + Send + 'static,
    Make: Fn(Peer, Role) -> Handler + Send + Sync + 'static,
    Handler: Fn(Context, Req) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Resp, ServerError>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let door = Arc::new(Door {
        policy,
        limits,
        idle,
        shutdown,
        cut: CancellationToken::new(),
        strangers: Strangers::default(),
        make,
    });
    let slots = Arc::new(Semaphore::new(limits.connections));
    let open = TaskTracker::new();
    while let Some((stream, slot)) = door.accept(&listener, &slots).await? {
        let door = Arc::clone(&door);
        open.spawn(async move { door.admit(stream, slot).await });
    }
    drop(listener);
    open.close();
    if tokio::time::timeout(limits.drain, open.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = open.len(),
            "the drain time is over, connections are cut"
        );
        door.cut.cancel();
        open.wait().await;
    }
    Ok(())
}

/// What all connections of a service share.
struct Door<Make> {
    policy: Policy,
    limits: Limits,
    idle: Idle,
    shutdown: CancellationToken,
    /// The end of the drain time.
    cut: CancellationToken,
    strangers: Strangers,
    make: Make,
}

impl<Make> Door<Make> {
    /// The next connection, or `None` at the shutdown.
    async fn accept(
        &self,
        listener: &tokio::net::UnixListener,
        slots: &Arc<Semaphore>,
    ) -> io::Result<Option<(UnixStream, OwnedSemaphorePermit)>> {
        let wait = Arc::clone(slots).acquire_owned();
        let Some(Ok(slot)) = self.shutdown.run_until_cancelled(wait).await else {
            return Ok(None);
        };
        let mut reported = false;
        loop {
            let error = match self.shutdown.run_until_cancelled(listener.accept()).await {
                None => return Ok(None),
                Some(Ok((stream, _))) => return Ok(Some((stream, slot))),
                Some(Err(error)) => error,
            };
            match nix::Error::try_from(error) {
                // The caller gave up in the queue.
                Ok(nix::Error::ECONNABORTED | nix::Error::EINTR) => {}
                Ok(error @ (nix::Error::EBADF | nix::Error::EINVAL | nix::Error::ENOTSOCK)) => {
                    return Err(error.into());
                }
                Ok(error) => {
                    if !std::mem::replace(&mut reported, true) {
                        tracing::warn!(%error, "connections cannot be accepted at the moment");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn admit<Req, Resp, Handler, Answer>(
        self: Arc<Self>,
        stream: UnixStream,
        slot: OwnedSemaphorePermit,
    ) where
        Req: DeserializeOwned + RequestName + Send + 'static,
        Resp: Serialize + Send + 'static,
        Make: Fn(Peer, Role) -> Handler + Send + Sync + 'static,
        Handler: Fn(Context, Req) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<Resp, ServerError>> + Send + 'static,
    {
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::debug!(%error, "a connection ended before it began");
                return;
            }
        };
        match self.role(peer).await {
            Ok(role) => {
                // A daemon that has just been called is not idle, even before the first request.
                self.idle.touch();
                let handler = Arc::new((self.make)(peer, role));
                let ended = connection::run(
                    stream,
                    self.limits,
                    self.idle.clone(),
                    &self.shutdown,
                    handler,
                );
                if self.cut.run_until_cancelled(ended).await.is_none() {
                    tracing::warn!(%peer, "a connection was cut with requests in flight");
                }
            }
            Err(fault) => {
                // Strangers have few places of their own and cannot keep operators out.
                drop(slot);
                let answer = self.strangers.refuse(stream, peer, fault);
                self.shutdown.run_until_cancelled(answer).await;
            }
        }
    }

    /// The role of `peer`; on a thread of its own, since the user database may be a network away.
    async fn role(self: &Arc<Self>, peer: Peer) -> Result<Role, Fault>
    where
        Make: Send + Sync + 'static,
    {
        let door = Arc::clone(self);
        match tokio::task::spawn_blocking(move || door.policy.role(&peer)).await {
            Ok(role) => role,
            Err(error) => Err(Fault::internal(format!(
                "the caller cannot be checked: {error}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
