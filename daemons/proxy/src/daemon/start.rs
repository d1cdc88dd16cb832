//! What the process is given before it can run: sockets, configuration, the state directory.

use crate::config::{self as settings, Settings};
use crate::handover::client::Helper;
use crate::handover::sockets;
use crate::status::Problem;
use crate::store::Store;
use crate::store::turn::Turn;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use temps_unit::config;
use temps_unit::dirs::Dirs;
use temps_unit::exit::Exit;
use temps_unit::listen::Listeners;

/// Names of the sockets: the first two are TCP, one at least is needed; `…6` for a second family. The
/// helper is passed them by the main process.
pub const HTTP: [&str; 2] = ["http", "http6"];
/// See [`HTTP`].
pub const HTTPS: [&str; 2] = ["https", "https6"];
/// The control socket (Unix): the main process needs it.
pub const CONTROL: &str = "control";
/// Where the helper of a restart is called (Unix): it needs this one instead.
pub const HANDOVER: &str = "handover";

/// Descriptors kept for listeners, files, logs and callers.
const OTHER_DESCRIPTORS: u64 = 200;

/// What the daemon needs before it can run.
#[derive(Debug)]
pub struct Start {
    /// Plain listeners.
    pub http: Vec<TcpListener>,
    /// TLS listeners.
    pub https: Vec<TcpListener>,
    /// What it is for, and what it needs for that alone.
    pub duty: Duty,
    /// The configuration.
    pub settings: Settings,
    /// What is wrong with the files, if these are the last good settings instead.
    pub problem: Problem,
    /// The state directory.
    pub state: PathBuf,
}

/// What a process is for.
#[derive(Debug)]
pub enum Duty {
    /// To be the proxy.
    Main {
        /// The control socket.
        control: UnixListener,
        /// Who serves while it is restarted, if anybody can.
        helper: Option<Helper>,
    },
    /// To serve while the proxy is restarted; see [`crate::handover`]. It writes nothing but access
    /// events.
    Helper {
        /// Where it is called.
        listener: UnixListener,
        /// Who called, and waits to hear that it serves.
        caller: UnixStream,
        /// Its right to rely on the stored routes.
        turn: Arc<Turn>,
    },
}

/// Which program of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// See [`Duty::Main`].
    Main,
    /// See [`Duty::Helper`].
    Helper,
}

impl Start {
    /// Whether it is the helper of a restart.
    pub fn is_helper(&self) -> bool {
        matches!(self.duty, Duty::Helper { .. })
    }

    /// The helper's right to rely on the stored routes.
    pub(super) fn turn(&self) -> Option<Arc<Turn>> {
        match &self.duty {
            Duty::Main { .. } => None,
            Duty::Helper { turn, .. } => Some(Arc::clone(turn)),
        }
    }

    /// The helper this main process can have.
    pub(super) fn helper(&self) -> Option<Helper> {
        match &self.duty {
            Duty::Main { helper, .. } => helper.clone(),
            Duty::Helper { .. } => None,
        }
    }
}

pub(super) type Failed = (Exit, String);

pub(super) fn prepare(kind: Kind, mut listeners: Listeners) -> Result<Start, Failed> {
    let usage = |error: temps_unit::listen::ListenError| (Exit::Usage, error.to_string());
    let own = match kind {
        Kind::Main => CONTROL,
        Kind::Helper => HANDOVER,
    };
    let own = listeners.take_unix(own).map_err(usage)?;
    let mut caller = None;
    if kind == Kind::Helper {
        listeners.finish().map_err(usage)?;
        let (passed, stream) =
            sockets::receive(&own).map_err(|error| (Exit::Unavailable, error.to_string()))?;
        (listeners, caller) = (passed, Some(stream));
    }
    let mut take = |names: [&str; 2]| {
        let there: Vec<&str> = names
            .into_iter()
            .filter(|name| listeners.names().any(|n| n == *name))
            .collect();
        there
            .into_iter()
            .map(|name| listeners.take_tcp(name))
            .collect::<Result<Vec<_>, _>>()
    };
    let http = take(HTTP).map_err(usage)?;
    let https = take(HTTPS).map_err(usage)?;
    listeners.finish().map_err(usage)?;
    let is_open = !http.is_empty() || !https.is_empty();
    if !is_open {
        let problem = format!("no socket named {} or {} was passed", HTTP[0], HTTPS[0]);
        // Somebody else has the ports. Deployments need the rest of it: new instances are checked, and
        // routes are ready when the ports are free.
        tracing::warn!("{problem}: nobody is served until it is restarted with one");
    }
    let configured = |error: &dyn std::fmt::Display| (Exit::Config, error.to_string());
    let dirs = Dirs::from_env().map_err(|error| configured(&error))?;
    let state = dirs.state().map_err(|error| configured(&error))?.to_owned();
    let found = read_settings(&state).map_err(|error| configured(&error))?;
    let problem = Problem::default();
    if let Some(wrong) = found.problem {
        tracing::error!("the configuration is wrong: {wrong}; the last good one is used");
        problem.store(Some(Arc::new(wrong)));
    }
    let mut settings = found.settings;
    settings.limits.connections = settings.limits.connections.min(room_for_connections());
    let duty = match caller {
        None => Duty::Main {
            control: own,
            // Nobody would start it, or it would have nothing to serve on.
            helper: (is_open && !settings.standalone)
                .then(|| Helper::new(&settings.handover_socket)),
        },
        Some(caller) => Duty::Helper {
            listener: own,
            caller,
            turn: turn(&state)?,
        },
    };
    Ok(Start {
        http,
        https,
        duty,
        settings,
        problem,
        state,
    })
}

/// Waits until the main process does not replace the routes, at most for a write to the disk.
fn turn(state: &Path) -> Result<Arc<Turn>, Failed> {
    match Store::new(state).turn() {
        Ok(turn) => Ok(Arc::new(turn)),
        Err(error) => Err((Exit::Unavailable, format!("nothing can be served: {error}"))),
    }
}

pub(super) fn read_settings(state: &Path) -> Result<config::Found<Settings>, config::ConfigError> {
    let directories = config::directories();
    config::load_or_last_good(settings::NAME, &directories, state, |_| Ok(()))
}

/// How many connections the limit on descriptors allows: each may need a second one to its target,
/// and a proxy that accepts what it cannot forward answers with errors. Raises the limit to what is
/// allowed, since the usual soft limit of 1024 is for programs that use select(2).
fn room_for_connections() -> usize {
    let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        },
        Err(_) => 1024,
    };
    usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS) / 2)
        .unwrap_or(usize::MAX)
        .max(16)
}
