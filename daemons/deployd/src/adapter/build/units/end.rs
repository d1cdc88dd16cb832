//! How a unit ended, in words.

use super::unit::Limits;
use temps_ipc::{Code, Fault};

/// How a unit ended, as the service manager says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its program ended by itself, with status 0.
    Success,
    /// Otherwise.
    Failure {
        /// The unit's `Result=`: `oom-kill`, `timeout`, `signal`, `exit-code`…
        result: String,
        /// What it ended with: a status or a signal's number, by the result.
        status: i32,
    },
}

impl End {
    /// Whether it was ended by somebody else.
    pub(super) fn was_killed(&self) -> bool {
        match self {
            Self::Success => false,
            Self::Failure { result, .. } => result != "exit-code",
        }
    }

    /// What that means for who waits for the unit.
    ///
    /// # Errors
    /// Unless it succeeded.
    pub(super) fn judge(self, limits: &Limits) -> Result<(), Fault> {
        let Self::Failure { result, status } = self else {
            return Ok(());
        };
        let what = limits.what;
        Err(match result.as_str() {
            "oom-kill" => Fault::invalid(format!(
                "the {what} was killed: it used more than {}",
                size(limits.memory)
            ))
            .hint("raise build-memory in deployd.toml, or let it need less (fewer parallel jobs)"),
            "timeout" => Fault::invalid(format!(
                "the {what} was killed: it took more than {} s",
                limits.time.as_secs()
            ))
            .hint("raise build-timeout in deployd.toml if it cannot be quicker"),
            "resources" => Fault::new(
                Code::Unavailable,
                format!("the service manager has no room to start the {what}"),
            )
            .hint("`journalctl -u 'temps-job-*'` says what it lacked"),
            // systemd.exec(5): what it could not set up before the program ran has a status from 200 on.
            "exit-code" if (200..=245).contains(&status) => Fault::internal(format!(
                "the service manager cannot set up the {what} (status {status})"
            ))
            .hint("`journalctl -u 'temps-job-*'` says why"),
            // The program itself has not run: what comes before it has failed.
            "exit-code" if status == 0 => Fault::internal(format!(
                "the service manager cannot prepare the directories of the {what}"
            ))
            .hint("`journalctl -u 'temps-job-*'` says why"),
            "exit-code" => Fault::internal(format!("the {what} ended with status {status}"))
                .hint("the build log says why (`temps logs APP --build`)"),
            "signal" | "core-dump" => {
                Fault::invalid(format!("the {what} was killed by signal {status}"))
                    .hint("it was stopped from outside, or crashed; try again")
            }
            "dependency" => Fault::unavailable(format!("the network of the {what} cannot be made"))
                .hint("`journalctl -u 'temps-netns@job-*' -u temps-network` says why"),
            "canceled" => Fault::invalid(format!("the {what} was stopped from outside"))
                .hint("somebody stopped its unit; deploy again"),
            other => Fault::internal(format!("the {what} failed: {other}"))
                .hint("`journalctl -u 'temps-job-*'` says why"),
        })
    }
}

/// The number of bytes, as people say it.
fn size(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    let mib = bytes / MIB;
    if mib >= 1024 && mib.is_multiple_of(1024) {
        format!("{} GiB", mib / 1024)
    } else {
        format!("{mib} MiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn judged(result: &str, status: i32) -> Fault {
        let limits = Limits {
            what: "build",
            memory: 2 << 30,
            cpu_percent: 100,
            tasks: 10,
            time: Duration::from_secs(60),
        };
        let end = End::Failure {
            result: result.to_owned(),
            status,
        };
        end.judge(&limits).unwrap_err()
    }

    #[test]
    fn each_end_is_told_with_what_to_do() {
        for (result, status, what, hint) in [
            ("oom-kill", 9, "it used more than 2 GiB", "build-memory"),
            ("timeout", 15, "it took more than 60 s", "build-timeout"),
            ("exit-code", 226, "cannot set up the build", "journalctl"),
            (
                "exit-code",
                0,
                "cannot prepare the directories",
                "journalctl",
            ),
            ("dependency", 0, "the network of the build", "temps-network"),
            ("exit-code", 1, "ended with status 1", "build log"),
            ("signal", 9, "killed by signal 9", "again"),
            ("start-limit-hit", 0, "start-limit-hit", "journalctl"),
        ] {
            let fault = judged(result, status);
            assert!(fault.what.contains(what), "{fault:?}");
            assert!(fault.hint.contains(hint), "{fault:?}");
        }
    }

    #[test]
    fn sizes_are_round() {
        assert_eq!(size(3 << 30), "3 GiB");
        assert_eq!(size(1536 << 20), "1536 MiB");
    }
}
