//! Runs a source's own build command, and hands on what it made as an archive.

use super::{BuildRequest, Ended, frame, room};
use crate::adapter::build::command::PATH;
use crate::adapter::build::here::SHELL;
use crate::archive::pack::pack;
use crate::archive::{self, Links};
use std::io::{self, BufWriter};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

pub(super) fn run(mut socket: UnixStream) -> io::Result<()> {
    // The command runs as the same user: it shall not look into this process, which has the socket.
    nix::sys::prctl::set_dumpable(false)?;
    let request: BuildRequest = frame::read(&mut socket)?;
    let here = Path::new(".");
    let go = AtomicBool::new(false);
    if let Err(error) = archive::unpack(&socket, here, request.limits, Links::Within, &go) {
        return match room() {
            Ok(()) => Err(io::Error::other(error.to_string())),
            Err(full) => frame::write(&mut socket, &Ended::without_room(full)),
        };
    }
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SHELL, "sh", &request.command])
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null());
    for name in ["HOME", "TMPDIR", "USER", "LOGNAME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let status = command.envs(&request.env).status()?;
    drop(request);
    let ended = Ended {
        full: (!status.success()).then(room).and_then(Result::err),
        status: status.code(),
        signal: status.signal(),
    };
    frame::write(&mut socket, &ended)?;
    if status.success() {
        pack(here, BufWriter::new(socket))?;
    }
    Ok(())
}
