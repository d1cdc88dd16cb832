//! How an instance is, by the properties of its unit, and of its socket's if requests start it.
//!
//! ```text
//! socket-activated:  its unit runs ------------------------------> Running
//!                    it does not, and its socket listens --------> Resting, failed or not
//!                                 and its socket has failed -----> Exited: it was started too often
//!                                 and there is no socket --------> Absent
//! ```

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

    /// Whether a socket starts it. Only then does it not stay when it has ended ([`super::unit`]).
    pub(super) fn is_activated(&self) -> bool {
        self.0
            .get("RemainAfterExit")
            .is_some_and(|value| bool::try_from(value) == Ok(false))
    }

    /// How the instance is, which `socket` starts.
    pub(super) fn activated(&self, socket: Option<Found<'_>>, memory: u64) -> InstanceState {
        let active = self.text("ActiveState");
        if !matches!(active, "inactive" | "failed" | "") {
            return InstanceState::Running;
        }
        let Some(socket) = socket else {
            return InstanceState::Absent;
        };
        match (socket.text("ActiveState"), socket.text("Result")) {
            ("active" | "activating", _) => InstanceState::Resting {
                failed: (active == "failed").then(|| self.end(memory)),
            },
            ("failed", "service-start-limit-hit" | "trigger-limit-hit") => InstanceState::Exited {
                how: format!(
                    "{} again and again, too often for requests to start it any more",
                    self.end(memory)
                ),
                at: self.ended_at(),
            },
            ("failed", result) => InstanceState::Exited {
                how: format!("has lost its socket ({result})"),
                at: self.ended_at(),
            },
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
            (_, code) if code == i64::from(libc::CLD_EXITED) => exited(status),
            (_, code)
                if [libc::CLD_KILLED, libc::CLD_DUMPED]
                    .map(i64::from)
                    .contains(&code) =>
            {
                killed(status)
            }
            ("", _) | ("success", _) => "ended in an unknown way".to_owned(),
            (other, _) => format!("could not run ({other})"),
        }
    }
}

/// A process ended with this status, in words.
pub(super) fn exited(status: i32) -> String {
    format!("exited with status {status}")
}

/// A signal ended a process, in words.
pub(super) fn killed(signal: i32) -> String {
    let name = Signal::try_from(signal).map_or("an unknown one", Signal::as_str);
    format!("was killed by signal {signal} ({name})")
}

/// When the unit of an instance was seen to have been started last.
#[derive(Debug, Default)]
pub(super) struct Starts(u64);

impl Starts {
    /// Whether the unit, seen started `at` this time (0 or none: not at all), was started again.
    pub(super) fn is_another(&mut self, at: Option<u64>) -> bool {
        let at = at.unwrap_or_default();
        let before = std::mem::replace(&mut self.0, at);
        before != 0 && at != before
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
    fn one_that_requests_start_rests_while_its_socket_listens() {
        let service = |active: &'static str, status: i32| {
            unit(&[
                ("ActiveState", active.into()),
                ("RemainAfterExit", false.into()),
                ("Result", "exit-code".into()),
                ("ExecMainCode", libc::CLD_EXITED.into()),
                ("ExecMainStatus", status.into()),
            ])
        };
        let socket = |active: &'static str, result: &'static str| {
            unit(&[("ActiveState", active.into()), ("Result", result.into())])
        };
        let rests = |failed: Option<&str>| InstanceState::Resting {
            failed: failed.map(str::to_owned),
        };
        let listens = socket("active", "success");
        for (active, status, socket, expected) in [
            ("active", 0, Some(&listens), InstanceState::Running),
            ("inactive", 0, Some(&listens), rests(None)),
            (
                "failed",
                3,
                Some(&listens),
                rests(Some("exited with status 3")),
            ),
            ("inactive", 0, None, InstanceState::Absent),
            (
                "inactive",
                0,
                Some(&socket("inactive", "success")),
                InstanceState::Absent,
            ),
        ] {
            let service = service(active, status);
            assert!(Found(&service).is_activated());
            let state = Found(&service).activated(socket.map(Found), 512 << 20);
            assert_eq!(state, expected, "{active}");
        }
        for limit in ["service-start-limit-hit", "trigger-limit-hit"] {
            let (service, socket) = (service("failed", 3), socket("failed", limit));
            let state = Found(&service).activated(Some(Found(&socket)), 512 << 20);
            let InstanceState::Exited { how, .. } = state else {
                panic!("{limit}");
            };
            assert!(
                how.starts_with("exited with status 3 again and again"),
                "{how}"
            );
        }
        let other = unit(&[("RemainAfterExit", true.into())]);
        assert!(!Found(&other).is_activated());
    }

    #[test]
    fn only_a_start_after_another_is_another() {
        let mut starts = Starts::default();
        let seen = [None, Some(0), Some(7), Some(7), Some(9), Some(9)];
        let another = seen.map(|at| starts.is_another(at));
        assert_eq!(another, [false, false, false, false, true, false]);
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
