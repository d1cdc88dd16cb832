//! Sealing secrets for the database: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) with a random
//! 24-byte nonce in front of each value. The key is never in the database or beside a backup of
//! it: it is a systemd credential, or a key file of mode 0600.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use temps_ipc::types::{EnvName, EnvValue, EnvVar};

/// Bytes of a nonce.
const NONCE: usize = 24;

/// Why a value could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key does not have 32 bytes.
    #[error("the encryption key has {0} bytes instead of 32")]
    Key(usize),
    /// Sealed under another key or for another place, or damaged.
    #[error(
        "a stored variable cannot be decrypted: it was stored under another key, or is damaged"
    )]
    Opened,
    /// The cipher or the random source failed.
    #[error("a variable cannot be encrypted")]
    Sealed,
}

/// Seals and opens values. Cheap to clone.
#[derive(Clone)]
pub struct Seal(XChaCha20Poly1305);

impl Seal {
    /// With a key of 32 bytes.
    ///
    /// # Errors
    /// [`SealError::Key`].
    pub fn new(key: &[u8]) -> Result<Self, SealError> {
        let bytes: [u8; 32] = key.try_into().map_err(|_| SealError::Key(key.len()))?;
        Ok(Self(XChaCha20Poly1305::new(&Key::from(bytes))))
    }

    /// Seals `plain` for `place`: it opens nowhere else, so rows cannot be swapped.
    fn seal(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0_u8; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Sealed)?;
        let payload = Payload {
            msg: plain,
            aad: place.as_bytes(),
        };
        let sealed = self
            .0
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| SealError::Sealed)?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, sealed) = sealed
            .split_first_chunk::<NONCE>()
            .ok_or(SealError::Opened)?;
        let payload = Payload {
            msg: sealed,
            aad: place.as_bytes(),
        };
        self.0
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| SealError::Opened)
    }

    /// Seals one variable of an app.
    ///
    /// # Errors
    /// [`SealError::Sealed`].
    pub fn seal_variable(
        &self,
        app: &str,
        name: &EnvName,
        value: &EnvValue,
    ) -> Result<Vec<u8>, SealError> {
        self.seal(&format!("env/{app}/{name}"), value.reveal().as_bytes())
    }

    /// Opens one variable of an app.
    ///
    /// # Errors
    /// [`SealError::Opened`].
    pub fn open_variable(
        &self,
        app: &str,
        name: &EnvName,
        sealed: &[u8],
    ) -> Result<EnvValue, SealError> {
        let plain = zeroize::Zeroizing::new(self.open(&format!("env/{app}/{name}"), sealed)?);
        let text = std::str::from_utf8(&plain).map_err(|_| SealError::Opened)?;
        text.parse().map_err(|_| SealError::Opened)
    }

    /// Seals the URL that a release is made from, which may have a password.
    ///
    /// # Errors
    /// [`SealError::Sealed`].
    pub fn seal_url(&self, release: &str, url: &str) -> Result<Vec<u8>, SealError> {
        self.seal(&format!("url/{release}"), url.as_bytes())
    }

    /// Opens the URL that a release is made from.
    ///
    /// # Errors
    /// [`SealError::Opened`].
    pub fn open_url(&self, release: &str, sealed: &[u8]) -> Result<String, SealError> {
        let plain = self.open(&format!("url/{release}"), sealed)?;
        String::from_utf8(plain).map_err(|_| SealError::Opened)
    }

    /// Seals the variables that a release was made with.
    ///
    /// # Errors
    /// [`SealError::Sealed`].
    pub fn seal_release(&self, release: &str, variables: &[EnvVar]) -> Result<Vec<u8>, SealError> {
        let plain =
            zeroize::Zeroizing::new(serde_json::to_vec(variables).map_err(|_| SealError::Sealed)?);
        self.seal(&format!("release/{release}"), &plain)
    }

    /// Opens the variables that a release was made with.
    ///
    /// # Errors
    /// [`SealError::Opened`].
    pub fn open_release(&self, release: &str, sealed: &[u8]) -> Result<Vec<EnvVar>, SealError> {
        let plain = zeroize::Zeroizing::new(self.open(&format!("release/{release}"), sealed)?);
        serde_json::from_slice(&plain).map_err(|_| SealError::Opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> Seal {
        Seal::new(&[7; 32]).unwrap()
    }

    #[test]
    fn a_sealed_value_opens_only_where_it_belongs() {
        let name: EnvName = "TOKEN".parse().unwrap();
        let other: EnvName = "OTHER".parse().unwrap();
        let value: EnvValue = "hunter2\n$x".parse().unwrap();
        let sealed = seal().seal_variable("app_1", &name, &value).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("hunter2"));
        assert_eq!(seal().open_variable("app_1", &name, &sealed), Ok(value));
        assert_eq!(
            seal().open_variable("app_2", &name, &sealed),
            Err(SealError::Opened)
        );
        assert_eq!(
            seal().open_variable("app_1", &other, &sealed),
            Err(SealError::Opened)
        );
    }

    #[test]
    fn a_sealed_url_opens_for_its_release_only() {
        let url = "https://ada:geheim@example.org/shop";
        let sealed = seal().seal_url("rel_1", url).unwrap();
        assert_eq!(seal().open_url("rel_1", &sealed).as_deref(), Ok(url));
        assert_eq!(seal().open_url("rel_2", &sealed), Err(SealError::Opened));
    }

    #[test]
    fn another_key_and_damage_are_noticed() {
        let variables = vec![EnvVar {
            name: "A".parse().unwrap(),
            value: "1".parse().unwrap(),
        }];
        let mut sealed = seal().seal_release("rel_1", &variables).unwrap();
        assert_eq!(seal().open_release("rel_1", &sealed), Ok(variables));
        let other = Seal::new(&[8; 32]).unwrap();
        assert_eq!(other.open_release("rel_1", &sealed), Err(SealError::Opened));
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(
            seal().open_release("rel_1", &sealed),
            Err(SealError::Opened)
        );
        assert_eq!(seal().open_release("rel_1", &[]), Err(SealError::Opened));
        assert!(Seal::new(&[0; 31]).is_err());
    }
}
