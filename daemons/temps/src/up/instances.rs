//! Ends the instances of the process runtime with the platform.
//!
//! While it runs, deployd leaves instances alone when it ends, so that its own restart does not
//! touch them. They become children of `temps up` then, which ends them when it ends itself.

use super::children::Children;
use super::log;
use nix::sys::signal::{self, Signal};
use std::time::{Duration, Instant};

/// How long an instance may take to answer its last requests after SIGTERM.
const GRACE: Duration = Duration::from_secs(15);

/// How long killed processes may take to disappear; each one that ends may leave its children.
const KILLED: Duration = Duration::from_secs(5);

/// Pause between two looks at what is left.
const LOOK: Duration = Duration::from_millis(50);

/// Asks every instance to stop, waits, and kills what is left.
pub async fn stop(children: &Children) {
    let inherited = children.inherited();
    if inherited.is_empty() {
        return;
    }
    log::say(&format!("stopping {} instances", inherited.len()));
    send(children, Signal::SIGTERM);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        children.reap();
        if children.inherited().is_empty() {
            return;
        }
    }
    log::say("some processes did not stop in time and are killed");
    kill_all(children).await;
}

/// Kills what is left, without asking.
pub async fn kill(children: &Children) {
    kill_all(children).await;
}

async fn kill_all(children: &Children) {
    let deadline = Instant::now() + KILLED;
    loop {
        send(children, Signal::SIGKILL);
        tokio::time::sleep(LOOK).await;
        children.reap();
        if children.inherited().is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            log::say("some processes could not be killed");
            return;
        }
    }
}

fn send(children: &Children, number: Signal) {
    // Ours to reap, and nobody reaps between the two lines: the ids still mean these processes.
    for pid in children.inherited() {
        let _ = signal::kill(pid, number);
    }
}
