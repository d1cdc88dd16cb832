//! Environment variables of apps. Values are secrets until proven otherwise: they have no `Debug`
//! text and are dropped zeroed.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Longest name in bytes.
const MAX_NAME: usize = 128;

/// Longest value in bytes; Linux refuses single strings over 128 KiB at exec.
pub const MAX_VALUE: usize = 96 * 1024;

/// Names that the platform itself sets for every instance.
const PLATFORM_PREFIX: &str = "TEMPS_";

/// The name of an environment variable: POSIX (letters, digits, `_`, not starting with a digit).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EnvName(String);

impl EnvName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnvName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(80).collect();
        let first = text.bytes().next();
        let valid = first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && text.len() <= MAX_NAME;
        if !valid {
            return Err(format!(
                "`{shown}` is not a variable name: use at most {MAX_NAME} letters, digits and `_`, not starting with a digit"
            ));
        }
        if text.starts_with(PLATFORM_PREFIX) || text == "PORT" {
            return Err(format!(
                "`{shown}` is set by the platform and cannot be changed"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for EnvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EnvName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The value of an environment variable, byte-exact UTF-8 without NUL.
#[derive(Clone, PartialEq, Eq, Serialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct EnvValue(String);

impl EnvValue {
    /// The plain text; name the reason where you call it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnvValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("a variable's value cannot contain a NUL byte".to_owned());
        }
        if text.len() > MAX_VALUE {
            return Err(format!(
                "a variable's value can have at most {MAX_VALUE} bytes, this one has {}",
                text.len()
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A variable with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name.
    pub name: EnvName,
    /// Its value.
    pub value: EnvValue,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_are_kept_to_the_byte() {
        for value in ["", " a b ", "$HOME", "\"q\"", "a\nb", "'", "ünï"] {
            assert_eq!(
                value.parse::<EnvValue>().map(|v| v.reveal().to_owned()),
                Ok(value.to_owned())
            );
        }
        assert!("a\0b".parse::<EnvValue>().is_err());
        assert!("x".repeat(MAX_VALUE + 1).parse::<EnvValue>().is_err());
    }

    #[test]
    fn a_value_is_never_shown_by_debug() {
        let value: EnvValue = "hunter2".parse().unwrap();
        assert!(!format!("{value:?}").contains("hunter2"));
    }

    #[test]
    fn names_of_the_platform_and_odd_names_are_refused() {
        for name in ["", "1A", "A-B", "A=B", "A B", "PORT", "TEMPS_RELEASE"] {
            assert!(name.parse::<EnvName>().is_err(), "{name}");
        }
        assert!("DATABASE_URL".parse::<EnvName>().is_ok());
    }
}
