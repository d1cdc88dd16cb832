//! The line with which `temps up` says that it serves: `ready http=URL https=URL state=DIR`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Where an instance serves, and where it keeps its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ready {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub state: PathBuf,
}

impl Default for Ready {
    fn default() -> Self {
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            http: none,
            https: none,
            state: PathBuf::new(),
        }
    }
}

/// Waits for the line; stdout is read to its end in the background.
pub(super) fn wait(child: &mut Child, limit: Duration) -> Result<Ready> {
    let stdout = child.stdout.take().context("stdout is a pipe")?;
    let (send, receive) = mpsc::sync_channel(1);
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { return };
            if line.starts_with("ready ") {
                // Only the first is waited for.
                let _ = send.try_send(line);
            }
        }
    });
    match receive.recv_timeout(limit) {
        Ok(line) => parse(&line),
        Err(RecvTimeoutError::Timeout) => bail!("temps up is not ready after {limit:?}"),
        Err(RecvTimeoutError::Disconnected) => bail!("temps up ended before it was ready"),
    }
}

fn parse(line: &str) -> Result<Ready> {
    let parts = || {
        let rest = line.strip_prefix("ready http=")?;
        let (http, rest) = rest.split_once(" https=")?;
        let (https, state) = rest.split_once(" state=")?;
        Some((http, https, state))
    };
    let (http, https, state) = parts().with_context(|| format!("not a ready line: {line}"))?;
    Ok(Ready {
        http: address(http, "http://")?,
        https: address(https, "https://")?,
        state: PathBuf::from(state),
    })
}

/// The address in a URL like `http://127.0.0.1:8080`; `localhost` is 127.0.0.1.
fn address(url: &str, scheme: &str) -> Result<SocketAddr> {
    let host = url
        .strip_prefix(scheme)
        .with_context(|| format!("'{url}' is no {scheme} URL"))?;
    let host = host.trim_end_matches('/').replace("localhost", "127.0.0.1");
    host.parse()
        .with_context(|| format!("no address and port in '{url}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_both_addresses_and_the_state() {
        let ready = parse("ready http=http://127.0.0.1:80 https=https://[::1]:443/ state=/a b=c")
            .expect("a ready line");
        assert_eq!(ready.http.port(), 80);
        assert_eq!(ready.https.to_string(), "[::1]:443");
        assert_eq!(ready.state, PathBuf::from("/a b=c"));
    }

    #[test]
    fn anything_else_is_refused_with_what_it_was() {
        let cases = [
            ("ready", "not a ready line: ready"),
            ("ready https=1 http=2", "not a ready line"),
            ("ready http=x https=y state=z", "'x' is no http:// URL"),
            (
                "ready http=http://a https=y state=z",
                "no address and port in 'http://a'",
            ),
        ];
        for (line, said) in cases {
            let error = format!("{:#}", parse(line).expect_err(line));
            assert!(error.contains(said), "{error}");
        }
    }
}
