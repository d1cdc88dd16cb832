//! What a container of ours is allowed, and how its state reads.

use super::engine::{CallError, DockerSettings, Engine, LABEL_APP, LABEL_INSTANCE, LABEL_RELEASE};
use super::network::Network;
use crate::port::{Artifact, InstanceSpec, InstanceState};
use bollard::models::{
    ContainerCreateBody, ContainerState, ContainerStateStatusEnum, EndpointIpamConfig,
    EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use temps_ipc::Fault;
use temps_ipc::types::{Address, Timestamp};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Of the engine's default set, what images need that start as root and step down (nginx, postgres,
/// redis): changing owners, reading across them, becoming another user, ports below 1024, and
/// ending their own workers. Left out: raw sockets (forged packets on the bridge), devices, file
/// capabilities, chroot, audit.
const CAPABILITIES: [&str; 7] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "SETUID",
    "SETGID",
    "NET_BIND_SERVICE",
    "KILL",
];

/// Output that the engine keeps until we have collected it.
const LOG_OPTIONS: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];

/// The request that makes the instance's container.
pub(super) fn body(
    engine: &Engine,
    network: &Network,
    spec: &InstanceSpec,
) -> Result<ContainerCreateBody, CallError> {
    let refuse = |what: &str| Err(CallError::Own(Fault::invalid(what)));
    let Artifact::Image { id: image, .. } = &spec.artifact else {
        return refuse("only images run on a container engine");
    };
    let Address::Tcp(address) = &spec.address else {
        return refuse("a container needs a TCP address");
    };
    if !network.contains(address.ip()) {
        // The network was made anew with another range; the engine chooses another address then.
        return Err(CallError::Failed(format!(
            "{} is no address of the network {}",
            address.ip(),
            network.name
        )));
    }
    let mut labels = engine.labels();
    for (name, value) in [
        (LABEL_APP, spec.app.to_string()),
        (LABEL_RELEASE, spec.release.to_string()),
        (LABEL_INSTANCE, spec.id.to_string()),
    ] {
        labels.insert(name.to_owned(), value);
    }
    let open_files = engine
        .can_raise_limits()
        .then_some(engine.settings.open_files);
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(address.ip().to_string()),
            ..Default::default()
        }),
        ..Default::default()
    };
    Ok(ContainerCreateBody {
        image: Some(image.clone()),
        env: Some(environment(spec, address.port())),
        labels: Some(labels),
        host_config: Some(host_config(&engine.settings, &network.name, open_files)),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.name.clone(), endpoint)])),
        }),
        ..Default::default()
    })
}

/// The app's variables, then the platform's, which win.
fn environment(spec: &InstanceSpec, port: u16) -> Vec<String> {
    let platform = [
        // The container has its own network; its neighbours cannot reach it.
        ("HOST", "0.0.0.0".to_owned()),
        ("PORT", port.to_string()),
        ("TEMPS_APP", spec.app.to_string()),
        ("TEMPS_RELEASE", spec.release.to_string()),
        ("TEMPS_INSTANCE", spec.id.to_string()),
        ("TEMPS_APP_URL", spec.url.clone()),
    ];
    // The engine needs the plain text to start the app with.
    let own = spec
        .env
        .iter()
        .filter(|var| !platform.iter().any(|(name, _)| *name == var.name.as_str()))
        .map(|var| format!("{}={}", var.name, var.value.reveal()));
    own.chain(
        platform
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    )
    .collect()
}

fn host_config(settings: &DockerSettings, network: &str, open_files: Option<i64>) -> HostConfig {
    let owned = |list: &[&str]| {
        list.iter()
            .map(|item| (*item).to_owned())
            .collect::<Vec<_>>()
    };
    HostConfig {
        network_mode: Some(network.to_owned()),
        memory: Some(settings.memory),
        memory_swap: Some(settings.memory),
        cpu_shares: Some(settings.cpu_shares),
        pids_limit: Some(settings.processes),
        ulimits: open_files.map(|limit| {
            vec![ResourcesUlimits {
                name: Some("nofile".to_owned()),
                soft: Some(limit),
                hard: Some(limit),
            }]
        }),
        cap_drop: Some(owned(&["ALL"])),
        cap_add: Some(owned(&CAPABILITIES)),
        security_opt: Some(owned(&["no-new-privileges"])),
        // An image's program is seldom made to be the first process: something must collect its
        // orphans, and pass SIGTERM to a program that has no handler for it.
        init: Some(true),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(
                LOG_OPTIONS
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            ),
        }),
        ..Default::default()
    }
}

/// How an instance is, by the state of its container.
pub(super) fn state(settings: &DockerSettings, found: ContainerState) -> InstanceState {
    if found.running == Some(true) {
        return InstanceState::Running;
    }
    if found.status == Some(ContainerStateStatusEnum::CREATED) {
        return InstanceState::Exited {
            how: "was never started".to_owned(),
            at: None,
        };
    }
    let code = found.exit_code.unwrap_or_default();
    let mut how = if found.oom_killed == Some(true) {
        format!(
            "was killed because it needed more than its memory limit of {} MiB",
            settings.memory / (1024 * 1024)
        )
    } else {
        in_words(code)
    };
    if let Some(error) = found.error.filter(|error| !error.is_empty()) {
        how = format!("{how} ({error})");
    }
    InstanceState::Exited {
        how,
        at: found.finished_at.as_deref().and_then(moment),
    }
}

/// An exit code in words; 128 and more means a signal, by the custom of shells and `init`.
fn in_words(code: i64) -> String {
    let signal = i32::try_from(code - 128)
        .ok()
        .and_then(|number| Signal::try_from(number).ok());
    match signal {
        Some(signal) => format!("was killed by signal {} ({signal})", signal as i32),
        None => format!("exited with status {code}"),
    }
}

fn moment(text: &str) -> Option<Timestamp> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let millis = i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok()?;
    // The engine says year 1 for never.
    (millis > 0).then_some(Timestamp(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_container_is_said_in_words() {
        let ended = |code: i64, oom: bool| ContainerState {
            status: Some(ContainerStateStatusEnum::EXITED),
            exit_code: Some(code),
            oom_killed: Some(oom),
            finished_at: Some("2026-11-22T14:30:00.25Z".to_owned()),
            ..Default::default()
        };
        for (code, oom, words) in [
            (3, false, "exited with status 3"),
            (0, false, "exited with status 0"),
            (137, false, "was killed by signal 9 (SIGKILL)"),
            (143, false, "was killed by signal 15 (SIGTERM)"),
            (
                137,
                true,
                "was killed because it needed more than its memory limit of 512 MiB",
            ),
        ] {
            let InstanceState::Exited { how, at } =
                state(&DockerSettings::default(), ended(code, oom))
            else {
                panic!("{code}");
            };
            assert_eq!(how, words);
            assert_eq!(at.map(|at| at.0 % 1_000), Some(250));
        }
        assert_eq!(moment("0001-01-01T00:00:00Z"), None);
    }

    #[test]
    fn nothing_is_published_and_privileges_are_few() {
        let host = host_config(&DockerSettings::default(), "temps-x", None);
        assert_eq!(host.port_bindings, None);
        assert_eq!(host.publish_all_ports, None);
        assert_eq!(host.privileged, None);
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert!(!host.cap_add.unwrap().contains(&"NET_RAW".to_owned()));
        assert_eq!(
            host.security_opt,
            Some(vec!["no-new-privileges".to_owned()])
        );
        assert!(host.memory.unwrap() > 0 && host.memory == host.memory_swap);
    }
}
