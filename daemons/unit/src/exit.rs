//! Exit statuses of daemons and commands, after sysexits(3).
//!
//! They are an interface: units set `RestartPreventExitStatus=64 77 78`, because starting again
//! changes neither a wrong argument nor a denied access nor a wrong configuration.

use std::process::ExitCode;

/// Why a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked to.
    Success = 0,
    /// Wrong arguments.
    Usage = 64,
    /// Something needed is not there: a socket, a daemon, the container engine.
    Unavailable = 69,
    /// A defect, or a state nobody foresaw.
    Internal = 70,
    /// Reading or writing failed, or no space is left.
    Io = 74,
    /// Something else is under way; trying again later may succeed.
    Busy = 75,
    /// Not allowed.
    Denied = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl Exit {
    /// The number the parent process sees.
    pub const fn status(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temps_ipc::Code;

    #[test]
    fn statuses_agree_with_those_of_faults() {
        for (exit, code) in [
            (Exit::Usage, Code::Invalid),
            (Exit::Unavailable, Code::Unavailable),
            (Exit::Internal, Code::Internal),
            (Exit::Io, Code::NoSpace),
            (Exit::Busy, Code::Busy),
            (Exit::Denied, Code::Denied),
            (Exit::Config, Code::Config),
        ] {
            assert_eq!(exit.status(), code.exit_status());
        }
    }
}
