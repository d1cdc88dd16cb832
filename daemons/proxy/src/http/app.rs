//! What happens to a request, in the order in which pingora calls us:
//!
//! ```text
//! request_filter          who is asked for? page 404/421, file, or go on with a lease on a target
//! upstream_peer           where that target listens; after a failure, another from the current table
//! upstream_request_filter headers for the target
//! response_filter         `Connection: close` while draining
//! fail_to_proxy           page 502/503/504
//! logging                 the record; the lease ends with the context
//! ```
//!
//! A connection that cannot be made is tried again once: nothing was sent, and the table may just
//! have been swapped. One that breaks later is tried again only where pingora deems that safe.

mod peer;
mod record;

use crate::config::Timeouts;
use crate::engine::table::{Answer, Route};
use crate::engine::{Engine, Entered, Entry};
use crate::http::failure::{CLIENT_GONE, status_of};
use crate::http::live::{Live, Upgraded};
use crate::http::origin::{Active, Origin};
use crate::http::{forward, page};
use crate::spool::Spool;
use crate::static_site;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::header::HOST;
use http::{StatusCode, Version};
use pingora_core::prelude::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use std::sync::Arc;
use std::time::{Duration, Instant};
use temps_ipc::id::InstanceId;
use temps_ipc::types::Timestamp;

/// Connections that may fail before the client is told.
const CONNECT_TRIES: usize = 2;

/// Fields of an answer that speak of the connection to the target. The engine writes its own
/// `Connection` and framing.
const HOP_BY_HOP: [&str; 3] = ["keep-alive", "proxy-connection", "upgrade"];

/// The application behind every connection.
pub struct App {
    /// Who answers.
    pub engine: Arc<Engine>,
    /// Who is connected.
    pub live: Arc<Live>,
    /// Where records of requests go.
    pub spool: Spool,
    /// Followed by each request as it begins.
    pub timeouts: Arc<ArcSwap<Timeouts>>,
}

/// One request.
pub struct Request {
    id: String,
    begun: Instant,
    begun_at: Timestamp,
    origin: Option<Arc<Origin>>,
    /// Held to the end of the request.
    active: Option<Active>,
    host: String,
    entered: Option<Entered>,
    /// Targets that could not be reached.
    tried: Vec<InstanceId>,
    attempts: usize,
    first_byte: Option<Duration>,
    upgraded: Option<Upgraded>,
    /// The status of our own page.
    page: Option<u16>,
}

impl Request {
    fn route(&self) -> Option<&Arc<Route>> {
        self.entered.as_ref().map(|entered| &entered.route)
    }
}

fn origin(session: &Session) -> Option<Arc<Origin>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest
        .user_data
        .as_ref()?
        .downcast_ref::<Arc<Origin>>()
        .cloned()
}

/// The host as the client wrote it.
fn asked_host(request: &RequestHeader) -> &str {
    let authority = request.uri.authority().map(|authority| authority.as_str());
    let field = || {
        request
            .headers
            .get(HOST)
            .and_then(|host| host.to_str().ok())
    };
    authority.or_else(field).unwrap_or_default()
}

fn path(request: &RequestHeader) -> &str {
    request.uri.path()
}

#[async_trait]
impl ProxyHttp for App {
    type CTX = Request;

    fn new_ctx(&self) -> Request {
        Request {
            id: forward::request_id(),
            begun: Instant::now(),
            begun_at: Timestamp::now(),
            origin: None,
            active: None,
            host: String::new(),
            entered: None,
            tried: Vec::new(),
            attempts: 0,
            first_byte: None,
            upgraded: None,
            page: None,
        }
    }

    fn init_downstream_modules(&self, _: &mut pingora_core::modules::http::HttpModules) {
        // No compression: it would hold back streams, and targets know better.
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Request) -> Result<bool> {
        let timeouts = **self.timeouts.load();
        session.set_read_timeout(Some(timeouts.client_body));
        session.set_write_timeout(Some(timeouts.client_body));
        session.set_total_drain_timeout(Some(timeouts.client_body));
        ctx.origin = origin(session);
        ctx.active = ctx.origin.as_ref().map(|origin| origin.activity.begin());
        let request = session.req_header();
        let host = forward::host_name(asked_host(request)).unwrap_or_default();
        let entry = self.engine.enter(&host, path(request), &[]);
        ctx.host = host;
        match entry {
            Entry::UnknownHost | Entry::NoRoute => self.answer(session, ctx, 404).await,
            Entry::Open(entered) => {
                let tls = ctx.origin.as_ref().and_then(|origin| origin.tls.as_ref());
                let misdirected = tls.is_some_and(|covered| *covered != ctx.host);
                let route = Arc::clone(&entered.route);
                ctx.entered = Some(entered);
                if misdirected {
                    return self.answer(session, ctx, 421).await;
                }
                match &route.answer {
                    Answer::Pool(_) => Ok(false),
                    Answer::Files(site) => {
                        if self.live.is_draining() {
                            session.set_keepalive(None);
                        }
                        let answer = static_site::serve(session, site, &route, &ctx.id).await;
                        if let Some(status) = answer? {
                            return self.answer(session, ctx, status).await;
                        }
                        Ok(true)
                    }
                }
            }
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Request,
    ) -> Result<Box<HttpPeer>> {
        if ctx.attempts > 0 {
            // The table may have been swapped since; the lease on the first target ends here.
            let request = session.req_header();
            let entry = self.engine.enter(&ctx.host, path(request), &ctx.tried);
            let Entry::Open(entered) = entry else {
                return Error::e_explain(ErrorType::HTTPStatus(503), "the route is gone");
            };
            ctx.entered = Some(entered);
        }
        ctx.attempts += 1;
        let entered = ctx.entered.as_ref();
        let target = entered.map(|entered| Arc::clone(entered.lease.target()));
        let Some((target, address)) = target.as_ref().and_then(|t| Some((t, t.address()?))) else {
            return Error::e_explain(ErrorType::HTTPStatus(503), "the target has no address");
        };
        let peer = peer::to(
            target.id(),
            address,
            session.req_header(),
            &ctx.id,
            &self.timeouts.load(),
        )?;
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Request,
    ) -> Result<()> {
        let Some(origin) = ctx.origin.as_deref() else {
            return Error::e_explain(ErrorType::InternalError, "a connection without its origin");
        };
        let host = asked_host(session.req_header()).to_owned();
        if request.uri.scheme().is_some() && session.req_header().version != Version::HTTP_2 {
            // A target is no proxy, so it gets the target in origin form (RFC 9112 section 3.2.1).
            let target = request
                .uri
                .path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned();
            request.set_raw_path(target.as_bytes())?;
        }
        forward::mark(request, origin, &host, &ctx.id)
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Request,
    ) -> Result<()> {
        if !response.status.is_informational() || response.status == StatusCode::SWITCHING_PROTOCOLS
        {
            ctx.first_byte = Some(ctx.begun.elapsed());
        }
        // The version is that of the hop, not of the target (RFC 9110 section 2.5): an answer of
        // HTTP/1.0 would make the client give up its connection.
        if response.version < Version::HTTP_11 {
            response.set_version(Version::HTTP_11);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Request,
    ) -> Result<()> {
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            ctx.upgraded = Some(self.live.upgrade());
            // What follows is no body of a request: both sides may be silent for long.
            session.set_read_timeout(Some(self.timeouts.load().stream));
            return Ok(());
        }
        // For our connection to the target only (RFC 9110 section 7.6.1).
        for name in HOP_BY_HOP {
            response.remove_header(name);
        }
        if self.live.is_draining() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Request,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(entered) = &ctx.entered {
            self.engine.suspect(entered.lease.target());
            ctx.tried.push(entered.lease.target().id().clone());
        }
        error.set_retry(ctx.tried.len() < CONNECT_TRIES);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Request,
    ) -> FailToProxy {
        let status = status_of(error);
        tracing::debug!(
            temps_app = ctx.route().map(|route| tracing::field::display(&route.app)),
            status,
            kind = %error.etype().as_str(),
            "a request failed"
        );
        if let (502, Some(entered)) = (status, &ctx.entered) {
            // It may have died over this very request.
            self.engine.suspect(entered.lease.target());
        }
        ctx.page = Some(status);
        // After a switch of protocols a page would be taken for a part of the stream.
        let answered = session.response_written().is_some_and(|head| {
            !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
        });
        if status != CLIENT_GONE && !answered {
            session.set_keepalive(None);
            let _ = page::send(session, status, &ctx.id).await;
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Request) {
        self.live.answered();
        let written = session.response_written().map(|head| head.status.as_u16());
        let status = match (error, written) {
            (Some(error), _) if status_of(error) == CLIENT_GONE => CLIENT_GONE,
            (_, Some(status)) => status,
            _ => ctx.page.unwrap_or(CLIENT_GONE),
        };
        self.spool.push(|| record::event(session, ctx, status));
    }

    // pingora's own lines carry paths with their query.
    fn suppress_error_log(&self, _: &Session, _: &Request, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Request,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    fn request_summary(&self, session: &Session, _: &Request) -> String {
        session.req_header().method.to_string()
    }
}

impl App {
    /// Answers with our own page; the request ends here.
    async fn answer(&self, session: &mut Session, ctx: &mut Request, status: u16) -> Result<bool> {
        ctx.page = Some(status);
        if self.live.is_draining() {
            session.set_keepalive(None);
        }
        if status == 405 {
            page::not_allowed(session, &ctx.id, "GET, HEAD").await?;
        } else {
            page::send(session, status, &ctx.id).await?;
        }
        Ok(true)
    }
}
