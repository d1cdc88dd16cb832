//! Ends the instances with the platform.
//!
//! While it runs, deployd leaves instances alone when it ends, so that its own restart does not
//! touch them. They become children of `temps up` then, as does whatever else deployd had started.
//! Instances are stopped in deployd's own way, so that the next start knows that it was us; what is
//! still there afterwards is killed.

use super::children::Children;
use super::log;
use super::place::Place;
use nix::sys::signal::{Signal, kill};
use std::time::{Duration, Instant};

/// How long an instance may take to answer its last requests after SIGTERM: as deployd's
/// `stop-grace`.
const GRACE: Duration = Duration::from_secs(10);

/// How long what is left may take to end after SIGTERM. Nothing here answers requests.
const LEFTOVERS: Duration = Duration::from_secs(2);

/// How long killed processes may take to disappear; each one that ends may leave its children.
const KILLED: Duration = Duration::from_secs(5);

/// Pause between two looks at what is left.
const LOOK: Duration = Duration::from_millis(20);

/// Stops every instance, and whatever else deployd left.
pub async fn stop(children: &Children, place: &Place) {
    // Those of a `temps up` that was killed are not our children, and stopped all the same.
    stop_all(place, GRACE).await;
    signal_inherited(children, Signal::SIGTERM);
    if !gone(children, LEFTOVERS).await {
        log::say("some processes did not end in time and are killed");
        kill_inherited(children).await;
    }
}

/// Kills every daemon and what it left, without asking.
pub async fn kill_all(children: &Children, place: &Place) {
    children.signal_all(Signal::SIGKILL);
    let deadline = Instant::now() + KILLED;
    while children.any() && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        children.reap();
    }
    stop_all(place, Duration::ZERO).await;
    kill_inherited(children).await;
}

async fn stop_all(place: &Place, grace: Duration) {
    let state = place.deployd_state();
    let left = temps_deployd::standalone::stop_instances(&state, &place.configs(), grace).await;
    for what in left {
        log::say(&format!("stopping the apps: {what}"));
    }
}

async fn kill_inherited(children: &Children) {
    let deadline = Instant::now() + KILLED;
    while Instant::now() < deadline {
        signal_inherited(children, Signal::SIGKILL);
        // Those that ended may have left children of their own, which are ours now.
        if gone(children, LOOK).await {
            return;
        }
    }
    log::say("some processes could not be killed");
}

/// Whether nothing is left, within `patience`.
async fn gone(children: &Children, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        children.reap();
        if children.inherited().is_empty() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn signal_inherited(children: &Children, signal: Signal) {
    // Ours to reap, and nobody reaps between the two lines: the ids still mean these processes.
    for pid in children.inherited() {
        // It may have ended by now without being reaped; then there is nothing to do.
        let _ = kill(pid, signal);
    }
}
