//! Recorded frames: what an older build wrote must mean the same to this one.
//!
//! `golden/frames.txt` has a line per frame: its name and its bytes in hexadecimal. A frame that
//! this build encodes differently fails the test. Before the first tagged version the file may be
//! written anew with `UPDATE_GOLDEN=1 cargo nextest run -p temps-ipc golden`; after it, only new
//! lines may be added.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use temps_ipc::id::{DeploymentId, InstanceId, ReleaseId};
use temps_ipc::rpc::deployd::{DeploydRequest, DeploydResponse};
use temps_ipc::rpc::proxy::{ProxyRequest, ProxyResponse};
use temps_ipc::rpc::{Applied, Drain, Hello};
use temps_ipc::types::{
    Actor, Address, Backend, Check, CheckLevel, DeployRequest, DeploydStatus, DeploymentView,
    HealthCheck, LogKind, LogLine, LogPage, LogQuery, LogStream, Phase, ProbeFailure, ProbeOutcome,
    ProbeRequest, ProxyStatus, ReleaseStatus, ReleaseView, Route, RuntimeKind, Snapshot, Source,
    StaticSite, Target, Timestamp,
};
use temps_ipc::{Code, Fault};

fn release() -> ReleaseId {
    "rel_01kam8p3qz7h2v4x6y".parse().unwrap()
}

fn instance() -> InstanceId {
    "ins_01kam8p3qz7h2v4x6y".parse().unwrap()
}

fn deployment() -> DeploymentId {
    "dep_01kam8p3qz7h2v4x6y".parse().unwrap()
}

fn target() -> Target {
    Target {
        id: instance(),
        address: Address::Tcp("127.0.0.1:21000".parse().unwrap()),
        check: HealthCheck::Http {
            path: "/health".into(),
        },
    }
}

fn view() -> DeploymentView {
    DeploymentView {
        id: deployment(),
        app: "shop".parse().unwrap(),
        release: release(),
        phase: Phase::RolledBack,
        reason: "it exited with status 1".into(),
        last_lines: vec!["boom".into()],
        url: "http://shop.localhost:8080".into(),
        created_at: Timestamp(1_795_000_000_000),
        watch_until: Some(Timestamp(1_795_000_120_000)),
        revision: 9,
    }
}

/// Frames by name. Every request and answer that is easily mistaken for another is here.
fn frames() -> BTreeMap<&'static str, Vec<u8>> {
    let mut frames = BTreeMap::new();
    let actor = Actor::new("ada", "cli");
    let fault = Fault::new(Code::Busy, "under way").hint("wait");
    let hello = Hello {
        protocol: 1,
        build: "0.1.0".into(),
    };
    let request = DeployRequest {
        app: "shop".parse().unwrap(),
        source: Source::Git {
            url: "https://example.org/shop".into(),
            reference: Some("main".into()),
        },
        runtime: Some(RuntimeKind::Docker),
        domain: Some("shop.example.org".parse().unwrap()),
        health: Some("/health".into()),
        health_timeout_ms: Some(30_000),
        watch_ms: Some(120_000),
        actor: actor.clone(),
        socket_activated: Some(true),
    };
    let snapshot = Snapshot {
        generation: 7,
        routes: vec![
            Route {
                host: "shop.localhost".parse().unwrap(),
                path_prefix: "/api".parse().unwrap(),
                app: "shop".parse().unwrap(),
                release: release(),
                backend: Backend::Targets(vec![target()]),
            },
            Route {
                host: "docs.localhost".parse().unwrap(),
                path_prefix: "/".parse().unwrap(),
                app: "docs".parse().unwrap(),
                release: release(),
                backend: Backend::Static(StaticSite {
                    id: instance(),
                    root: "/srv/docs".into(),
                    spa: true,
                }),
            },
        ],
    };
    let mut add = |name, bytes| {
        assert!(frames.insert(name, bytes).is_none(), "{name} twice");
    };
    add(
        "deployd/hello",
        encode(&DeploydRequest::Hello {
            hello: hello.clone(),
        }),
    );
    add("deployd/upload", encode(&DeploydRequest::Upload {}));
    add(
        "deployd/deploy",
        encode(&DeploydRequest::Deploy { request }),
    );
    add(
        "deployd/rollback",
        encode(&DeploydRequest::Rollback {
            app: "shop".parse().unwrap(),
            release: Some(release()),
            actor: actor.clone(),
        }),
    );
    add(
        "deployd/deployment",
        encode(&DeploydRequest::Deployment {
            id: deployment(),
            seen: 3,
            wait_ms: 20_000,
        }),
    );
    add(
        "deployd/logs",
        encode(&DeploydRequest::Logs {
            query: LogQuery {
                app: "shop".parse().unwrap(),
                release: None,
                kind: LogKind::Runtime,
                after: Some("ins:0-12".into()),
                tail: Some(10),
                limit: 100,
                wait_ms: 0,
            },
        }),
    );
    add(
        "deployd/env_set",
        encode(&DeploydRequest::EnvSet {
            app: "shop".parse().unwrap(),
            variables: vec![temps_ipc::types::EnvVar {
                name: "A".parse().unwrap(),
                value: "1".parse().unwrap(),
            }],
            actor: actor.clone(),
        }),
    );
    add(
        "deployd/app_destroy",
        encode(&DeploydRequest::AppDestroy {
            app: "shop".parse().unwrap(),
            actor: actor.clone(),
        }),
    );
    add(
        "deployd/domain_add",
        encode(&DeploydRequest::DomainAdd {
            app: "shop".parse().unwrap(),
            domain: "shop.example.org".parse().unwrap(),
            actor: actor.clone(),
        }),
    );
    add(
        "deployd/cancel",
        encode(&DeploydRequest::Cancel {
            app: "shop".parse().unwrap(),
            release: Some(release()),
            actor,
        }),
    );
    add(
        "deployd/cancel answer",
        encode(&DeploydResponse::Cancel(Ok(view()))),
    );
    add(
        "deployd/target_unhealthy",
        encode(&DeploydRequest::TargetUnhealthy {
            target: instance(),
            why: "500".into(),
        }),
    );
    add("deployd/reconcile", encode(&DeploydRequest::Reconcile {}));
    add(
        "deployd/deploy answer",
        encode(&DeploydResponse::Deploy(Ok(view()))),
    );
    add(
        "deployd/deploy fault",
        encode(&DeploydResponse::Deploy(Err(fault.clone()))),
    );
    add(
        "deployd/release_list answer",
        encode(&DeploydResponse::ReleaseList(Ok(vec![ReleaseView {
            id: release(),
            status: ReleaseStatus::RolledBack,
            runtime: Some(RuntimeKind::Process),
            created_at: Timestamp(1_795_000_000_000),
            source: "dir shop".into(),
            reason: "bad".into(),
            actor: "ada".into(),
            socket_activated: true,
        }]))),
    );
    add(
        "deployd/logs answer",
        encode(&DeploydResponse::Logs(Ok(LogPage {
            lines: vec![LogLine {
                at: Timestamp(1),
                release: release(),
                instance: Some(instance()),
                stream: LogStream::Stderr,
                text: "x".into(),
            }],
            cursor: "c".into(),
            ended: true,
        }))),
    );
    add(
        "deployd/status answer",
        encode(&DeploydResponse::Status(Ok(DeploydStatus {
            build: "0.1.0".into(),
            started_at: Timestamp(1),
            apps: 1,
            deployments: 2,
            watching: 3,
            base_domain: "localhost".parse().unwrap(),
            state_dir: "/var/lib/temps/deployd".into(),
            checks: vec![Check {
                name: "disk".into(),
                level: CheckLevel::Warning,
                what: "low".into(),
                hint: "free some".into(),
            }],
        }))),
    );
    add("proxy/hello", encode(&ProxyRequest::Hello { hello }));
    add(
        "proxy/probe",
        encode(&ProxyRequest::Probe {
            request: ProbeRequest {
                targets: vec![target()],
                timeout_ms: 500,
            },
        }),
    );
    add("proxy/apply", encode(&ProxyRequest::Apply { snapshot }));
    add(
        "proxy/drained",
        encode(&ProxyRequest::Drained {
            target: instance(),
            wait_ms: 10,
        }),
    );
    add(
        "proxy/probe of each kind",
        encode(&ProxyRequest::Probe {
            request: ProbeRequest {
                targets: [HealthCheck::Any, HealthCheck::Tcp, HealthCheck::Passive]
                    .map(|check| Target { check, ..target() })
                    .into(),
                timeout_ms: 500,
            },
        }),
    );
    add("proxy/generation", encode(&ProxyRequest::Generation {}));
    add(
        "proxy/probe answer",
        encode(&ProxyResponse::Probe(Ok(vec![
            ProbeOutcome {
                target: instance(),
                failure: Some(ProbeFailure::Status(500)),
            },
            ProbeOutcome {
                target: instance(),
                failure: None,
            },
        ]))),
    );
    add(
        "proxy/apply answer",
        encode(&ProxyResponse::Apply(Ok(Applied { generation: 7 }))),
    );
    add(
        "proxy/apply fault",
        encode(&ProxyResponse::Apply(Err(fault))),
    );
    add(
        "proxy/drained answer",
        encode(&ProxyResponse::Drained(Ok(Drain {
            leases: 1,
            routed: false,
        }))),
    );
    add(
        "proxy/status answer",
        encode(&ProxyResponse::Status(Ok(ProxyStatus {
            build: "0.1.0".into(),
            started_at: Timestamp(1),
            generation: 7,
            routes: 2,
            targets: 1,
            unhealthy: 0,
            certificates: 2,
            http: Some("127.0.0.1:8080".parse().unwrap()),
            https: None,
            connections: 3,
            requests: 4,
            local_ca: "/ca.pem".into(),
            checks: Vec::new(),
        }))),
    );
    frames
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap()
}

#[test]
fn golden_frames_are_encoded_as_recorded() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/frames.txt");
    let mut text = String::new();
    for (name, bytes) in frames() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{name}: {hex}").unwrap();
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap();
    for (now, then) in text.lines().zip(recorded.lines()) {
        assert_eq!(
            now, then,
            "this frame changed: append fields and variants, never change them"
        );
    }
    assert_eq!(
        text.lines().count(),
        recorded.lines().count(),
        "record new frames too"
    );
}

#[test]
fn recorded_requests_decode() {
    for (name, bytes) in frames() {
        let decoded = match name {
            _ if name.ends_with("answer") || name.ends_with("fault") => continue,
            _ if name.starts_with("deployd/") => {
                postcard::from_bytes::<DeploydRequest>(&bytes).is_ok()
            }
            _ => postcard::from_bytes::<ProxyRequest>(&bytes).is_ok(),
        };
        assert!(decoded, "{name}");
    }
}

#[test]
fn a_frame_with_an_invalid_value_in_it_is_refused() {
    let bytes = encode(&DeploydRequest::AppShow {
        app: "shop".parse().unwrap(),
    });
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let hostile: Vec<u8> = text.replace("shop", "../x").into_bytes();
    assert!(postcard::from_bytes::<DeploydRequest>(&hostile).is_err());
}
