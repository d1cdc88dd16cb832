//! The end of a platform that runs without systemd: `temps up` stops what runs of it, after deployd
//! has ended. Nobody could reach it any more.
//!
//! Instances are stopped as deployd would do it, so that the next start knows that it was us and
//! starts them again.

use crate::adapter::docker::{DockerRuntime, DockerSettings};
use crate::adapter::process;
use crate::config::Settings;
use crate::engine::paths::Paths;
use crate::port::Runtime;
use crate::store::{Store, instance};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_unit::config;

/// Stops every instance whose state is in `state`, all at once: the polite signal, after `grace`
/// the other one. `configs` are the directories of `deployd.toml`. What could not be stopped, in
/// words.
pub async fn stop_instances(state: &Path, configs: &[PathBuf], grace: Duration) -> Vec<String> {
    let (processes, containers) = tokio::join!(
        process::stop_all(state, grace),
        stop_containers(state, configs, grace),
    );
    processes
        .err()
        .map(|error| error.to_string())
        .into_iter()
        .chain(containers)
        .collect()
}

async fn stop_containers(state: &Path, configs: &[PathBuf], grace: Duration) -> Vec<String> {
    // With settings that cannot be read deployd did not run either, but may have before.
    let settings = config::load::<Settings>("deployd", configs).unwrap_or_default();
    let docker = DockerSettings {
        socket: settings.docker_socket,
        ..DockerSettings::default()
    };
    let runtime = DockerRuntime::new(docker, state);
    // An engine that does not answer runs nothing of ours, or nothing that we could stop.
    let Ok(running) = runtime.list().await else {
        return Vec::new();
    };
    let paths = Paths::new(state);
    let releases = releases(&paths).await;
    let stops = running.iter().map(|id| {
        let log = match releases.get(id) {
            Some(release) => paths.instance_log(release, id),
            None => paths.all_logs().join("stray.log"),
        };
        let runtime = &runtime;
        async move {
            let stopped = runtime.stop(id, grace, &log).await;
            stopped.err().map(|error| format!("{id}: {error}"))
        }
    });
    let failures = futures::future::join_all(stops).await;
    // Their network stays: until deployd has started them again, the proxy serves its last routes,
    // and requests to addresses on no network of ours would leave this machine.
    failures.into_iter().flatten().collect()
}

/// Which release each instance runs; nothing if the database cannot be read.
async fn releases(paths: &Paths) -> HashMap<InstanceId, ReleaseId> {
    let database = paths.database();
    let opened = tokio::task::spawn_blocking(move || Store::open(&database)).await;
    let Ok(Ok(store)) = opened else {
        return HashMap::new();
    };
    let present = store.read(instance::all_present).await.unwrap_or_default();
    present
        .into_iter()
        .map(|instance| (instance.id, instance.release))
        .collect()
}
