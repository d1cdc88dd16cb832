//! The record of a request: what of it may be kept. Queries, cookies and the pages that led here may
//! be private.

use super::{Request, path};
use crate::http::forward;
use crate::spool::record::AccessEvent;
use http::header::{REFERER, USER_AGENT};
use http::{HeaderName, Version};
use pingora_proxy::Session;
use std::time::Duration;

/// What is kept of the request that ended with `status`.
pub fn event(session: &Session, ctx: &Request, status: u16) -> AccessEvent {
    let request = session.req_header();
    let text = |name: HeaderName| {
        let value = request.headers.get(name);
        let text = value.and_then(|value| value.to_str().ok());
        text.unwrap_or_default()
    };
    let (route, origin) = (ctx.route(), ctx.origin.as_ref());
    AccessEvent {
        at: ctx.begun_at,
        app: route.map(|route| route.app.to_string()),
        release: route.map(|route| route.release.to_string()),
        host: ctx.host.clone(),
        method: request.method.as_str().to_owned(),
        path: path(request).to_owned(),
        status,
        bytes_in: session.body_bytes_read() as u64,
        bytes_out: session.body_bytes_sent() as u64,
        first_byte_us: ctx.first_byte.map(micros),
        total_us: micros(ctx.begun.elapsed()),
        client: origin.map(|origin| forward::canonical(origin.client.ip())),
        user_agent: text(USER_AGENT).to_owned(),
        referer_host: referer_host(text(REFERER)),
        protocol: protocol(request.version).to_owned(),
        tls: origin.is_some_and(|origin| origin.tls.is_some()),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Only the host of a referer: its path and query may be private.
fn referer_host(referer: &str) -> String {
    let host = referer
        .parse::<http::Uri>()
        .ok()
        .and_then(|uri| uri.host().map(str::to_owned));
    host.unwrap_or_default()
}

/// How a protocol is called in the record of a request.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "h2",
        Version::HTTP_10 => "http/1.0",
        _ => "http/1.1",
    }
}
