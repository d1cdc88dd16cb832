//! Finds out what a source is, and which runtime it is for.

use super::procfile::{BUILD, MAX_PROCFILE, Procfile};
use super::system;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use temps_ipc::types::RuntimeKind;
use temps_ipc::{Code, Fault};

/// What will be made of a source.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Served as it is.
    Files,
    /// Run by its Procfile.
    Procfile {
        /// The command of `web`.
        command: String,
        /// What makes it ready to run, if that is needed.
        build: Option<String>,
        /// The runtime for it.
        runtime: RuntimeKind,
        /// Other process types, which nothing runs yet.
        ignored: Vec<String>,
    },
    /// Built into an image.
    Dockerfile,
}

/// What both say to a source that has neither.
const ADD: &str = "add a Dockerfile, or a Procfile with a line such as `web: python3 app.py` (it listens on $PORT)";

/// What to make of the source in `root`; `directories` is the runtime that runs Procfiles here.
pub(super) fn plan(
    root: &Path,
    asked: Option<RuntimeKind>,
    has_docker: bool,
    directories: Option<RuntimeKind>,
) -> Result<Plan, Fault> {
    let has_dockerfile = root.join("Dockerfile").is_file();
    let has_procfile = root.join("Procfile").is_file();
    let web = |runtime: RuntimeKind| -> Result<Plan, Fault> {
        let file = read_procfile(root)?;
        let file = file.ok_or_else(|| {
            Fault::invalid(format!(
                "the source has no Procfile, which the {runtime} runtime needs"
            ))
            .hint(if has_dockerfile {
                "it has a Dockerfile: use `--runtime docker`, or add a Procfile with a `web` line"
            } else {
                "add a file `Procfile` with a line such as `web: python3 app.py`"
            })
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
        Ok(Plan::Procfile {
            command: command.to_owned(),
            build: file.command(BUILD).map(str::to_owned),
            runtime,
            ignored: file
                .names()
                .filter(|name| !["web", BUILD].contains(name))
                .map(str::to_owned)
                .collect(),
        })
    };
    match asked {
        Some(RuntimeKind::Static) => Ok(Plan::Files),
        Some(kind @ (RuntimeKind::Process | RuntimeKind::Systemd)) => {
            if directories == Some(kind) {
                web(kind)
            } else {
                Err(no_such_runtime(kind))
            }
        }
        Some(RuntimeKind::Docker) if has_dockerfile => Ok(Plan::Dockerfile),
        Some(RuntimeKind::Docker) => {
            Err(Fault::invalid("the source has no Dockerfile, which the docker runtime needs")
                .hint("add a file `Dockerfile` at the top of the source"))
        }
        None if has_dockerfile && has_docker => Ok(Plan::Dockerfile),
        None if let Some(runtime) = directories.filter(|_| has_procfile) => web(runtime),
        None if has_dockerfile => Err(Fault::unavailable(
            "the source has a Dockerfile, and this installation has no container engine",
        )
        .hint("install one (`apt-get install docker.io`), or add a Procfile")),
        None if has_procfile => Err(Fault::invalid(
            "the source has a Procfile and no Dockerfile, and this installation has no runtime for it",
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

/// Why the runtime that was asked for cannot be used here.
pub(super) fn no_such_runtime(asked: RuntimeKind) -> Fault {
    match asked {
        RuntimeKind::Process => Fault::invalid("the process runtime exists only under `temps up`")
            .hint("leave out `--runtime`, or use `--runtime docker`"),
        _ => Fault::new(
            Code::Unsupported,
            format!("this installation has no {asked} runtime"),
        )
        .hint("leave out `--runtime`; under `temps up` apps run on docker or as processes"),
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
