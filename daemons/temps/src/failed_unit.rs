//! `temps unit failed UNIT`: what `temps-failure@.service` starts when a unit has failed. It makes an
//! event of what the manager says, so that one failure is one entry that can be found and explained.

use crate::event;
use std::ffi::OsStr;
use std::process::ExitCode;
use temps_unit::journal;

/// The hidden command of the binary that calls [`run`].
pub const APPLET: [&str; 2] = ["unit", "failed"];

/// Logs that `unit` failed, and how.
pub fn run(unit: &OsStr) -> ExitCode {
    journal::init("temps-failure");
    let unit = unit.to_string_lossy();
    let how = How::from_lookup(|name| std::env::var(name).ok());
    temps_unit::event!(
        error,
        event::UNIT_FAILED,
        temps_unit = %unit,
        temps_result = %how.result,
        temps_exit_code = %how.code,
        temps_exit_status = %how.status,
        temps_invocation = %how.invocation,
        "{unit} failed: {}",
        how.words()
    );
    ExitCode::SUCCESS
}

/// What the manager says of the end of a unit (systemd.exec(5), `$MONITOR_SERVICE_RESULT`).
struct How {
    result: String,
    code: String,
    status: String,
    invocation: String,
}

impl How {
    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name| lookup(name).unwrap_or_default();
        Self {
            result: get("MONITOR_SERVICE_RESULT"),
            code: get("MONITOR_EXIT_CODE"),
            status: get("MONITOR_EXIT_STATUS"),
            invocation: get("MONITOR_INVOCATION_ID"),
        }
    }

    fn words(&self) -> String {
        let result = match self.result.as_str() {
            "exit-code" => return format!("it exited with status {}", self.status),
            "signal" => return format!("it was killed by SIG{}", self.status),
            "core-dump" => return format!("it was ended by SIG{} and dumped core", self.status),
            "watchdog" => "it gave no sign of life in time",
            "timeout" => "it took too long to start or to stop",
            "oom-kill" => "it was killed when memory ran out",
            "start-limit-hit" => "it failed too often in a short time and is not started again",
            // Nothing, or asked for when the unit was already being started again.
            "" | "success" => "see its own entries",
            other => other,
        };
        result.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(result: &str, status: &str) -> String {
        How::from_lookup(|name| match name {
            "MONITOR_SERVICE_RESULT" => Some(result.to_owned()),
            "MONITOR_EXIT_STATUS" => Some(status.to_owned()),
            _ => None,
        })
        .words()
    }

    #[test]
    fn how_a_unit_failed_is_said_in_words() {
        assert_eq!(words("exit-code", "78"), "it exited with status 78");
        assert_eq!(words("signal", "KILL"), "it was killed by SIGKILL");
        assert_eq!(words("resources", ""), "resources");
        for unknown in ["", "success"] {
            assert_eq!(words(unknown, ""), "see its own entries");
        }
    }
}
