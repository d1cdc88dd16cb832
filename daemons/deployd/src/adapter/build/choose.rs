//! Finds out what a source is, and which runtime it is for.

use super::procfile::{MAX_PROCFILE, Procfile};
use super::system;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use temps_ipc::Fault;
use temps_ipc::types::RuntimeKind;

/// What will be made of a source.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Served as it is.
    Files,
    /// Run by its Procfile.
    Process {
        /// The command of `web`.
        command: String,
        /// Other process types, which nothing runs yet.
        ignored: Vec<String>,
    },
    /// Built into an image.
    Dockerfile,
}

/// What both say to a source that has neither.
const ADD: &str = "add a Dockerfile, or a Procfile with a line such as `web: python3 app.py` (it listens on $PORT)";

/// What to make of the source in `root`.
pub(super) fn plan(
    root: &Path,
    asked: Option<RuntimeKind>,
    has_docker: bool,
    has_process: bool,
) -> Result<Plan, Fault> {
    let has_dockerfile = root.join("Dockerfile").is_file();
    let web = || -> Result<Plan, Fault> {
        let file = read_procfile(root)?;
        let file = file.ok_or_else(|| {
            Fault::invalid("the source has no Procfile, which the process runtime needs").hint(
                if has_dockerfile {
                    "it has a Dockerfile: use `--runtime docker`, or add a Procfile with a `web` line"
                } else {
                    "add a file `Procfile` with a line such as `web: python3 app.py`"
                },
            )
        })?;
        let command = file.command("web").ok_or_else(|| {
            let names: Vec<&str> = file.names().collect();
            Fault::invalid(format!(
                "the Procfile has no process type `web` (it has: {})",
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            ))
            .hint("name the command that serves requests `web`")
        })?;
        Ok(Plan::Process {
            command: command.to_owned(),
            ignored: file
                .names()
                .filter(|name| *name != "web")
                .map(str::to_owned)
                .collect(),
        })
    };
    match asked {
        Some(RuntimeKind::Static) => Ok(Plan::Files),
        Some(RuntimeKind::Systemd) => Err(super::unsupported_systemd()),
        Some(RuntimeKind::Process) if !has_process => {
            Err(Fault::invalid("the process runtime exists only under `temps up`")
                .hint("use `--runtime docker`"))
        }
        Some(RuntimeKind::Process) => web(),
        Some(RuntimeKind::Docker) if has_dockerfile => Ok(Plan::Dockerfile),
        Some(RuntimeKind::Docker) => {
            Err(Fault::invalid("the source has no Dockerfile, which the docker runtime needs")
                .hint("add a file `Dockerfile` at the top of the source"))
        }
        None if has_dockerfile && has_docker => Ok(Plan::Dockerfile),
        None if root.join("Procfile").is_file() && has_process => web(),
        None if has_dockerfile => Err(Fault::unavailable(
            "the source has a Dockerfile, and this installation has no container engine",
        )
        .hint("install one (`apt-get install docker.io`), or add a Procfile")),
        None if root.join("Procfile").is_file() => Err(Fault::invalid(
            "the source has a Procfile and no Dockerfile, and the process runtime exists only under `temps up`",
        )
        .hint("add a Dockerfile at the top of the source")),
        None if root.join("index.html").is_file() => Err(Fault::invalid(
            "the source has neither a Dockerfile nor a Procfile, only files",
        )
        .hint("to serve them as they are, use `--static DIR`; otherwise add a Dockerfile or a Procfile")),
        None => Err(
            Fault::invalid("the source has neither a Dockerfile nor a Procfile at its top").hint(ADD),
        ),
    }
}

fn read_procfile(root: &Path) -> Result<Option<Procfile>, Fault> {
    let file = match File::open(root.join("Procfile")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(system(&error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_PROCFILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| system(&error))?;
    if bytes.len() as u64 > MAX_PROCFILE {
        return Err(Fault::invalid(format!(
            "the Procfile has more than {MAX_PROCFILE} bytes"
        )));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| Fault::invalid("the Procfile is not valid UTF-8"))?;
    match Procfile::parse(&text) {
        Ok(file) => Ok(Some(file)),
        Err(error) => Err(Fault::invalid(error.to_string())
            .hint("a Procfile has one `NAME: COMMAND` per line, and comments that start with `#`")),
    }
}
