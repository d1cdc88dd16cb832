//! The work of a build as a program of its own (`temps-job`), for a transient unit that can do this
//! work and nothing else.
//!
//! It works in its current directory. What it is asked comes on standard input and never in an
//! argument, since it may hold secrets:
//!
//! | work | standard input | answer |
//! |---|---|---|
//! | `unpack` | [`UnpackRequest`], or the archive at once | on standard output |
//! | `fetch` | a socket: [`FetchRequest`] | on that socket: the report, then an archive of what was fetched |
//! | `build` | a socket: [`BuildRequest`], an archive of the source | on that socket: the report, then an archive of the result |
//!
//! A report is one frame ([`frame`]); output of `fetch` and `build` is for the build's log. Exit
//! status 0 means that a report was given, also if it says that the source is at fault.

mod build;
mod fetch;
pub(super) mod frame;
pub(super) mod place;
mod unpack;

use super::{CACHES, space};
use crate::archive::{Limits, Links};
use place::Place;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use temps_ipc::Fault;
use temps_unit::Applet;

/// The program that does the work of builds.
pub const JOB_APPLET: Applet = Applet {
    name: "temps-job",
    about: "unpacks, fetches or builds a source (started by temps-deployd)",
    run,
};

/// What to unpack by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnpackRequest {
    pub(super) limits: Limits,
    pub(super) links: Links,
}

/// What to fetch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FetchRequest {
    /// With its secrets.
    pub(super) url: String,
    pub(super) reference: Option<String>,
    pub(super) limit_seconds: u64,
    /// The repository, if it is one of this machine.
    pub(super) place: Option<Place>,
}

/// What was fetched, for people.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fetched {
    pub(super) source: String,
}

/// How to build.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BuildRequest {
    /// For `/bin/sh -c`.
    pub(super) command: String,
    /// The app's variables, in plain text.
    pub(super) env: BTreeMap<String, String>,
    pub(super) limits: Limits,
}

/// How the command ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    /// Too little was left on the disk when it had failed, so that is why. Only the job can tell: the
    /// disk is emptied when the unit has ended.
    pub(super) full: Option<Fault>,
    pub(super) status: Option<i32>,
    pub(super) signal: Option<i32>,
}

impl Ended {
    /// The command was not even started.
    fn without_room(full: Fault) -> Self {
        Self {
            full: Some(full),
            status: None,
            signal: None,
        }
    }
}

impl UnpackRequest {
    /// As arguments: there is no secret in it, and standard input is the archive.
    pub(super) fn arguments(self) -> Vec<String> {
        let Limits {
            bytes,
            entries,
            depth,
        } = self.limits;
        let links = match self.links {
            Links::Within => "within",
            Links::Anywhere => "anywhere",
        };
        vec![
            bytes.to_string(),
            entries.to_string(),
            depth.to_string(),
            links.to_owned(),
        ]
    }

    fn parse(arguments: &[String]) -> Option<Self> {
        let [bytes, entries, depth, links] = arguments else {
            return None;
        };
        Some(Self {
            limits: Limits {
                bytes: bytes.parse().ok()?,
                entries: entries.parse().ok()?,
                depth: depth.parse().ok()?,
            },
            links: match links.as_str() {
                "within" => Links::Within,
                "anywhere" => Links::Anywhere,
                _ => return None,
            },
        })
    }
}

fn run(arguments: Vec<OsString>) -> ExitCode {
    let arguments: Vec<String> = arguments
        .into_iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let work = arguments.first().map(String::as_str);
    let done = match (
        work,
        UnpackRequest::parse(arguments.get(1..).unwrap_or_default()),
    ) {
        (Some("unpack"), Some(request)) => unpack::run(request),
        (Some("fetch"), None) => socket().and_then(fetch::run),
        (Some("build"), None) => socket().and_then(build::run),
        _ => Err(io::Error::other("temps-deployd starts it")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "temps-job: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether there is room where the job works.
fn room() -> Result<(), Fault> {
    space::check_as(Path::new("."), Path::new(CACHES))
}

/// Standard input as the socket it is, and nothing in its place: what is started from here on has no
/// part in the conversation.
fn socket() -> io::Result<UnixStream> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let null = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_being_arguments() {
        let request = UnpackRequest {
            limits: Limits::default(),
            links: Links::Anywhere,
        };
        assert_eq!(UnpackRequest::parse(&request.arguments()), Some(request));
        assert_eq!(UnpackRequest::parse(&[]), None);
        assert_eq!(UnpackRequest::parse(&["1".to_owned()]), None);
    }
}
