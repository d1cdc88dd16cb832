//! Fetches from git, and hands on what was fetched as an archive.

use super::{FetchRequest, Fetched, frame, room};
use crate::adapter::build::git;
use crate::adapter::build::output::Log;
use crate::archive::pack::pack;
use std::io::{self, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::types::LogStream;

/// Hands lines on to whoever writes the log.
struct Printed;

impl Log for Printed {
    fn push(&mut self, stream: LogStream, text: &str) {
        // Nobody is left to tell if it cannot be written.
        let _ = match stream {
            LogStream::Stderr => writeln!(io::stderr(), "{text}"),
            LogStream::Stdout | LogStream::Platform => writeln!(io::stdout(), "{text}"),
        };
    }

    fn flush(&mut self) {
        let _ = io::stdout().flush();
    }
}

pub(super) fn run(mut socket: UnixStream) -> io::Result<()> {
    let request: FetchRequest = frame::read(&mut socket)?;
    if let Some(place) = &request.place
        && !place.is_there()
    {
        let what = format!(
            "the git repository at {} is not the one that was there a moment ago",
            place.shown()
        );
        let fault = Fault::invalid(what).hint("deploy again when nobody changes its place");
        return frame::write(&mut socket, &Err::<Fetched, _>(fault));
    }
    let directory = std::env::current_dir()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let limit = Duration::from_secs(request.limit_seconds);
    let reference = request.reference.as_deref();
    let checkout = runtime.block_on(git::checkout(
        &request.url,
        reference,
        &directory,
        limit,
        &mut Printed,
    ));
    match checkout {
        Ok(checkout) => {
            let source = checkout.source;
            frame::write(&mut socket, &Ok::<_, Fault>(Fetched { source }))?;
            pack(&checkout.root, BufWriter::new(socket))
        }
        // git says it too, but not what to do.
        Err(fault) => frame::write(
            &mut socket,
            &Err::<Fetched, _>(room().err().unwrap_or(fault)),
        ),
    }
}
