//! How a target is connected to, and which kept connections to it may be used.

use crate::config::Timeouts;
use crate::http::turn::InTurn;
use http::header::{ACCEPT, UPGRADE};
use pingora_core::Result;
use pingora_core::prelude::HttpPeer;
use pingora_http::RequestHeader;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use temps_ipc::id::InstanceId;
use temps_ipc::types::Address;

/// How long a connection is kept that is not to be used again.
const AT_ONCE: Duration = Duration::from_millis(1);

/// The instance `id` at `address`, for `request`, whose own id is `request_id`.
pub fn to(
    id: &InstanceId,
    address: &Address,
    request: &RequestHeader,
    request_id: &str,
    timeouts: &Timeouts,
) -> Result<HttpPeer> {
    let mut peer = match address {
        Address::Tcp(address) => HttpPeer::new(*address, false, String::new()),
        Address::Unix(path) => {
            let path = path.to_str().unwrap_or_default();
            HttpPeer::new_uds(path, false, String::new())?
        }
    };
    // Part of the pool's key: a connection to one instance never carries a request for another
    // that listens at the same address later.
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    peer.group_key = hasher.finish();
    let wait = if is_stream(request) {
        timeouts.stream
    } else {
        timeouts.read
    };
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.read_timeout = Some(wait);
    peer.options.write_timeout = Some(timeouts.read);
    peer.options.idle_timeout = Some(timeouts.keep);
    if request.headers.contains_key(UPGRADE) {
        peer.options.custom_l4 = Some(Arc::new(InTurn(timeouts.connect)));
        // Never another request's before or after: such a connection has no descriptor by which
        // the engine could tell it from others.
        request_id.hash(&mut hasher);
        peer.group_key = hasher.finish();
        peer.options.idle_timeout = Some(AT_ONCE);
    }
    Ok(peer)
}

/// Whether the answer is a stream that is silent for long by nature.
fn is_stream(request: &RequestHeader) -> bool {
    let events = |value: &http::HeaderValue| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/event-stream"))
    };
    request.headers.contains_key(UPGRADE) || request.headers.get_all(ACCEPT).iter().any(events)
}
