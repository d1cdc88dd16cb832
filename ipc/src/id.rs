//! Identifiers: prefixed newtypes, sortable by the time they were made, parsed once at the edge.
//!
//! An identifier is its prefix and 18 characters of Crockford's base 32 in lower case: 10 for the
//! time in milliseconds since 1970, 8 (40 bits) random. They name things; they guard nothing.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Crockford's base 32 alphabet in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters after the prefix.
const LENGTH: usize = 18;

/// Text that is not an identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {kind}: expected `{prefix}` and {LENGTH} characters")]
pub struct BadId {
    text: String,
    kind: &'static str,
    prefix: &'static str,
}

/// The characters of a new identifier.
fn fresh() -> String {
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    let mut noise = [0_u8; 8];
    // A clash needs the same millisecond and the same 40 bits; without a random source we would
    // hand out clashing names, so there is nothing sensible to do but stop.
    getrandom::fill(&mut noise).expect("the kernel's random source always answers");
    let noise = u64::from_le_bytes(noise);
    let digit = |value: u64, place: usize| ALPHABET[((value >> (5 * place)) & 31) as usize] as char;
    (0..10)
        .rev()
        .map(|place| digit(millis, place))
        .chain((0..8).rev().map(|place| digit(noise, place)))
        .collect()
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What every identifier of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// A new one, later than all made before by this clock.
            pub fn fresh() -> Self {
                Self(format!("{}{}", $prefix, fresh()))
            }

            /// The identifier as text, prefix included.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let valid = text.strip_prefix($prefix).is_some_and(|rest| {
                    rest.len() == LENGTH && rest.bytes().all(|byte| ALPHABET.contains(&byte))
                });
                if valid {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(BadId { text: text.chars().take(64).collect(), kind: $kind, prefix: $prefix })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

identifier!(
    /// An app, for ever; its name may change.
    AppId, "app_", "an app id"
);
identifier!(
    /// A release: the immutable artifact that a deployment serves.
    ReleaseId, "rel_", "a release id"
);
identifier!(
    /// A deployment: one act of putting a release into service.
    DeploymentId, "dep_", "a deployment id"
);
identifier!(
    /// A running copy of a release; also the name of the target that the proxy routes to.
    InstanceId, "ins_", "an instance id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_identifier_parses_back() {
        let id = ReleaseId::fresh();
        assert_eq!(id.to_string().parse::<ReleaseId>(), Ok(id));
    }

    #[test]
    fn identifiers_sort_by_the_time_they_were_made() {
        let first = AppId::fresh();
        // The clock has a resolution of a millisecond.
        let later = std::iter::repeat_with(AppId::fresh)
            .find(|id| id.as_str()[..14] != first.as_str()[..14])
            .unwrap();
        assert!(first < later);
    }

    #[test]
    fn another_kind_of_identifier_is_refused() {
        let app = AppId::fresh();
        assert!(app.as_str().parse::<ReleaseId>().is_err());
        assert!("rel_../../etc/passwd".parse::<ReleaseId>().is_err());
        assert!("rel_".parse::<ReleaseId>().is_err());
    }
}
