//! A restart without a pause: while the main process drains and the next one starts, a helper serves.
//!
//! ```text
//! main, old   serves ──SIGTERM──> stay ─┐         ┌─> stops accepting ─> drains ─> exits
//!                                       v         │
//! helper                        starts ─> serves ─┴────────────────────────┬─> drains ─> exits
//!                                                                          │ leave        │
//! main, new                                            starts ─> stay ─> serves           v
//!                                                        routes may be replaced again ────┘
//! ```
//!
//! All of them accept on the same sockets, so no connection is lost between them. The helper is a
//! service of its own, started by the service manager when somebody connects to its socket, and it
//! is another run of the same program: it serves on the sockets that the main process passes to it
//! ([`sockets`]), and what it serves is the stored snapshot, which cannot be replaced as long as it
//! lives ([`crate::store::turn`]).
//!
//! On that socket one line is one word, and its answer one line:
//!
//! | word | answer | meaning |
//! |---|---|---|
//! | `stay` | `serving`, `leaving`, `stopping` | go on as long as this connection is open |
//! | `stay NAME…` | the same | the same; sockets of these names come with it, for one that starts |
//! | `leave` | `leaving`, or `serving` if others hold it | others serve now: drain and end |
//! | `leases INSTANCE` | `leases N` | how many requests are in flight to it |
//!
//! A connection that ends is a process that ended. A helper that nobody holds any more ends by
//! itself ([`ABANDONED`]), and a main process that gets no helper drains without one: nothing waits
//! for anybody for ever, whoever is killed.

pub mod client;
mod line;
pub mod server;
pub mod sockets;

use std::time::Duration;
use temps_ipc::id::InstanceId;

/// A helper that no main process holds for this long ends: it was stopped for good. Longer than the
/// pause before a crashed one is started again, and than a start takes.
pub const ABANDONED: Duration = Duration::from_secs(10);

/// What a main process says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Stay,
    Leave,
    Leases(InstanceId),
}

/// What the helper answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It accepts connections.
    Serving,
    /// It drains, and another helper can be had after its end.
    Leaving,
    /// It is being stopped, and so is everything.
    Stopping,
    /// Requests in flight.
    Leases(u64),
}

impl Word {
    fn read(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None if line == "stay" => Some(Self::Stay),
            None if line == "leave" => Some(Self::Leave),
            // One that serves has sockets already.
            Some(("stay", names)) if !names.is_empty() => Some(Self::Stay),
            Some(("leases", id)) => id.parse().ok().map(Self::Leases),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Stay => "stay".to_owned(),
            Self::Leave => "leave".to_owned(),
            Self::Leases(id) => format!("leases {id}"),
        }
    }
}

impl Answer {
    fn read(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None if line == "serving" => Some(Self::Serving),
            None if line == "leaving" => Some(Self::Leaving),
            None if line == "stopping" => Some(Self::Stopping),
            Some(("leases", count)) => count.parse().ok().map(Self::Leases),
            _ => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Serving => "serving".to_owned(),
            Self::Leaving => "leaving".to_owned(),
            Self::Stopping => "stopping".to_owned(),
            Self::Leases(count) => format!("leases {count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_answers_are_read_as_they_are_written() {
        for word in [Word::Stay, Word::Leave, Word::Leases(InstanceId::fresh())] {
            assert_eq!(Word::read(&word.text()), Some(word));
        }
        for answer in [
            Answer::Serving,
            Answer::Leaving,
            Answer::Stopping,
            Answer::Leases(7),
        ] {
            assert_eq!(Answer::read(&answer.text()), Some(answer));
        }
        assert_eq!(Word::read("stay http https"), Some(Word::Stay));
        for nonsense in ["", "stay ", "leases", "leases x", "leave now", "serving"] {
            assert_eq!(Word::read(nonsense), None, "{nonsense}");
        }
        assert_eq!(Answer::read("leases -1"), None);
    }
}
