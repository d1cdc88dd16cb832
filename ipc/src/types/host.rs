//! Host names and path prefixes, as routes carry them.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;

/// A DNS host name in lower case without a trailing dot (RFC 1123); punycode, never Unicode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Host(String);

impl Host {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(80).collect();
        let bad = |why: &str| Err(format!("`{shown}` is not a host name: {why}"));
        let name = text.to_ascii_lowercase();
        if name.is_empty() || name.len() > 253 {
            return bad("use 1 to 253 characters");
        }
        if name.parse::<std::net::IpAddr>().is_ok() {
            return bad("an address cannot be a domain");
        }
        for label in name.split('.') {
            let form = !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if !form {
                return bad(
                    "each part has 1 to 63 of a-z, 0-9 and `-`, not at its ends; write non-ASCII names as punycode (xn--…)",
                );
            }
        }
        Ok(Self(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The start of a path that a route takes: `/`, or `/api` (which matches `/api` and `/api/…`, not
/// `/apis`). No trailing slash, no `.` or `..` segments, no empty segments, no escapes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// The prefix that takes every path.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` (a request's path without its query) is under this prefix.
    pub fn matches(&self, path: &str) -> bool {
        self.0 == "/"
            || path
                .strip_prefix(self.0.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for PathPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(80).collect();
        let bad = |why: &str| Err(format!("`{shown}` is not a path prefix: {why}"));
        if text == "/" {
            return Ok(Self::root());
        }
        let Some(rest) = text.strip_prefix('/') else {
            return bad("it starts with `/`");
        };
        if text.len() > 512 {
            return bad("use at most 512 characters");
        }
        for segment in rest.split('/') {
            if segment.is_empty() || segment == "." || segment == ".." {
                return bad("no empty, `.` or `..` segments, and no `/` at its end");
            }
            let plain =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
            if !segment.bytes().all(plain) {
                return bad("only the characters RFC 3986 allows unescaped in a path");
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for PathPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lowered_and_odd_ones_refused() {
        assert_eq!(
            "Shop.Example.ORG".parse::<Host>().unwrap().as_str(),
            "shop.example.org"
        );
        for text in [
            "", ".", "a..b", "a.", "-a.b", "a_b.c", "10.0.0.1", "::1", "a b", "a/b", "é.fr",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_matches_whole_segments() {
        let prefix: PathPrefix = "/api".parse().unwrap();
        assert!(prefix.matches("/api") && prefix.matches("/api/x"));
        assert!(!prefix.matches("/apis") && !prefix.matches("/"));
        assert!(PathPrefix::root().matches("/anything"));
        for text in ["api", "/api/", "//", "/a/../b", "/%2e", "/a b"] {
            assert!(text.parse::<PathPrefix>().is_err(), "{text}");
        }
    }
}
