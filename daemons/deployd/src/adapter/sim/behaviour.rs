//! How the instances of a release behave.

use std::time::Duration;

/// How the instances of a release behave, and how it is built.
///
/// Read from text `NAME[:MILLISECONDS]`; anything unknown is [`Behaviour::Healthy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// `healthy`: works at once.
    #[default]
    Healthy,
    /// `slow-start:MS`: nothing listens before.
    SlowStart(Duration),
    /// `silent`: nothing ever listens.
    Silent,
    /// `wrong-port`: something listens on `127.0.0.1:9999`.
    WrongPort,
    /// `error`: answers 500.
    Error,
    /// `bad-later:MS`: works, then answers 500.
    BadLater(Duration),
    /// `crash`: ends at once with status 3.
    Crash,
    /// `dies:MS`: works, then ends with status 3.
    Dies(Duration),
    /// `start-refused`: the runtime refuses to start it.
    StartRefused,
    /// `build-fails`: never becomes a release.
    BuildFails,
    /// `slow-build:MS`: takes that long to build, then works.
    SlowBuild(Duration),
}

impl Behaviour {
    /// The behaviour that the text names.
    pub fn parse(text: &str) -> Self {
        let (name, time) = text.split_once(':').unwrap_or((text, ""));
        let time = Duration::from_millis(time.parse().unwrap_or(1_000));
        match name {
            "slow-start" => Self::SlowStart(time),
            "silent" => Self::Silent,
            "wrong-port" => Self::WrongPort,
            "error" => Self::Error,
            "bad-later" => Self::BadLater(time),
            "crash" => Self::Crash,
            "dies" => Self::Dies(time),
            "start-refused" => Self::StartRefused,
            "build-fails" => Self::BuildFails,
            "slow-build" => Self::SlowBuild(time),
            _ => Self::Healthy,
        }
    }

    /// How long an instance runs, if it ends by itself.
    pub(super) fn exits_after(self) -> Option<Duration> {
        match self {
            Self::Crash => Some(Duration::ZERO),
            Self::Dies(after) => Some(after),
            _ => None,
        }
    }
}
