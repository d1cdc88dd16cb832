//! A client that survives the daemon: it connects when first used, says hello, connects again when
//! the daemon went away (restarted, idle exit, killed), and repeats only what may be repeated.

use crate::rpc::{DeploydClient, Hello, ProxyClient};
use crate::wire::{refusal, transport};
use crate::{Code, Fault};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tarpc::client::{Config, RpcError};
use tarpc::context::{self, Context};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// First pause before connecting again; doubled every time, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// Longest pause before connecting again.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long the daemon may take to accept and say hello. Socket activation of a daemon with much
/// state stays below this.
const HELLO_TIME: Duration = Duration::from_secs(10);

/// Requests that a connection may have in flight before the caller waits.
const IN_FLIGHT: usize = 64;

/// Whether a call may be sent again when the connection broke before its answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Sending it twice is the same as once.
    Idempotent,
    /// It may have been carried out: never send it again.
    Never,
}

/// A generated tarpc client: how to make one and say hello.
pub trait Client: Clone + Send + Sync + 'static {
    /// The daemon's name, for messages.
    const DAEMON: &'static str;

    /// Starts the client's dispatch on `stream`.
    fn start(stream: UnixStream) -> Self;

    /// The daemon's `hello`.
    fn greet(
        &self,
        context: Context,
    ) -> impl Future<Output = Result<Result<Hello, Fault>, RpcError>> + Send;
}

fn config() -> Config {
    let mut config = Config::default();
    config.max_in_flight_requests = IN_FLIGHT;
    config.pending_request_buffer = IN_FLIGHT;
    config
}

macro_rules! client {
    ($client:ident, $daemon:literal) => {
        impl Client for $client {
            const DAEMON: &'static str = $daemon;

            fn start(stream: UnixStream) -> Self {
                // The dispatch task ends with the connection; its end shows in every call.
                $client::new(config(), transport(stream)).spawn()
            }

            async fn greet(&self, context: Context) -> Result<Result<Hello, Fault>, RpcError> {
                self.hello(context, Hello::ours()).await
            }
        }
    };
}

client!(DeploydClient, "temps-deployd");
client!(ProxyClient, "temps-proxy");

/// A daemon at the other end of a Unix socket.
#[derive(Debug)]
pub struct Link<C> {
    path: PathBuf,
    current: Mutex<Option<(u64, C)>>,
}

impl<C: Client> Link<C> {
    /// A link to the daemon that listens at `path`. Nothing is connected yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            current: Mutex::new(None),
        }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Calls the daemon and waits at most `patience` for its answer, connecting (again) as needed.
    ///
    /// A connection that cannot be made is tried again until `patience` is over, whatever the call:
    /// nothing was sent. One that breaks during the call is tried again only if it is
    /// [`Repeat::Idempotent`].
    ///
    /// # Errors
    /// The daemon's own fault; [`Code::Unavailable`] if it does not answer in time;
    /// [`Code::Denied`] if the socket may not be opened.
    pub async fn call<T, F, Fut>(
        &self,
        repeat: Repeat,
        patience: Duration,
        mut request: F,
    ) -> Result<T, Fault>
    where
        F: FnMut(C, Context) -> Fut,
        Fut: Future<Output = Result<Result<T, Fault>, RpcError>>,
    {
        let deadline = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.connected(repeat, deadline).await {
                Ok((number, client)) => {
                    let mut context = context::current();
                    context.deadline = deadline;
                    match request(client, context).await {
                        Ok(answer) => return answer,
                        Err(RpcError::DeadlineExceeded) => return Err(self.silent(patience)),
                        Err(error) => {
                            self.forget(number).await;
                            if repeat == Repeat::Never {
                                return Err(self.broken(&error));
                            }
                            self.broken(&error)
                        }
                    }
                }
                Err(Connect::Final(fault)) => return Err(fault),
                Err(Connect::Again(fault)) => fault,
            };
            let jittered = pause.mul_f64(0.5 + jitter());
            if Instant::now() + jittered >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(jittered).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The current connection, or a new one that has said hello.
    ///
    /// Before a request that must not be repeated, a connection that was used before says hello
    /// again: the daemon may have ended while it was idle, and then nothing was sent.
    async fn connected(&self, repeat: Repeat, deadline: Instant) -> Result<(u64, C), Connect> {
        // Held over the connect, so that callers share one connection instead of racing.
        let mut current = self.current.lock().await;
        let limit = HELLO_TIME.min(deadline.saturating_duration_since(Instant::now()));
        if let Some((number, client)) = current.as_ref() {
            let alive = match repeat {
                Repeat::Idempotent => true,
                Repeat::Never => {
                    let mut context = context::current();
                    context.deadline = Instant::now() + limit;
                    matches!(client.greet(context).await, Ok(Ok(_)))
                }
            };
            if alive {
                return Ok((*number, client.clone()));
            }
        }
        *current = None;
        let greeted = tokio::time::timeout(limit, self.greet(limit)).await;
        let client = greeted.map_err(|_| Connect::Again(self.silent(limit)))??;
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        *current = Some((number, client.clone()));
        Ok((number, client))
    }

    async fn greet(&self, limit: Duration) -> Result<C, Connect> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|error| self.refused(&error))?;
        let client = C::start(stream);
        let mut context = context::current();
        context.deadline = Instant::now() + limit;
        match client.greet(context).await {
            Ok(Ok(hello)) => hello.check().map(|()| client).map_err(Connect::Final),
            Ok(Err(fault)) => Err(Connect::Final(fault)),
            Err(RpcError::Server(error)) => Err(match refusal::decode(&error) {
                Some(fault) => Connect::Final(fault),
                None => Connect::Again(self.broken(&RpcError::Server(error))),
            }),
            // Accepted and closed: the daemon is on its way out, the next one will answer.
            Err(error) => Err(Connect::Again(self.broken(&error))),
        }
    }

    async fn forget(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current
            .as_ref()
            .is_some_and(|(current, _)| *current == number)
        {
            *current = None;
        }
    }

    fn refused(&self, error: &io::Error) -> Connect {
        let what = format!(
            "cannot reach {} at {}: {error}",
            C::DAEMON,
            self.path.display()
        );
        match error.kind() {
            io::ErrorKind::PermissionDenied => Connect::Final(
                Fault::new(Code::Denied, what)
                    .hint("run it as root, or ask to be added to the group temps-admin"),
            ),
            io::ErrorKind::NotFound => Connect::Final(Fault::unavailable(what).hint(
                "start the platform with `temps up` or `systemctl start temps.target`, or choose an instance with --runtime-dir",
            )),
            _ => Connect::Again(Fault::unavailable(what).hint(
                "is it running? see `temps status`, or start the platform with `temps up`",
            )),
        }
    }

    fn silent(&self, patience: Duration) -> Fault {
        Fault::unavailable(format!(
            "{} did not answer within {patience:.1?}",
            C::DAEMON
        ))
        .hint("see its log; `temps doctor` says what is wrong")
    }

    fn broken(&self, error: &RpcError) -> Fault {
        Fault::unavailable(format!("the connection to {} broke: {error}", C::DAEMON))
            .hint("see its log; what was asked may or may not have been done")
    }
}

/// Numbers connections, so that a stale failure does not drop a newer connection.
static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Why there is no connection.
enum Connect {
    /// Another try may do.
    Again(Fault),
    /// No use trying again.
    Final(Fault),
}

impl From<Fault> for Connect {
    fn from(fault: Fault) -> Self {
        Connect::Final(fault)
    }
}

/// A number from 0 up to 1, to keep clients from coming back in step.
fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |noise| f64::from(noise) / f64::from(u32::MAX))
}
