//! What is shown, and that a change of it is told once and together.

use crate::engine::actor;
use crate::support::{App, ROOT, on_the_bus};
use futures::StreamExt as _;
use std::collections::HashMap;
use temps_ipc::types::Host;
use zbus::{OwnedObjectPath, OwnedVariant};

type Managed = HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>>;

/// Objects of apps; the nodes above them are objects without an interface.
fn apps(objects: &Managed) -> usize {
    let interfaces = objects.values();
    let app = |of: &&HashMap<_, _>| of.contains_key("sh.temps.Deploy1.App");
    interfaces.filter(app).count()
}

#[tokio::test]
async fn an_app_is_an_object_from_its_first_deployment_to_its_end() {
    let case = on_the_bus().await;
    let objects = |case: &crate::support::Case| {
        let client = case.client.clone();
        async move {
            let reply = client
                .call_method(
                    Some(crate::support::NAME),
                    ROOT,
                    Some("org.freedesktop.DBus.ObjectManager"),
                    "GetManagedObjects",
                    &(),
                )
                .await
                .unwrap();
            reply.body().deserialize::<Managed>().unwrap()
        }
    };
    assert!(apps(&objects(&case).await) == 0);
    let release = case.deploy("healthy").await;
    let shown = objects(&case).await;
    let app = "/sh/temps/Deploy1/app/shop".try_into().unwrap();
    assert!(
        shown.contains_key::<zbus::ObjectPath<'_>>(&app),
        "{shown:?}"
    );
    assert_eq!(case.app::<String>(App::RELEASE).await, release);
    assert_eq!(case.app::<String>(App::STATE).await, "live");
    assert_eq!(case.app::<String>(App::RUNTIME).await, "docker");
    let instances: Vec<(String, String, String, u64)> = case.app(App::INSTANCES).await;
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0].1, release);
    assert!(instances[0].0.starts_with("ins_") && instances[0].3 > 0);
    assert_eq!(case.root::<u32>("Apps").await, 1);
    case.engine()
        .app_destroy("shop".parse().unwrap(), actor(), 0)
        .await
        .unwrap();
    let gone = async {
        while apps(&objects(&case).await) > 0 || case.root::<u32>("Apps").await > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::private::SOON, gone)
        .await
        .unwrap();
    case.end().await;
}

#[tokio::test]
async fn a_change_is_told_with_its_value() {
    let case = on_the_bus().await;
    case.deploy("healthy").await;
    let mut changes = case.changes("/sh/temps/Deploy1/app/shop").await;
    let host: Host = "shop.example.org".parse().unwrap();
    let (name, engine) = ("shop".parse().unwrap(), case.engine());
    engine.domain_add(name, host, actor(), 0).await.unwrap();
    let next = tokio::time::timeout(crate::private::SOON, changes.next());
    let message = next.await.unwrap().unwrap().unwrap();
    let (interface, changed, invalidated) = message
        .body()
        .deserialize::<(String, HashMap<String, OwnedVariant>, Vec<String>)>()
        .unwrap();
    assert_eq!(interface, "sh.temps.Deploy1.App");
    assert_eq!(changed.keys().collect::<Vec<_>>(), ["Hosts"]);
    let hosts = Vec::<String>::try_from(changed["Hosts"].try_clone().unwrap()).unwrap();
    assert_eq!(hosts, ["shop.localhost", "shop.example.org"]);
    assert!(invalidated.is_empty());
    case.end().await;
}

#[tokio::test]
async fn an_instance_that_dies_unnoticed_is_shown_to_be_down() {
    let case = on_the_bus().await;
    case.deploy_confirmed("healthy").await;
    case.until_app(App::STATE, "live").await;
    // Everything that is written is shown.
    while case.root::<u32>("Watching").await > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    case.kill_instances();
    case.until_app(App::STATE, "down").await;
    case.end().await;
}

#[tokio::test]
async fn an_app_that_requests_start_is_shown_to_rest() {
    let case = on_the_bus().await;
    case.deploy_resting().await;
    case.until_app(App::STATE, "resting").await;
    case.end().await;
}

#[tokio::test]
async fn no_variable_is_ever_shown() {
    let case = on_the_bus().await;
    let variable = temps_ipc::types::EnvVar {
        name: "TOKEN".parse().unwrap(),
        value: "s3cret-value".parse().unwrap(),
    };
    let name = "shop".parse().unwrap();
    case.engine()
        .env_set(name, vec![variable], actor(), 0)
        .await
        .unwrap();
    case.deploy("healthy").await;
    for path in [ROOT, "/sh/temps/Deploy1/app/shop"] {
        for interface in ["sh.temps.Deploy1", "sh.temps.Deploy1.App"] {
            let shown = case.all(path, interface).await;
            assert!(
                !shown.contains("s3cret") && !shown.contains("TOKEN"),
                "{shown}"
            );
        }
    }
    case.end().await;
}
