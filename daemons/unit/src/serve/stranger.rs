//! Callers without a role: told so once, and logged rarely.

use super::call::{Call, Rest};
use crate::authz::Peer;
use futures::{SinkExt, StreamExt};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tarpc::Response;
use temps_ipc::Fault;
use temps_ipc::wire::{refusal, transport};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Strangers that are answered at one time; the rest is closed unheard.
const PLACES: usize = 8;

/// How long a stranger may take to ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// At most one line in this time, with the number of those not shown: a stranger does not fill the
/// journal.
const LOG_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Strangers {
    places: Semaphore,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    last: Option<Instant>,
    hidden: u64,
}

impl Default for Strangers {
    fn default() -> Self {
        Self {
            places: Semaphore::new(PLACES),
            log: Mutex::default(),
        }
    }
}

impl Strangers {
    /// Answers the first request of `stream` with `fault` and closes it.
    ///
    /// The type of a real answer depends on the method, so it is a [`refusal`].
    pub(super) async fn refuse(&self, stream: UnixStream, peer: Peer, fault: Fault) {
        self.log(peer, &fault);
        if let Ok(_place) = self.places.try_acquire() {
            // Whether it arrives is the stranger's concern.
            let _ = tokio::time::timeout(PATIENCE, answer(stream, &fault)).await;
        }
    }

    fn log(&self, peer: Peer, fault: &Fault) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.last.is_some_and(|last| last.elapsed() < LOG_EVERY) {
            log.hidden += 1;
            return;
        }
        let hidden = std::mem::take(&mut log.hidden);
        log.last = Some(Instant::now());
        drop(log);
        tracing::warn!(%peer, hidden, "a caller was refused: {}", fault.what);
    }
}

async fn answer(stream: UnixStream, fault: &Fault) {
    // Nothing of the request itself is decoded.
    let mut transport = transport::<Call<Rest>, Response<()>>(stream);
    while let Some(Ok(call)) = transport.next().await {
        if let Call::Request { id, .. } = call {
            let response = Response {
                request_id: id,
                message: Err(refusal::encode(fault)),
            };
            let _ = transport.send(response).await;
            return;
        }
    }
}
