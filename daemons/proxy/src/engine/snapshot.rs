//! What makes a snapshot valid. Pure but for one look at each static site's directory.
//!
//! Every error is found and reported at once; a snapshot with any is refused as a whole. So only
//! what it says can be an error, and what is new in it: a site whose directory vanished while it is
//! served stays in every snapshot, and must not keep the routes of other apps from being changed.

use crate::engine::probe;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use temps_ipc::id::InstanceId;
use temps_ipc::types::route::MAX_ROUTES;
use temps_ipc::types::{Address, Backend, Snapshot};

/// Most instances behind one route.
const MAX_TARGETS: usize = 256;

/// Longest path of a Unix socket: `sun_path` has 108 bytes with its terminator (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Every reason why `snapshot` cannot be served after `served`; none if it can.
pub fn errors(snapshot: &Snapshot, served: &Snapshot) -> Vec<String> {
    let mut errors = Vec::new();
    let known: HashSet<(&InstanceId, &Path)> = served
        .routes
        .iter()
        .filter_map(|route| match &route.backend {
            Backend::Static(site) => Some((&site.id, site.root.as_path())),
            Backend::Targets(_) => None,
        })
        .collect();
    if snapshot.generation == 0 {
        errors.push("generation 0 means that there is no snapshot; start at 1".to_owned());
    }
    if snapshot.routes.len() > MAX_ROUTES {
        errors.push(format!(
            "{} routes are more than {MAX_ROUTES}",
            snapshot.routes.len()
        ));
    }
    let mut taken = HashMap::new();
    let mut addresses: HashMap<&str, Option<&Address>> = HashMap::new();
    for route in &snapshot.routes {
        let name = format!("{}{}", route.host, route.path_prefix.as_str());
        if let Some(other) = taken.insert((&route.host, &route.path_prefix), &route.app) {
            errors.push(if *other == route.app {
                format!("{name} is there twice")
            } else {
                format!("{name} is claimed by both {other} and {}", route.app)
            });
        }
        let claimed: Vec<(&str, Option<&Address>)> = match &route.backend {
            Backend::Static(site) => vec![(site.id.as_str(), None)],
            Backend::Targets(targets) => targets
                .iter()
                .map(|target| (target.id.as_str(), Some(&target.address)))
                .collect(),
        };
        for (id, address) in claimed {
            if addresses
                .insert(id, address)
                .is_some_and(|before| before != address)
            {
                errors.push(format!("{name}: {id} has two addresses"));
            }
        }
        match &route.backend {
            Backend::Static(site) => {
                if !site.root.is_absolute() {
                    errors.push(format!(
                        "{name}: the path {} is not absolute",
                        site.root.display()
                    ));
                } else if !known.contains(&(&site.id, site.root.as_path())) && !site.root.is_dir() {
                    errors.push(format!(
                        "{name}: {} is not a directory",
                        site.root.display()
                    ));
                }
            }
            Backend::Targets(targets) => {
                if targets.is_empty() || targets.len() > MAX_TARGETS {
                    errors.push(format!(
                        "{name} has {} targets; give it 1 to {MAX_TARGETS}",
                        targets.len()
                    ));
                }
                let mut ids = HashSet::new();
                for target in targets {
                    if !ids.insert(&target.id) {
                        errors.push(format!("{name}: {} is there twice", target.id));
                    }
                    errors.extend(
                        target_errors(target)
                            .into_iter()
                            .map(|why| format!("{name}: {}: {why}", target.id)),
                    );
                }
            }
        }
    }
    errors
}

/// What is wrong with one target.
pub fn target_errors(target: &temps_ipc::types::Target) -> Vec<String> {
    let mut errors = Vec::new();
    match &target.address {
        Address::Tcp(address) if address.port() == 0 => errors.push("port 0 is no port".to_owned()),
        Address::Tcp(address) if address.ip().is_unspecified() || address.ip().is_multicast() => {
            errors.push(format!("nobody listens at {}", address.ip()));
        }
        Address::Tcp(_) => {}
        Address::Unix(path) => {
            if !path.is_absolute()
                || path.as_os_str().len() > MAX_SOCKET_PATH
                || path.to_str().is_none()
            {
                errors.push(format!(
                    "a socket's path is absolute, UTF-8 and has at most {MAX_SOCKET_PATH} bytes: {}",
                    path.display()
                ));
            }
        }
    }
    if let Err(why) = probe::check_path(&target.check) {
        errors.push(why);
    }
    errors
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use temps_ipc::id::ReleaseId;
    use temps_ipc::types::{HealthCheck, Route, StaticSite, Target};

    pub(crate) fn target(port: u16) -> Target {
        Target {
            id: InstanceId::fresh(),
            address: Address::Tcp(([127, 0, 0, 1], port).into()),
            check: HealthCheck::Any,
        }
    }

    pub(crate) fn route(host: &str, prefix: &str, app: &str, targets: Vec<Target>) -> Route {
        Route {
            host: host.parse().unwrap(),
            path_prefix: prefix.parse().unwrap(),
            app: app.parse().unwrap(),
            release: ReleaseId::fresh(),
            backend: Backend::Targets(targets),
        }
    }

    fn found(routes: Vec<Route>) -> String {
        found_after(Vec::new(), routes)
    }

    fn found_after(before: Vec<Route>, routes: Vec<Route>) -> String {
        let [served, offered] =
            [(1, before), (2, routes)].map(|(generation, routes)| Snapshot { generation, routes });
        errors(&offered, &served).join("\n")
    }

    #[test]
    fn a_sound_snapshot_has_no_errors() {
        let shared = target(1);
        let routes = vec![
            route("a.test", "/", "a", vec![shared.clone()]),
            route("www.a.test", "/", "a", vec![shared]),
        ];
        assert_eq!(found(routes), "");
    }

    #[test]
    fn every_error_is_reported_not_only_the_first() {
        let mut moved = target(9);
        let mut wrong = target(0);
        wrong.check = HealthCheck::Http {
            path: "no slash".into(),
        };
        let first = route("a.test", "/", "a", vec![moved.clone()]);
        moved.address = Address::Tcp(([127, 0, 0, 1], 8).into());
        let mut site = route("c.test", "/", "c", vec![]);
        site.backend = Backend::Static(StaticSite {
            id: InstanceId::fresh(),
            root: "relative".into(),
            spa: false,
        });
        let text = found(vec![
            first,
            route("a.test", "/", "b", vec![moved]),
            route("b.test", "/", "b", vec![]),
            route("d.test", "/", "d", vec![wrong]),
            site,
        ]);
        for part in [
            "claimed by both a and b",
            "two addresses",
            "0 targets",
            "port 0",
            "absolute path",
            "not absolute",
        ] {
            assert!(text.contains(part), "{part} in:\n{text}");
        }
    }

    #[test]
    fn a_served_site_whose_directory_vanished_refuses_nothing_of_others() {
        let site = |root: &str| {
            let mut route = route("c.test", "/", "c", vec![]);
            route.backend = Backend::Static(StaticSite {
                id: InstanceId::fresh(),
                root: root.into(),
                spa: false,
            });
            route
        };
        let gone = site("/nonexistent/site");
        assert!(found(vec![gone.clone()]).contains("not a directory"));
        let other = route("a.test", "/", "a", vec![target(1)]);
        let next = vec![gone.clone(), other];
        assert_eq!(found_after(vec![gone.clone()], next), "");
        let mut fresh = gone.clone();
        fresh.backend = site("/nonexistent/site").backend;
        assert!(found_after(vec![gone], vec![fresh]).contains("not a directory"));
    }

    #[test]
    fn generation_zero_is_refused() {
        let nothing = Snapshot::default();
        assert!(!errors(&nothing, &nothing).is_empty());
    }
}
