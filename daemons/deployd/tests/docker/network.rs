//! Who reaches whom, and who sees whom.

use crate::support::{SERVE, World, address, get_soon};
use temps_deployd::port::{InstanceState, Runtime};

#[tokio::test]
async fn containers_of_one_network_cannot_reach_each_other_and_this_machine_can() {
    let Some(world) = World::new().await else {
        return;
    };
    let one = world.start(SERVE).await;
    get_soon(&one).await;
    let target = address(&one).ip();
    let two = world
        .start(&format!("if busybox wget -T 3 -q -O - http://{target}:8080/; then echo result reached; else echo result blocked; fi; exec busybox sleep 60"))
        .await;
    assert_eq!(world.wait_for_line(&two, "result").await, "result blocked");
    world.end(&[&one.artifact, &two.artifact]).await;
}

#[tokio::test]
async fn two_installations_share_an_engine_without_seeing_each_other() {
    let Some(one) = World::new().await else {
        return;
    };
    let Some(two) = World::new().await else {
        return;
    };
    let spec = one.start("exec busybox sleep 60").await;
    assert_eq!(two.list().await, []);
    assert_eq!(two.state(&spec).await, InstanceState::Absent);
    two.stop(&spec).await;
    two.runtime.remove_artifact(&spec.artifact).await.unwrap();
    assert_eq!(one.state(&spec).await, InstanceState::Running);
    let other = two.runtime.choose_address(&spec.artifact, &[]).await;
    assert_ne!(other.unwrap(), spec.address);
    two.end(&[]).await;
    one.end(&[&spec.artifact]).await;
}
