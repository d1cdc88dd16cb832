//! A daemon's life on the bus: it comes late, goes away, comes back, has our name taken, calls a daemon
//! that is just leaving.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authority;
mod echo;
mod private;

use echo::{Echo, NAME, ask};
use private::{PrivateBus, SOON, owned, unowned};
use std::sync::Arc;
use std::time::{Duration, Instant};
use temps_unit::bus::{Bus, Place};
use temps_unit::idle::Idle;
use temps_unit::task::Supervisor;
use tokio_util::sync::CancellationToken;

fn started(bus: &PrivateBus) -> Bus {
    let supervisor = Supervisor::new(CancellationToken::new());
    let place = Place::At(bus.address());
    Bus::start(Arc::new(Echo), place, Idle::never(), &supervisor)
}

fn bus() -> PrivateBus {
    let bus = PrivateBus::absent(&["sh.temps.Deploy1.conf"]);
    bus.activates(NAME, "/bin/false");
    bus
}

#[tokio::test]
async fn nothing_waits_for_a_bus_that_is_not_there() {
    let bus = bus();
    let begin = Instant::now();
    let daemon = started(&bus);
    daemon.leave().await;
    assert!(begin.elapsed() < SOON);
}

#[tokio::test]
async fn a_bus_that_comes_later_is_found() {
    let mut bus = bus();
    let daemon = started(&bus);
    tokio::time::sleep(Duration::from_millis(50)).await;
    bus.revive();
    let client = bus.connect().await;
    owned(&client, NAME).await;
    assert_eq!(ask(&client, 7).await.unwrap(), 7);
    daemon.leave().await;
}

#[tokio::test]
async fn a_bus_that_was_killed_and_is_back_has_everything_again() {
    let mut bus = bus();
    bus.revive();
    let daemon = started(&bus);
    owned(&bus.connect().await, NAME).await;
    bus.kill();
    bus.revive();
    let client = bus.connect().await;
    owned(&client, NAME).await;
    assert_eq!(ask(&client, 8).await.unwrap(), 8);
    daemon.leave().await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_had_when_it_is_free() {
    let mut bus = bus();
    bus.revive();
    let other = bus.connect().await;
    other.request_name(NAME).await.unwrap();
    let daemon = started(&bus);
    tokio::time::sleep(Duration::from_millis(200)).await;
    other.release_name(NAME).await.unwrap();
    owned(&other, NAME).await;
    assert_eq!(ask(&other, 9).await.unwrap(), 9);
    daemon.leave().await;
    unowned(&other, NAME).await;
}

#[tokio::test]
async fn a_call_that_is_being_answered_is_answered_before_the_end() {
    let mut bus = bus();
    bus.revive();
    let daemon = started(&bus);
    let client = bus.connect().await;
    owned(&client, NAME).await;
    let asked = tokio::spawn({
        let client = client.clone();
        async move { echo::slowly(&client, 500, 3).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    daemon.leave().await;
    assert_eq!(asked.await.unwrap().unwrap(), 3);
}

#[tokio::test]
async fn what_passes_on_the_bus_keeps_the_daemon() {
    let mut bus = bus();
    bus.revive();
    let idle = Idle::new(Duration::from_secs(2));
    let supervisor = Supervisor::new(CancellationToken::new());
    let place = Place::At(bus.address());
    let daemon = Bus::start(Arc::new(Echo), place, idle.clone(), &supervisor);
    let client = bus.connect().await;
    owned(&client, NAME).await;
    let expired = tokio::spawn(async move { idle.expired().await });
    for number in 0..15 {
        assert_eq!(ask(&client, number).await.unwrap(), number);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!expired.is_finished());
    }
    tokio::time::timeout(SOON, expired).await.unwrap().unwrap();
    daemon.leave().await;
}

/// What is asked of a daemon that ends whenever it has been idle for a moment, and is started again by
/// the bus: each call, the first of a process and the last of one, is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_between_two_processes() {
    const CALLS: u32 = 50;
    let bus = PrivateBus::absent(&["sh.temps.Deploy1.conf"]);
    bus.activates(
        NAME,
        &format!(
            "/usr/bin/env {}={} {}",
            echo::ADDRESS,
            bus.address(),
            env!("CARGO_BIN_EXE_temps-echo-for-tests")
        ),
    );
    let mut bus = bus;
    bus.revive();
    let clients = (0..2_u32).map(|client| {
        let address = bus.address();
        tokio::spawn(async move {
            let builder = zbus::connection::Builder::address(address.as_str());
            let connection = builder.method_timeout(SOON).build().await.unwrap();
            let mut processes = std::collections::BTreeSet::new();
            for number in 0..CALLS {
                processes.insert(echo::process(&connection).await.unwrap());
                // Around the idle time, so that calls meet every moment of an end.
                let pause = 80 + (number * number * 7 + client * 31) % 130;
                tokio::time::sleep(Duration::from_millis(u64::from(pause))).await;
            }
            processes
        })
    });
    let mut processes = std::collections::BTreeSet::new();
    for client in futures::future::join_all(clients).await {
        processes.append(&mut client.unwrap());
    }
    println!("{} processes", processes.len());
    assert!(processes.len() > 3, "it never ended: {processes:?}");
}
