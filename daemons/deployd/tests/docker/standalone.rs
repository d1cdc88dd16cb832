//! The end of a platform without systemd, as far as containers go.

use crate::support::{SERVE, World, docker, get_soon};
use std::time::Duration;
use temps_deployd::port::Runtime;
use temps_deployd::standalone;

const GRACE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_network_is_kept_when_the_containers_are_stopped() {
    let Some(world) = World::new().await else {
        return;
    };
    let spec = world.start(SERVE).await;
    get_soon(&spec).await;
    let network = || {
        let label = format!(
            "label=sh.temps.installation={}",
            world.runtime.installation()
        );
        docker(&["network", "ls", "--no-trunc", "-q", "--filter", &label])
    };
    let before = network();
    assert_eq!(before.lines().count(), 1, "{before:?}");
    let failures = standalone::stop_instances(world.dir.path(), &[], GRACE).await;
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(world.list().await, []);
    // Requests to the routes that the proxy still has stay on this machine.
    assert_eq!(network(), before);
    // And the next start finds every address where it was.
    world.runtime.start(&spec).await.unwrap();
    get_soon(&spec).await;
    world.end(&[&spec.artifact]).await;
}
