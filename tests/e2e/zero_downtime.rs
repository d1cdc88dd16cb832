//! Deployments in a row under the load of the main job. The soak program `main-job` runs the whole
//! number.

use std::time::Instant;

use harness::load::{Load, LoadSpec};
use harness::main_job;

use crate::world::{World, docker_or_skip};

/// Of each runtime; 40 in all belong to the soak program.
const COUNT: usize = 5;

fn run(world: &World, of: &str) {
    let job = main_job::run(world.temps(), "shop", of, COUNT).expect("every deployment is live");
    job.releases.iter().for_each(|release| world.note(release));
    println!("{job}");
    assert!(job.is_clean(), "{job}");
    world.only(&[job.releases.last().expect("at least one")]);
}

#[test]
fn deployments_of_processes_in_a_row_lose_no_request() {
    run(&World::up(), "python");
}

#[test]
fn deployments_of_containers_in_a_row_lose_no_request() {
    if docker_or_skip() {
        run(&World::docker(), "container");
    }
}

#[test]
fn deployments_of_a_static_site_in_a_row_lose_no_request() {
    let world = World::up();
    let deploy = |version: &str| {
        let site = harness::app::make("static", "healthy", version).unwrap();
        let arguments = ["site", "--static", site.arg(), "--watch", "1s"];
        world
            .temps()
            .deploy_json(arguments)
            .unwrap()
            .live()
            .unwrap();
    };
    deploy("v0");
    let load = world.load("site");
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        deploy(version);
        assert!(world.get("site", "/version.txt").text().contains(version));
    }
    let report = load.stop_blocking();
    println!("{report}");
    report.assert_no_failure();
}

#[test]
fn clients_on_https_lose_no_request_either() {
    let world = World::up();
    world.live("shop", "node", "healthy", &["--watch", "1s"]);
    let temps = world.temps();
    let ca = std::fs::read(world.proxy_state().join("local-ca.pem")).unwrap();
    let load = Load::start(LoadSpec {
        tls: Some(ca),
        ..LoadSpec::new(temps.https(), &temps.https_host("shop"))
    });
    let load = load.unwrap();
    let mut last = String::new();
    for _ in 0..3 {
        last = world
            .live("shop", "node", "healthy", &["--watch", "1s"])
            .release;
    }
    let report = load.stop_blocking();
    println!("{report}");
    report.assert_no_failure();
    world.only(&[&last]);
}

#[test]
fn apps_are_deployed_side_by_side() {
    let world = World::up();
    let made = harness::app::make("python", "healthy", "v1").unwrap();
    let slow = harness::app::make("python", "slow-start:3", "v1").unwrap();
    world.live("one", "python", "healthy", &["--watch", "1s"]);
    let load = world.load("one");
    let begun = Instant::now();
    let apps = ["two", "three", "four"];
    let slow = world.deploy_meanwhile("slow", &slow, &["--watch", "1s"]);
    let deploying = apps.map(|app| world.deploy_meanwhile(app, &made, &["--watch", "1s"]));
    for deployed in deploying {
        deployed.join().unwrap().live().unwrap();
    }
    println!("three apps after {:.1?}", begun.elapsed());
    assert!(!slow.is_finished(), "a slow one holds nobody up");
    slow.join().unwrap().live().unwrap();
    let report = load.stop_blocking();
    println!("{report}");
    report.assert_no_failure();
}
