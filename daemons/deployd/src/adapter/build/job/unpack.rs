//! Unpacks an archive from standard input into the current directory.

use super::{UnpackRequest, frame};
use crate::archive;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use temps_ipc::Fault;

pub(super) fn run(request: UnpackRequest) -> io::Result<()> {
    let UnpackRequest { limits, links } = request;
    // Who does not want it any more ends the process.
    let go = AtomicBool::new(false);
    let unpacked = archive::unpack(io::stdin().lock(), Path::new("."), limits, links, &go);
    frame::write(&mut io::stdout(), &unpacked.map_err(Fault::from))
}
