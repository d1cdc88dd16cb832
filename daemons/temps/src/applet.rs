#![allow(
    unsafe_code,
    reason = "getauxval is only to be had from libc, and its answer is a pointer"
)]
//! The programs inside the one binary, and which of them this process is.
//!
//! The name comes from the kernel (`AT_EXECFN`, the path that was executed), not from `argv[0]`,
//! which any caller can set to any text: what a security policy allows a path to do, another name
//! cannot borrow.

use crate::failed_unit;
use nix::libc;
use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use temps_unit::Applet;
use temps_unit::listen::pass;

/// Every program that is started by its own name.
pub const APPLETS: &[Applet] = &[
    temps_proxy::APPLET,
    temps_deployd::APPLET,
    temps_deployd::INSTANCE_APPLET,
    temps_deployd::EXEC_APPLET,
    temps_deployd::NETNS_APPLET,
    temps_deployd::JOB_APPLET,
];

/// What this process shall be.
#[derive(Debug)]
pub enum Chosen {
    /// A daemon, or a helper of one.
    Daemon(Applet),
    /// The step between `temps up` and a daemon that arranges its sockets.
    Exec,
    /// What the manager starts when a unit has failed.
    Failed,
    /// The operator's command line.
    Operator,
}

/// What this process shall be, by the name it was started by; `args` come without `argv[0]`.
pub fn chosen(args: &[OsString]) -> Chosen {
    if let Some(applet) = executed().as_deref().and_then(by_path) {
        return Chosen::Daemon(applet);
    }
    if args.len() > 2 && args[0] == pass::APPLET[0] && args[1] == pass::APPLET[1] {
        return Chosen::Exec;
    }
    if args.len() == 3 && args[0] == failed_unit::APPLET[0] && args[1] == failed_unit::APPLET[1] {
        return Chosen::Failed;
    }
    Chosen::Operator
}

/// `temps unit exec`: becomes a daemon that ends with its supervisor.
pub fn exec(args: &[OsString]) -> ExitCode {
    // Kept over exec. Without it, a killed `temps up` would leave daemons on its ports.
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM) {
        eprintln!("temps unit exec: the death signal cannot be set: {error}");
    }
    pass::exec(&args[2..])
}

fn by_path(path: &OsStr) -> Option<Applet> {
    let name = Path::new(path).file_name()?;
    APPLETS.iter().find(|applet| name == applet.name).copied()
}

/// The path that was executed, as the kernel noted it (`getauxval(3)`).
fn executed() -> Option<OsString> {
    // SAFETY: getauxval reads the auxiliary vector, which never changes.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    if address == 0 {
        return None;
    }
    // SAFETY: the kernel put a NUL-terminated string there, on the initial stack, which lives as
    // long as the process and is not written to by us.
    let text = unsafe { CStr::from_ptr(address as *const libc::c_char) };
    Some(OsStr::from_bytes(text.to_bytes()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_applet_is_chosen_by_its_whole_file_name() {
        let name = |path: &str| by_path(OsStr::new(path)).map(|applet| applet.name);
        assert_eq!(name("/usr/libexec/temps/temps-proxy"), Some("temps-proxy"));
        assert_eq!(name("temps-deployd"), Some("temps-deployd"));
        for path in [
            "/usr/bin/temps",
            "/x/not-temps-proxy",
            "temps-proxy/temps",
            "",
            "/",
        ] {
            assert_eq!(name(path), None, "{path}");
        }
    }

    #[test]
    fn the_path_executed_is_known_to_the_kernel() {
        assert!(executed().is_some_and(|path| !path.is_empty()));
    }

    #[test]
    fn no_two_applets_share_a_name() {
        for (index, applet) in APPLETS.iter().enumerate() {
            assert!(
                APPLETS[..index]
                    .iter()
                    .all(|other| other.name != applet.name)
            );
        }
    }
}
