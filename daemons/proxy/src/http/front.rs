//! The doors: accepts connections, makes TLS handshakes, and feeds requests to the HTTP engine.
//!
//! ```text
//! accept ─> (TLS handshake) ─┬─ h2 ───────────────────────────────> engine, until the client leaves
//!                            └─ http/1 ─> wait ─> head ─> engine ─┐      or the drain ends it
//!                                          ^                      │
//!                                          └──── kept alive ──────┘
//! ```
//!
//! Listeners are only dropped, never shut down: their queue belongs to the service manager, and the
//! next process goes on with it. Connections are bounded; more wait in that queue.

use crate::config::{Limits, Timeouts};
use crate::http::app::App;
use crate::http::connection::{Connection, NoHead, Patience};
use crate::http::live::{Live, Stage};
use crate::http::origin::{Activity, Origin};
use crate::http::page;
use crate::http::socket::Socket;
use crate::tls::certificates::Certificates;
use arc_swap::ArcSwap;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use pingora_timeout::fast_timeout::set_fast_timeout_to_tokio_threshold;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use temps_unit::watchdog::Ticker;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::CancellationToken;

/// Pause after accept failed for want of descriptors or memory; until then the queue waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Attempts per request: the first, one for a connection that could not be made, one for a kept
/// connection that the target had just closed.
const MAX_TRIES: usize = 3;

/// What every connection needs.
pub struct Front {
    proxy: Arc<HttpProxy<App>>,
    live: Arc<Live>,
    certificates: Arc<Certificates>,
    tls: Arc<ServerConfig>,
    timeouts: Arc<ArcSwap<Timeouts>>,
    header_bytes: Arc<ArcSwap<usize>>,
    slots: Arc<Semaphore>,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP/1.
    Http,
    /// TLS with HTTP/1 and HTTP/2.
    Https,
}

impl Front {
    /// A front before `app`.
    pub fn new(
        app: App,
        certificates: Arc<Certificates>,
        tls: Arc<ServerConfig>,
        limits: &Limits,
        header_bytes: Arc<ArcSwap<usize>>,
        threads: usize,
    ) -> Self {
        // Its own timers are a thread that wakes up a hundred times a second for ever; those of the
        // runtime cost nothing while nothing happens. Zero: for everything from one second up.
        set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
        let conf = ServerConf {
            threads,
            upstream_keepalive_pool_size: limits.idle_upstreams,
            max_retries: MAX_TRIES,
            ..ServerConf::default()
        };
        let (live, timeouts) = (Arc::clone(&app.live), Arc::clone(&app.timeouts));
        let mut proxy = http_proxy(&Arc::new(conf), app);
        let mut http2 = default_h2_options();
        let header_list = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
        http2.max_header_list_size(header_list);
        proxy.h2_options = Some(http2);
        Self {
            proxy: Arc::new(proxy),
            live,
            certificates,
            tls,
            timeouts,
            header_bytes,
            slots: Arc::new(Semaphore::new(limits.connections)),
        }
    }

    /// Accepts on `listener` until `stop`.
    ///
    /// # Errors
    /// Only if the listener itself is unusable.
    pub async fn accept(
        self: Arc<Self>,
        listener: TcpListener,
        scheme: Scheme,
        mut alive: Ticker,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let local = listener.local_addr()?;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = alive.tick() => continue,
                accepted = self.next(&listener) => accepted,
            };
            match accepted {
                Ok((stream, client, slot)) => {
                    let front = Arc::clone(&self);
                    tokio::spawn(async move {
                        front.serve(stream, client, local, scheme).await;
                        drop(slot);
                    });
                }
                // The client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "connections cannot be accepted for the moment");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A connection and the right to have it. Safe to cancel.
    async fn next(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (stream, client) = listener.accept().await?;
        Ok((stream, client, slot))
    }

    async fn serve(
        &self,
        stream: TcpStream,
        client: SocketAddr,
        local: SocketAddr,
        scheme: Scheme,
    ) {
        let _connected = self.live.connect();
        // Answers are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let activity = Arc::new(Activity::default());
        let connection = match scheme {
            Scheme::Http => {
                let origin = Origin {
                    client,
                    local,
                    tls: None,
                    activity: Arc::clone(&activity),
                };
                Connection::new(Socket::Plain(stream), Arc::new(origin), false)
            }
            Scheme::Https => match self.handshake(stream).await {
                Ok((socket, name, http2)) => {
                    let origin = Origin {
                        client,
                        local,
                        tls: Some(name),
                        activity: Arc::clone(&activity),
                    };
                    Connection::new(socket, Arc::new(origin), http2)
                }
                Err(error) => Err(error),
            },
        };
        match connection {
            Ok(connection) if connection.is_http2() => {
                // pingora's own loop: it says goodbye when the drain begins, and lets streams end.
                // Its clock for idle connections is the one we do without, see `Front::new`.
                let closing = self.live.draining();
                let idle = self.timeouts.load().client_idle;
                tokio::select! {
                    _ = self.proxy.process_new(Box::new(connection), &closing) => {}
                    () = activity.idle(idle) => {}
                }
            }
            Ok(connection) => self.serve_http1(connection).await,
            Err(error) => tracing::debug!(%client, %error, "a connection could not be set up"),
        }
    }

    /// The encrypted socket, the name its certificate is for, and whether HTTP/2 was agreed on.
    async fn handshake(&self, stream: TcpStream) -> io::Result<(Socket, String, bool)> {
        let limit = self.timeouts.load().handshake;
        let handshake = async {
            let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let name = start
                .client_hello()
                .server_name()
                .map(str::to_ascii_lowercase);
            self.certificates.ensure(name.as_deref()).await;
            let tls = start.into_stream(Arc::clone(&self.tls)).await?;
            let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok((
                Socket::Tls(Box::new(tls)),
                name.unwrap_or_else(|| "localhost".to_owned()),
                http2,
            ))
        };
        timeout(limit, handshake)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn serve_http1(&self, mut connection: Connection) {
        let closing = self.live.draining();
        let mut stages = self.live.stages();
        let mut settings = None;
        loop {
            let timeouts = **self.timeouts.load();
            let more = tokio::select! {
                biased;
                more = connection.wait(timeouts.client_idle) => more,
                _ = stages.wait_for(|stage| *stage == Stage::Closing) => false,
            };
            if !more {
                return connection.close().await;
            }
            let patience = Patience {
                head: timeouts.client_header,
                bytes: **self.header_bytes.load(),
            };
            match connection.next_head(patience).await {
                Ok(()) => {}
                Err(NoHead::Gone) => return,
                Err(NoHead::Refused(refusal)) => {
                    tracing::debug!(%refusal, "a request was refused");
                    self.live.answered();
                    return connection
                        .refuse(&page::raw(refusal.status, refusal.why))
                        .await;
                }
            }
            let mut session = ServerSession::new_http1(Box::new(connection));
            match settings.take() {
                Some(kept) => HttpPersistentSettings::apply_to_session(kept, &mut session),
                None => session.set_keepalive(Some(timeouts.client_idle.as_secs().max(1))),
            }
            let Some(kept) = self.proxy.process_new_http(session, &closing).await else {
                return;
            };
            let (stream, kept_settings) = kept.consume();
            let Ok(back) = stream.into_any().downcast::<Connection>() else {
                return;
            };
            connection = *back;
            settings = kept_settings;
        }
    }
}
