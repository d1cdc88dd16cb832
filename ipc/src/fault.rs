//! How a request fails: one closed set of codes, mapped one to one to exit statuses, HTTP statuses
//! and (where a daemon is on the bus) D-Bus error names.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a request failed, as far as a program can act on it.
///
/// Append-only: the position of a variant is its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Code {
    /// The thing named does not exist.
    NotFound,
    /// A thing of this name exists already.
    Exists,
    /// The request itself is wrong: a name, a value, a combination.
    Invalid,
    /// Something else is under way that excludes this; the same call may succeed later.
    Busy,
    /// The caller may not do this.
    Denied,
    /// A part that is needed does not answer (a daemon, the container engine).
    Unavailable,
    /// A defect, or a state nobody foresaw.
    Internal,
    /// The feature is known by name, but not built into this version.
    Unsupported,
    /// No space left, or a limit on size reached.
    NoSpace,
    /// The daemon's configuration or stored state cannot be read.
    Config,
}

impl Code {
    /// Every code, in wire order.
    pub const ALL: [Code; 10] = [
        Code::NotFound,
        Code::Exists,
        Code::Invalid,
        Code::Busy,
        Code::Denied,
        Code::Unavailable,
        Code::Internal,
        Code::Unsupported,
        Code::NoSpace,
        Code::Config,
    ];

    /// The exit status of a command that ends with this code, after sysexits(3).
    pub const fn exit_status(self) -> u8 {
        match self {
            Code::Invalid | Code::Unsupported => 64,
            Code::NotFound => 66,
            Code::Unavailable => 69,
            Code::Internal => 70,
            Code::Exists => 73,
            Code::NoSpace => 74,
            Code::Busy => 75,
            Code::Denied => 77,
            Code::Config => 78,
        }
    }

    /// The HTTP status that stands for this code.
    pub const fn http_status(self) -> u16 {
        match self {
            Code::Invalid => 400,
            Code::Denied => 403,
            Code::NotFound => 404,
            Code::Exists | Code::Busy => 409,
            Code::Internal | Code::Config => 500,
            Code::Unsupported => 501,
            Code::Unavailable => 503,
            Code::NoSpace => 507,
        }
    }

    /// The code's name in JSON, messages and D-Bus error names.
    pub const fn name(self) -> &'static str {
        match self {
            Code::NotFound => "NotFound",
            Code::Exists => "Exists",
            Code::Invalid => "Invalid",
            Code::Busy => "Busy",
            Code::Denied => "Denied",
            Code::Unavailable => "Unavailable",
            Code::Internal => "Internal",
            Code::Unsupported => "Unsupported",
            Code::NoSpace => "NoSpace",
            Code::Config => "Config",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed request, as it crosses the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    /// Why, for programs.
    pub code: Code,
    /// What happened, for people: lower case, no trailing period.
    pub what: String,
    /// What to do about it; empty if there is nothing to say.
    pub hint: String,
}

/// Longest text of a fault in bytes. Longer ones are cut, so that a fault always fits a frame.
const MAX_TEXT: usize = 16 * 1024;

impl Fault {
    /// A fault without advice.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: cut(what.into()),
            hint: String::new(),
        }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = cut(hint.into());
        self
    }

    /// [`Code::Invalid`].
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(Code::Invalid, what)
    }

    /// [`Code::NotFound`].
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(Code::NotFound, what)
    }

    /// [`Code::Unavailable`].
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, what)
    }

    /// [`Code::Internal`].
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Code::Internal, what)
    }
}

/// `text` with at most [`MAX_TEXT`] bytes, cut at a character.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_and_a_failing_exit_status() {
        for (position, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, position, "ALL is in wire order");
            assert!(code.exit_status() >= 64);
            assert!(code.http_status() >= 400);
            assert!(!code.name().is_empty());
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let fault = Fault::invalid("é".repeat(MAX_TEXT));
        assert!(fault.what.len() <= MAX_TEXT);
        assert!(fault.what.ends_with('é'));
    }
}
