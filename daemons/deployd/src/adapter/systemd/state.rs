//! How an instance is, by the properties of its unit.

use crate::port::InstanceState;
use nix::libc;
use nix::sys::signal::Signal;
use std::collections::HashMap;
use temps_ipc::types::Timestamp;
use zbus::OwnedVariant;

/// The properties of a unit, read by name.
pub(super) struct Found<'a>(pub(super) &'a HashMap<String, OwnedVariant>);

impl Found<'_> {
    pub(super) fn text(&self, name: &str) -> &str {
        self.0
            .get(name)
            .and_then(|value| value.try_into().ok())
            .unwrap_or_default()
    }

    fn number(&self, name: &str) -> i64 {
        let Some(value) = self.0.get(name) else {
            return 0;
        };
        i32::try_from(value)
            .map(i64::from)
            .or_else(|_| u32::try_from(value).map(i64::from))
            .or_else(|_| {
                u64::try_from(value).map(|number| i64::try_from(number).unwrap_or(i64::MAX))
            })
            .unwrap_or_default()
    }

    /// How the instance is.
    pub(super) fn state(&self, memory: u64) -> InstanceState {
        match (self.text("ActiveState"), self.text("SubState")) {
            ("active", "exited") | ("failed", _) => InstanceState::Exited {
                how: self.end(memory),
                at: self.ended_at(),
            },
            ("active" | "activating" | "reloading" | "deactivating", _) => InstanceState::Running,
            _ => InstanceState::Absent,
        }
    }

    fn ended_at(&self) -> Option<Timestamp> {
        let micros = self.number("ExecMainExitTimestamp");
        (micros > 0).then_some(Timestamp(micros / 1_000))
    }

    /// How it ended, in words.
    fn end(&self, memory: u64) -> String {
        let status = i32::try_from(self.number("ExecMainStatus")).unwrap_or_default();
        match (self.text("Result"), self.number("ExecMainCode")) {
            ("oom-kill", _) => format!(
                "was killed because it needed more than its memory limit of {} MiB",
                memory / (1024 * 1024)
            ),
            ("watchdog" | "timeout", _) => "did not start in time".to_owned(),
            (_, code) if code == i64::from(libc::CLD_EXITED) => {
                format!("exited with status {status}")
            }
            (_, code)
                if [libc::CLD_KILLED, libc::CLD_DUMPED]
                    .map(i64::from)
                    .contains(&code) =>
            {
                let name = Signal::try_from(status).map_or("an unknown one", Signal::as_str);
                format!("was killed by signal {status} ({name})")
            }
            ("", _) | ("success", _) => "ended in an unknown way".to_owned(),
            (other, _) => format!("could not run ({other})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::Variant;

    fn unit(pairs: &[(&str, Variant<'static>)]) -> HashMap<String, OwnedVariant> {
        let owned = |(name, value): &(&str, Variant<'static>)| {
            (
                (*name).to_owned(),
                OwnedVariant::try_from(value.try_clone().unwrap()).unwrap(),
            )
        };
        pairs.iter().map(owned).collect()
    }

    fn said(
        active: &'static str,
        sub: &'static str,
        result: &'static str,
        code: i32,
        status: i32,
    ) -> InstanceState {
        let found = unit(&[
            ("ActiveState", active.into()),
            ("SubState", sub.into()),
            ("Result", result.into()),
            ("ExecMainCode", code.into()),
            ("ExecMainStatus", status.into()),
            ("ExecMainExitTimestamp", 1_000_250_000_u64.into()),
        ]);
        Found(&found).state(512 << 20)
    }

    #[test]
    fn the_end_of_an_instance_is_said_in_words() {
        for (active, sub, result, code, status, words) in [
            (
                "failed",
                "failed",
                "exit-code",
                libc::CLD_EXITED,
                3,
                "exited with status 3",
            ),
            (
                "active",
                "exited",
                "success",
                libc::CLD_EXITED,
                0,
                "exited with status 0",
            ),
            (
                "failed",
                "failed",
                "signal",
                libc::CLD_KILLED,
                9,
                "was killed by signal 9 (SIGKILL)",
            ),
            (
                "failed",
                "failed",
                "oom-kill",
                libc::CLD_KILLED,
                9,
                "was killed because it needed more than its memory limit of 512 MiB",
            ),
        ] {
            let InstanceState::Exited { how, at } = said(active, sub, result, code, status) else {
                panic!("{words}");
            };
            assert_eq!(how, words);
            assert_eq!(at, Some(Timestamp(1_000_250)));
        }
    }

    #[test]
    fn what_is_being_started_or_stopped_still_runs() {
        for (active, sub) in [
            ("active", "running"),
            ("activating", "start"),
            ("deactivating", "stop-sigterm"),
        ] {
            assert_eq!(
                said(active, sub, "success", 0, 0),
                InstanceState::Running,
                "{active}"
            );
        }
        assert_eq!(
            said("inactive", "dead", "success", 0, 0),
            InstanceState::Absent
        );
    }
}
