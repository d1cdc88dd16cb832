//! The client side of TLS: trusts exactly one certificate authority.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// A client that trusts the certificates in `ca` (PEM) and offers `protocol` (`http/1.1` or `h2`).
///
/// # Errors
/// `ca` holds no certificate, or a broken one.
pub fn client(ca: &[u8], protocol: &str) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots
            .add(certificate.context("read the CA")?)
            .context("trust the CA")?;
    }
    anyhow::ensure!(!roots.is_empty(), "no certificate in the CA file");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Ok(Arc::new(config))
}

/// The name to ask for and to check: `host` without its port.
///
/// # Errors
/// It is no DNS name and no address.
pub fn server_name(host: &str) -> Result<ServerName<'static>> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    ServerName::try_from(name.to_owned()).with_context(|| format!("'{host}' is no server name"))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use rustls::ServerConfig;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    /// A server that offers both protocols under `name`, and the PEM its clients must trust.
    pub(crate) fn server(name: &str) -> (Arc<ServerConfig>, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("default versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("the key fits");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        (Arc::new(config), made.cert.pem().into_bytes())
    }
}
