//! Where events go: to the journal with their fields, or to stderr as lines for people.
//!
//! The journal is taken only if `$JOURNAL_STREAM` names the very file that stderr is: a daemon whose
//! output was redirected follows the redirection. Priorities are those an administrator expects:
//! `error` 3, `warn` 4, `info` 6, `debug` and `trace` 7. Fields keep their names, in capitals and
//! without prefix, so that catalogs find them: name fields of ours `temps_app`, `temps_release`.
//!
//! An event that operators act on carries a [`MessageId`], by [`event!`](crate::event); its text is in the
//! message catalog.

pub mod level;
mod line;

use std::io::{self, IsTerminal};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// Says what is logged, in the syntax of `tracing_subscriber::EnvFilter`: `debug`,
/// `info,temps_proxy=trace`. Without it: `info`.
pub const LEVEL_VARIABLE: &str = "TEMPS_LOG";

/// tarpc opens a span for each request, whose fields say nothing to an administrator, and calls a
/// deadline that passed an error; what matters of its failures is said by who made the call.
const DEFAULT_FILTER: &str = "info,tarpc=off";

/// The identity of a kind of event in the journal (`MESSAGE_ID=`): made by `systemd-id128 new`, and
/// never changed afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(&'static str);

impl MessageId {
    /// Checks that `id` is 32 lower-case hexadecimal digits; in a constant, while compiling.
    pub const fn new(id: &'static str) -> Self {
        let bytes = id.as_bytes();
        assert!(bytes.len() == 32, "a message id has 32 digits");
        let mut index = 0;
        while index < bytes.len() {
            assert!(
                matches!(bytes[index], b'0'..=b'9' | b'a'..=b'f'),
                "a message id is lower-case hexadecimal"
            );
            index += 1;
        }
        Self(id)
    }

    /// The 32 digits.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Logs an event with a [`MessageId`]: `event!(info, LIVE, temps_app = %app, "{app} is live")`.
///
/// The level is one of `error`, `warn`, `info`, `debug`, `trace`; the rest is as in `tracing`.
#[macro_export]
macro_rules! event {
    ($level:ident, $id:expr, $($rest:tt)+) => {
        $crate::journal::tracing::$level!(
            message_id = $crate::journal::MessageId::as_str($id),
            $($rest)+
        )
    };
}

/// For [`event!`](crate::event) only.
#[doc(hidden)]
pub use tracing;
/// Starts logging for the rest of the process; `applet` becomes `SYSLOG_IDENTIFIER=`. A second call
/// does nothing.
pub fn init(applet: &str) {
    let (filter, wrong) = filter(std::env::var(LEVEL_VARIABLE).ok().as_deref());
    let journal = journal(applet);
    let is_journal = journal.is_some();
    let output: Box<dyn Layer<Registry> + Send + Sync> = match journal {
        Some(journal) => journal.boxed(),
        None => lines(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()).boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter);
    // Fails only if logging was started before.
    if tracing_subscriber::registry()
        .with(output.with_filter(filter))
        .try_init()
        .is_ok()
    {
        // The only place that sets it, and it comes here once.
        let _ = level::RUNNING.set(level::Running {
            filter: handle,
            applet: applet.to_owned(),
            is_journal,
        });
        if let Some(wrong) = wrong {
            tracing::warn!("{LEVEL_VARIABLE} cannot be understood, logging at info: {wrong}");
        }
    }
}

/// The filter asked for; if it is malformed, the default and what is wrong.
fn filter(wanted: Option<&str>) -> (EnvFilter, Option<String>) {
    let default = || EnvFilter::new(DEFAULT_FILTER);
    match wanted {
        None | Some("") => (default(), None),
        Some(wanted) => match EnvFilter::try_new(wanted) {
            Ok(filter) => (filter, None),
            Err(error) => (default(), Some(error.to_string())),
        },
    }
}

/// The native journal, if stderr is connected to it.
fn journal(applet: &str) -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = nix::sys::stat::fstat(io::stderr()).ok()?;
    if !is_stream(&stream, stderr.st_dev, stderr.st_ino) {
        return None;
    }
    let journal = tracing_journald::layer().ok()?;
    Some(
        journal
            .with_field_prefix(None)
            .with_syslog_identifier(applet.to_owned())
            .with_priority_mappings(PriorityMappings {
                info: Priority::Informational,
                debug: Priority::Debug,
                trace: Priority::Debug,
                ..PriorityMappings::new()
            }),
    )
}

/// Whether `$JOURNAL_STREAM` ("device:inode", decimal) names this file.
fn is_stream(stream: &str, device: u64, inode: u64) -> bool {
    let Some((named_device, named_inode)) = stream.split_once(':') else {
        return false;
    };
    named_device.parse() == Ok(device) && named_inode.parse() == Ok(inode)
}

fn lines(colour: bool) -> impl Layer<Registry> + Send + Sync {
    fmt::layer()
        .with_ansi(colour)
        .fmt_fields(line::Fields)
        .with_writer(io::stderr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::filter::LevelFilter;

    const ID: MessageId = MessageId::new("0123456789abcdef0123456789abcdef");

    #[test]
    fn message_ids_are_checked() {
        assert_eq!(ID.to_string(), "0123456789abcdef0123456789abcdef");
        for wrong in [
            "",
            "0123",
            "0123456789ABCDEF0123456789ABCDEF",
            "0123456789abcdef0123456789abcdeg",
        ] {
            assert!(
                std::panic::catch_unwind(|| MessageId::new(wrong)).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn the_journal_is_taken_only_if_stderr_is_its_stream() {
        assert!(is_stream("8:1234", 8, 1234));
        for other in ["", "8", "8:", "8:1235", "9:1234", "8:1234:5", "x:y"] {
            assert!(!is_stream(other, 8, 1234), "{other:?}");
        }
    }

    #[test]
    fn a_malformed_level_is_reported_and_replaced_by_info() {
        let (given, wrong) = filter(Some("a=b=c"));
        assert_eq!(given.max_level_hint(), Some(LevelFilter::INFO));
        assert!(wrong.is_some());
        assert_eq!(filter(None).0.max_level_hint(), Some(LevelFilter::INFO));
        assert_eq!(filter(Some("debug")).0.to_string(), "debug");
    }
}
