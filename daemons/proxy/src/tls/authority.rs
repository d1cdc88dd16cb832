//! The local certificate authority: made at the first start, kept for ten years.
//!
//! ```text
//! local-ca.pem   its certificate: what a browser or `curl --cacert` is given to trust
//! local-ca.key   its key, mode 0600
//! ```
//!
//! It signs for hosts until a public authority does. Whoever trusts it trusts this machine for every
//! name, so its key is as precious as the machine, and is nowhere else.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// A root that has to be trusted by hand is not renewed by itself.
const CA_LIFE: Duration = Duration::days(3650);

/// As public authorities do now.
const LEAF_LIFE: Duration = Duration::days(90);

/// Clocks of clients may be behind.
const BACKDATED: Duration = Duration::days(1);

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The files do not hold what they should.
    #[error("{path} cannot be used: {source}; move it away to have a new authority made")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rcgen::Error,
    },
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Sign(#[from] rcgen::Error),
}

/// The authority, ready to sign.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    id: String,
    certificate: PathBuf,
}

/// A certificate with its key, in PEM.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// Its key: secret.
    pub key: zeroize::Zeroizing<String>,
    /// When it expires, in seconds since 1970.
    pub expires: i64,
}

impl Authority {
    /// The authority of the state directory, made if there is none. Blocks on the disk.
    pub fn open(state: &Path) -> Result<Self, AuthorityError> {
        let key = match stored_key(state)? {
            Some(key) => key,
            None => {
                let key = KeyPair::generate()?;
                let text = zeroize::Zeroizing::new(key.serialize_pem());
                write_atomically(&key_path(state), text.as_bytes(), 0o600)?;
                key
            }
        };
        let authority = Self::with(key, state);
        if !authority.certificate.exists() {
            let own = params(&authority.id).self_signed(authority.issuer.key())?;
            write_atomically(&authority.certificate, own.pem().as_bytes(), 0o644)?;
        }
        Ok(authority)
    }

    /// The authority that is there already. Writes nothing; blocks on the disk.
    pub fn existing(state: &Path) -> Result<Self, AuthorityError> {
        let missing = || AuthorityError::Io {
            path: key_path(state),
            source: io::ErrorKind::NotFound.into(),
        };
        let key = stored_key(state)?.ok_or_else(missing)?;
        Ok(Self::with(key, state))
    }

    fn with(key: KeyPair, state: &Path) -> Self {
        let id: String = Sha256::digest(key.public_key_raw())
            .iter()
            .take(4)
            .map(|b| format!("{b:02x}"))
            .collect();
        Self {
            issuer: Issuer::new(params(&id), key),
            id,
            certificate: state.join("local-ca.pem"),
        }
    }

    /// Names this authority's key, so that certificates of another are known as such.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where its certificate is.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Signs a new certificate for `host`.
    pub fn issue(&self, host: &str) -> Result<Leaf, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        if host.len() <= 64 {
            // The longest common name X.520 allows; clients look at the alternative names only.
            params.distinguished_name.push(DnType::CommonName, host);
        }
        let now = OffsetDateTime::now_utc();
        params.not_before = now - BACKDATED;
        params.not_after = now + LEAF_LIFE;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let expires = params.not_after.unix_timestamp();
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf {
            certificate: certificate.pem(),
            key: zeroize::Zeroizing::new(key.serialize_pem()),
            expires,
        })
    }
}

fn key_path(state: &Path) -> PathBuf {
    state.join("local-ca.key")
}

/// The authority's key; nothing if there is none yet.
fn stored_key(state: &Path) -> Result<Option<KeyPair>, AuthorityError> {
    let path = key_path(state);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let text = zeroize::Zeroizing::new(text);
            KeyPair::from_pem(&text)
                .map(Some)
                .map_err(|source| AuthorityError::Key { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::Io { path, source }),
    }
}

/// The same for the same key, except for the dates: its name is what certificates refer to.
fn params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Temps");
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Temps local CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + CA_LIFE;
    params
}

/// Writes a whole file or none: beside it, fsynced, renamed, the directory fsynced.
pub(super) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let fail = |source| AuthorityError::Io {
        path: path.to_owned(),
        source,
    };
    let fresh = path.with_extension("new");
    let write = || -> io::Result<()> {
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        match path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_authority_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path()).unwrap();
        let pem = fs::read(first.certificate()).unwrap();
        let again = Authority::open(dir.path()).unwrap();
        assert_eq!(first.id(), again.id());
        assert_eq!(fs::read(again.certificate()).unwrap(), pem);
        let mode = fs::metadata(dir.path().join("local-ca.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("local-ca.key"), "nonsense").unwrap();
        let error = Authority::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("local-ca.key"), "{error}");
    }
}
