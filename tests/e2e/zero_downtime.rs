//! Deployments in a row under the load of the main job. The soak program `main-job` runs the whole
//! number.

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
