//! The upload socket: archives arrive here and wait for the deployment that takes them.
//!
//! Bounds: tickets that are out, uploads at once, bytes of each, and time; what is not taken within
//! ten minutes is removed. The format is in [`temps_ipc::wire::upload`].

use crate::engine::Engine;
use crate::engine::step::storage;
use crate::room::Room;
use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use temps_ipc::wire::upload::{Receipt, UploadTicket, receive_chunk, receive_ticket, send_answer};
use temps_ipc::{Code, Fault};
use temps_unit::authz::{Peer, Policy, Role};
use temps_unit::idle::Idle;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tickets that may be out at a time.
const MAX_TICKETS: usize = 64;

/// Uploads at a time.
const MAX_UPLOADS: usize = 8;

/// How long a ticket is good, and a finished upload kept.
const TICKET_TIME: Duration = crate::engine::retention::UPLOAD_AGE;

/// How long the client may pause.
const QUIET: Duration = Duration::from_secs(30);

/// Free space that an upload leaves, in bytes: the database needs to go on.
const RESERVE: u64 = 256 * 1024 * 1024;

/// Pause after accept failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The tickets that are out.
#[derive(Clone)]
pub struct Uploads {
    directory: PathBuf,
    limit: u64,
    tickets: Arc<Mutex<HashMap<UploadTicket, Instant>>>,
}

impl Uploads {
    /// Uploads into `directory`, of at most `limit` bytes each.
    pub fn new(directory: PathBuf, limit: u64) -> Self {
        Self {
            directory,
            limit,
            tickets: Arc::default(),
        }
    }

    /// A new ticket.
    ///
    /// # Errors
    /// `Busy` if too many are out; `NoSpace` if the disk is nearly full.
    pub fn ticket(&self) -> Result<UploadTicket, Fault> {
        room(&self.directory)?;
        let mut tickets = self
            .tickets
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tickets.retain(|_, since| since.elapsed() < TICKET_TIME);
        if tickets.len() >= MAX_TICKETS {
            return Err(Fault::new(Code::Busy, "too many uploads are open")
                .hint("try again in some minutes"));
        }
        let ticket = UploadTicket::fresh();
        tickets.insert(ticket.clone(), Instant::now());
        Ok(ticket)
    }

    fn redeem(&self, ticket: &UploadTicket) -> bool {
        let mut tickets = self
            .tickets
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tickets
            .remove(ticket)
            .is_some_and(|since| since.elapsed() < TICKET_TIME)
    }

    /// Serves the socket until `shutdown`.
    ///
    /// # Errors
    /// Only if the listener itself is unusable.
    pub async fn serve(
        self,
        listener: UnixListener,
        policy: Policy,
        idle: Idle,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let slots = Arc::new(Semaphore::new(MAX_UPLOADS));
        let open = TaskTracker::new();
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                break;
            };
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "an upload cannot be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                () = shutdown.cancelled() => break,
            };
            let (uploads, policy, busy) = (self.clone(), policy.clone(), idle.busy());
            let stop = shutdown.clone();
            open.spawn(async move {
                tokio::select! {
                    () = uploads.receive(stream, policy) => {}
                    // The client starts over; nothing was promised yet.
                    () = stop.cancelled() => {}
                }
                drop((slot, busy));
            });
        }
        open.close();
        open.wait().await;
        Ok(())
    }

    async fn receive(&self, mut stream: UnixStream, policy: Policy) {
        let answer = self.received(&mut stream, policy).await;
        if let Err(fault) = &answer {
            tracing::debug!(%fault, "an upload was refused");
        }
        // A client that is gone needs no answer.
        let _ = tokio::time::timeout(QUIET, send_answer(&mut stream, &answer)).await;
    }

    async fn received(&self, stream: &mut UnixStream, policy: Policy) -> Result<Receipt, Fault> {
        let peer = Peer::of(stream)
            .map_err(|error| Fault::internal(format!("cannot tell who uploads: {error}")))?;
        let role = tokio::task::spawn_blocking(move || policy.role(&peer))
            .await
            .map_err(|_| Fault::internal("cannot tell who uploads"))??;
        if role != Role::Operator {
            return Err(Fault::new(Code::Denied, format!("{role} may not upload")));
        }
        let ticket = in_time(receive_ticket(stream)).await?;
        if !self.redeem(&ticket) {
            return Err(Fault::not_found("that upload ticket is unknown or too old")
                .hint("run the command again"));
        }
        let path = self.directory.join(ticket.as_str());
        let partial = self.directory.join(format!("{}.part", ticket.as_str()));
        let received = self.store(stream, &partial).await;
        match received {
            Ok(receipt) => {
                tokio::fs::rename(&partial, &path)
                    .await
                    .map_err(|error| storage("the upload cannot be kept", &error))?;
                Ok(receipt)
            }
            Err(fault) => {
                let _ = tokio::fs::remove_file(&partial).await;
                Err(fault)
            }
        }
    }

    async fn store(&self, stream: &mut UnixStream, path: &Path) -> Result<Receipt, Fault> {
        let fail = |error: io::Error| storage("the upload cannot be stored", &error);
        let mut file = tokio::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .await
            .map_err(fail)?;
        let mut bytes = 0_u64;
        let mut checked = 0_u64;
        loop {
            let chunk = in_time(receive_chunk(stream)).await?;
            if chunk.is_empty() {
                break;
            }
            bytes += chunk.len() as u64;
            if bytes > self.limit {
                return Err(Fault::new(
                    Code::NoSpace,
                    format!("the upload is larger than {} MiB", self.limit >> 20),
                )
                .hint("leave files out with .tempsignore, or raise upload-limit in deployd.toml"));
            }
            // Every 16 MiB, so that a large upload cannot fill the disk between two looks.
            if bytes - checked >= 16 << 20 {
                checked = bytes;
                room(&self.directory)?;
            }
            file.write_all(&chunk).await.map_err(fail)?;
        }
        file.flush().await.map_err(fail)?;
        file.sync_all().await.map_err(fail)?;
        Ok(Receipt { bytes })
    }
}

/// Waits for the client, not for ever.
async fn in_time<T>(received: impl Future<Output = io::Result<T>>) -> Result<T, Fault> {
    match tokio::time::timeout(QUIET, received).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Fault::invalid(format!("the upload broke off: {error}"))),
        Err(_) => Err(Fault::invalid("the upload stalled")),
    }
}

/// Refuses when the disk is nearly full.
fn room(directory: &Path) -> Result<(), Fault> {
    let Some(room) = Room::of(directory) else {
        return Ok(());
    };
    let what = if room.bytes < RESERVE {
        format!("only {} MiB are free", room.bytes >> 20)
    } else if let Some((free, _)) = room.few_files() {
        format!("only {free} more files can be made")
    } else {
        return Ok(());
    };
    Err(
        Fault::new(Code::NoSpace, format!("{what} where Temps keeps its state"))
            .hint("free some space: at least 256 MiB and a twentieth of all files must stay free"),
    )
}

impl Engine {
    /// The uploads of this installation.
    pub fn uploads(&self) -> Uploads {
        Uploads::new(self.paths().uploads(), self.settings().upload_limit << 20)
    }
}
