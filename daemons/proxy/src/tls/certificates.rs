//! One certificate per routed host, and one for `localhost` where a client names nobody.
//!
//! ```text
//! certificates/HOST.pem    mode 0600: two lines of ours, the certificate, its key
//! ```
//!
//! A certificate is made ready before the handshake needs it ([`Certificates::ensure`]): from
//! memory, else from disk, else issued; one host at a time, so never twice. Only routed hosts get
//! one: names that clients make up cost nothing but a look at the table. The helper of a restart
//! keeps what it issues in memory only: the files belong to the main process.

use crate::engine::Engine;
use crate::event;
use crate::tls::authority::{Authority, AuthorityError, Leaf, write_atomically};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use temps_ipc::types::Timestamp;
use tokio::sync::Mutex;

/// Who answers a client that names nobody.
const DEFAULT_HOST: &str = "localhost";

/// A certificate is renewed when less than this is left of it: a third of its life.
const RENEW_BEFORE: i64 = 30 * 86_400;

/// No file of ours is near.
const MAX_FILE: u64 = 64 * 1024;

/// A certificate in use.
#[derive(Debug)]
struct Ready {
    key: Arc<CertifiedKey>,
    renew_at: i64,
}

/// Every certificate at hand.
#[derive(Debug)]
pub struct Certificates {
    engine: Arc<Engine>,
    authority: Arc<Authority>,
    directory: PathBuf,
    /// Whether what is issued is written to `directory`.
    keeps: bool,
    ready: RwLock<HashMap<String, Ready>>,
    /// Held while one certificate is made ready.
    making: Mutex<()>,
}

impl Certificates {
    /// Certificates for the routes of `engine`, kept in `directory`.
    pub fn new(engine: Arc<Engine>, authority: Authority, directory: PathBuf) -> Self {
        Self {
            engine,
            authority: Arc::new(authority),
            directory,
            keeps: true,
            ready: RwLock::default(),
            making: Mutex::new(()),
        }
    }

    /// The same, but nothing is ever written.
    pub fn in_memory(self) -> Self {
        Self {
            keeps: false,
            ..self
        }
    }

    /// The authority's certificate.
    pub fn authority(&self) -> &Path {
        self.authority.certificate()
    }

    /// Certificates in memory.
    pub fn count(&self) -> usize {
        self.ready
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    fn is_served(&self, host: &str) -> bool {
        host == DEFAULT_HOST || self.engine.table().knows(host)
    }

    fn is_ready(&self, host: &str) -> bool {
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        ready.get(host).is_some_and(|ready| now() < ready.renew_at)
    }

    /// Makes the certificate for `host` (lower case) ready, if the host is routed.
    pub async fn ensure(&self, host: Option<&str>) {
        let host = host.unwrap_or(DEFAULT_HOST);
        if self.is_ready(host) || !self.is_served(host) {
            return;
        }
        let _one_at_a_time = self.making.lock().await;
        if self.is_ready(host) {
            return;
        }
        let (authority, path) = (
            Arc::clone(&self.authority),
            self.directory.join(format!("{host}.pem")),
        );
        let (name, keeps) = (host.to_owned(), self.keeps);
        let made =
            tokio::task::spawn_blocking(move || stored_or_issued(&authority, &path, &name, keeps))
                .await;
        match made {
            Ok(Ok(certificate)) => {
                let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
                ready.insert(host.to_owned(), certificate);
            }
            Ok(Err(error)) => {
                tracing::error!(%host, %error, "there is no certificate for this host")
            }
            Err(error) => tracing::error!(%host, %error, "making a certificate ended early"),
        }
    }

    /// Makes certificates ready for every route, and forgets those of hosts that are gone, with
    /// every snapshot; for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut generations = self.engine.generations();
        loop {
            generations.mark_unchanged();
            let table = self.engine.table();
            for host in table.hosts() {
                self.ensure(Some(host)).await;
            }
            {
                let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
                ready.retain(|host, _| host == DEFAULT_HOST || table.knows(host));
            }
            drop(table);
            if generations.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().map(str::to_ascii_lowercase);
        let host = host.as_deref().unwrap_or(DEFAULT_HOST);
        if !self.is_served(host) {
            return None;
        }
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        // An old certificate is better than none, should it not have been renewed.
        ready.get(host).map(|ready| Arc::clone(&ready.key))
    }
}

fn now() -> i64 {
    Timestamp::now().0 / 1000
}

#[derive(Debug, thiserror::Error)]
enum CertificateError {
    #[error(transparent)]
    Issue(#[from] AuthorityError),
    #[error("it cannot be parsed: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("it cannot be used: {0}")]
    Key(#[from] rustls::Error),
}

/// The certificate in `path` if it is good for a while, else a new one. Blocks on the disk.
fn stored_or_issued(
    authority: &Authority,
    path: &Path,
    host: &str,
    keeps: bool,
) -> Result<Ready, CertificateError> {
    if let Some(ready) = stored(authority, path) {
        return Ok(ready);
    }
    let leaf = authority.issue(host)?;
    if keeps && let Err(error) = write_atomically(path, file_of(authority, &leaf).as_bytes(), 0o600)
    {
        // It serves all the same; the next start issues another.
        tracing::warn!(%host, %error, "a certificate cannot be kept");
    }
    temps_unit::event!(
        info,
        event::CERTIFICATE_ISSUED,
        host,
        "a certificate was issued by the local authority"
    );
    ready(
        leaf.certificate.as_bytes(),
        leaf.key.as_bytes(),
        leaf.expires,
    )
}

fn file_of(authority: &Authority, leaf: &Leaf) -> zeroize::Zeroizing<String> {
    zeroize::Zeroizing::new(format!(
        "issuer: {}\nexpires: {}\n{}{}",
        authority.id(),
        leaf.expires,
        leaf.certificate,
        leaf.key.as_str()
    ))
}

fn stored(authority: &Authority, path: &Path) -> Option<Ready> {
    let mut text = zeroize::Zeroizing::new(String::new());
    fs::File::open(path)
        .ok()?
        .take(MAX_FILE)
        .read_to_string(&mut text)
        .ok()?;
    let mut lines = text.lines();
    let issuer = lines.next()?.strip_prefix("issuer: ")?;
    let expires: i64 = lines.next()?.strip_prefix("expires: ")?.parse().ok()?;
    if issuer != authority.id() || expires - RENEW_BEFORE <= now() {
        return None;
    }
    ready(text.as_bytes(), text.as_bytes(), expires).ok()
}

fn ready(certificate: &[u8], key: &[u8], expires: i64) -> Result<Ready, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let key = any_ecdsa_type(&PrivateKeyDer::from_pem_slice(key)?)?;
    let key = CertifiedKey::new(chain, key);
    key.keys_match()?;
    Ok(Ready {
        key: Arc::new(key),
        renew_at: expires - RENEW_BEFORE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::snapshot::tests::{route, target};
    use crate::store::Store;
    use std::os::unix::fs::PermissionsExt;
    use temps_ipc::types::Snapshot;

    async fn certificates(dir: &Path) -> Certificates {
        let engine = Arc::new(Engine::new(Store::new(dir)));
        engine.restore();
        if engine.table().generation() == 0 {
            let routes = vec![route("a.test", "/", "a", vec![target(1)])];
            engine
                .apply(Snapshot {
                    generation: 1,
                    routes,
                })
                .await
                .unwrap();
        }
        let directory = dir.join("certificates");
        fs::create_dir_all(&directory).unwrap();
        Certificates::new(engine, Authority::open(dir).unwrap(), directory)
    }

    fn der(certificates: &Certificates, host: &str) -> Option<Vec<u8>> {
        let ready = certificates.ready.read().unwrap();
        ready.get(host).map(|ready| ready.key.cert[0].to_vec())
    }

    #[tokio::test]
    async fn a_routed_host_gets_one_certificate_that_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = certificates(dir.path()).await;
        let (one, two) = tokio::join!(
            async {
                first.ensure(Some("a.test")).await;
                der(&first, "a.test")
            },
            async {
                first.ensure(Some("a.test")).await;
                der(&first, "a.test")
            },
        );
        assert!(one.is_some() && one == two);
        let mode = fs::metadata(dir.path().join("certificates/a.test.pem"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = certificates(dir.path()).await;
        second.ensure(Some("a.test")).await;
        assert_eq!(der(&second, "a.test"), one);
    }

    #[tokio::test]
    async fn a_helper_serves_what_is_kept_and_keeps_nothing_itself() {
        let dir = tempfile::tempdir().unwrap();
        let main = certificates(dir.path()).await;
        main.ensure(Some("a.test")).await;
        let helper = certificates(dir.path()).await.in_memory();
        helper.ensure(Some("a.test")).await;
        helper.ensure(None).await;
        assert_eq!(der(&helper, "a.test"), der(&main, "a.test"));
        assert!(der(&helper, "localhost").is_some());
        let kept = fs::read_dir(dir.path().join("certificates")).unwrap();
        assert_eq!(kept.count(), 1);
    }

    #[tokio::test]
    async fn a_name_that_is_not_routed_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = certificates(dir.path()).await;
        for host in ["b.test", "../../etc/passwd", ""] {
            certificates.ensure(Some(host)).await;
        }
        assert_eq!(certificates.count(), 0);
        assert_eq!(
            fs::read_dir(dir.path().join("certificates"))
                .unwrap()
                .count(),
            0
        );
        certificates.ensure(None).await;
        assert!(der(&certificates, "localhost").is_some());
    }

    #[tokio::test]
    async fn a_damaged_old_or_foreign_certificate_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("certificates/a.test.pem");
        let first = certificates(dir.path()).await;
        first.ensure(Some("a.test")).await;
        let good = fs::read_to_string(&path).unwrap();
        let original = der(&first, "a.test");
        let expires = good.lines().nth(1).unwrap().to_owned();
        for bad in [
            String::new(),
            good.replace("BEGIN CERT", "BEGIN CRET"),
            good.replace(&expires, &format!("expires: {}", now() + 86_400)),
            good.replace("issuer: ", "issuer: x"),
        ] {
            fs::write(&path, bad).unwrap();
            let again = certificates(dir.path()).await;
            again.ensure(Some("a.test")).await;
            assert!(der(&again, "a.test").is_some_and(|der| Some(der) != original));
        }
    }
}
