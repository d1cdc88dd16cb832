//! What the daemons are told: configuration files, names to be started by, directories.
//!
//! Ours are `RUNTIME/config/<daemon>.toml`, written anew at every start. Yours are
//! `STATE/config/<daemon>.toml` and `STATE/config/<daemon>.toml.d/*.toml`, and win: `TEMPS_CONFIG_PATH`
//! names both directories, later ones first.

use super::daemon::{Daemon, Policy};
use super::place::Place;
use super::sockets::{Named, Sockets};
use crate::applet::APPLETS;
use crate::instance::{self, DEPLOYD, PROXY};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use temps_ipc::types::Host;
use temps_ipc::{Code, Fault};

/// How every daemon is to be started.
#[derive(Debug)]
pub struct Config {
    bin: PathBuf,
    notify: PathBuf,
    search: OsString,
    state: PathBuf,
    runtime: PathBuf,
}

/// Writes the files and links.
///
/// # Errors
/// When they cannot be written.
pub fn write(place: &Place, base_domain: &Host, sockets: &Sockets) -> Result<Config, Fault> {
    let [ours, yours] = place.configs();
    let bin = place.runtime.join("bin");
    let failed = |what: &Path, error: &io::Error| {
        Fault::new(
            Code::NoSpace,
            format!("{} cannot be written: {error}", what.display()),
        )
    };
    for dir in [&ours, &bin] {
        std::fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
    }
    let text = |path: &Path| toml_string(path);
    let proxy = format!(
        "# Written by `temps up` at every start: write yours to {}\nstandalone = true\ndeployd-socket = {}\n",
        yours.join("proxy.toml").display(),
        text(&place.runtime.join(DEPLOYD)),
    );
    let deployd = format!(
        "# Written by `temps up` at every start: write yours to {}\n\
         standalone = true\n\
         base-domain = \"{base_domain}\"\n\
         public-port = {}\n\
         proxy-socket = {}\n\
         instance-program = {}\n",
        yours.join("deployd.toml").display(),
        sockets.http_port(),
        text(&place.runtime.join(PROXY)),
        text(&bin.join(temps_deployd::INSTANCE_APPLET.name)),
    );
    for (name, content) in [("proxy.toml", proxy), ("deployd.toml", deployd)] {
        let path = ours.join(name);
        std::fs::write(&path, content).map_err(|error| failed(&path, &error))?;
    }
    links(&bin).map_err(|error| failed(&bin, &error))?;
    let search = std::env::join_paths([&ours, &yours]).map_err(|_| {
        Fault::invalid("the state and runtime directories cannot have `:` in their paths")
            .hint("choose others with --state and --runtime-dir")
    })?;
    Ok(Config {
        bin,
        notify: place.notify(),
        search,
        state: place.state.clone(),
        runtime: place.runtime.clone(),
    })
}

impl Config {
    /// The proxy.
    pub fn proxy(&self, sockets: Vec<Named>) -> Daemon {
        self.daemon(temps_proxy::APPLET.name, "proxy", Policy::Always, sockets)
    }

    /// Deployd.
    pub fn deployd(&self, sockets: Vec<Named>) -> Daemon {
        self.daemon(
            temps_deployd::APPLET.name,
            "deployd",
            Policy::OnDemand,
            sockets,
        )
    }

    fn daemon(
        &self,
        name: &'static str,
        short: &str,
        policy: Policy,
        sockets: Vec<Named>,
    ) -> Daemon {
        let environment = vec![
            ("STATE_DIRECTORY", self.state.join(short).into()),
            ("RUNTIME_DIRECTORY", self.runtime.join(short).into()),
            ("NOTIFY_SOCKET", self.notify.clone().into()),
            (temps_unit::config::PATH_VARIABLE, self.search.clone()),
        ];
        Daemon {
            name,
            path: self.bin.join(name),
            policy,
            notice: instance::notice(&self.runtime, short),
            sockets,
            environment,
        }
    }
}

/// A link per applet to this binary, so that each is known by its name.
fn links(bin: &Path) -> io::Result<()> {
    let binary = std::env::current_exe()?;
    for applet in APPLETS {
        let link = bin.join(applet.name);
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::os::unix::fs::symlink(&binary, &link)?,
        }
    }
    Ok(())
}

/// A path as a TOML basic string (<https://toml.io/en/v1.0.0#string>).
fn toml_string(path: &Path) -> String {
    let mut text = String::from("\"");
    for character in path.to_string_lossy().chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            control if control.is_control() => {
                text.push_str(&format!("\\u{:04X}", u32::from(control)))
            }
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_toml() {
        assert_eq!(
            toml_string(Path::new("/a b/\"c\"\\d\n")),
            r#""/a b/\"c\"\\d\u000A""#
        );
    }
}
