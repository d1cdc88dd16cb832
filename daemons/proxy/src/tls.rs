//! TLS with clients: which certificate, and the configuration of handshakes.
//!
//! [`authority`] signs for hosts that have no other certificate; [`certificates`] keeps one per
//! routed host, and hands it to rustls by the name the client asks for.

pub mod authority;
pub mod certificates;

use certificates::Certificates;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use std::sync::Arc;

/// HTTP/2 first: one connection per client, and the client chooses among what it knows.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The configuration of every handshake: TLS 1.2 and 1.3.
///
/// # Errors
/// Only if the provider lacks what every provider has.
pub fn server_config(certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let resolver: Arc<dyn ResolvesServerCert> = certificates;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
    // Resumption without memory of ours: the client keeps the ticket, its keys rotate by themselves.
    config.ticketer = ring::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}
