//! The routes of one snapshot, in the form that requests look them up in. Immutable.
//!
//! A host leads to its routes, longest path prefix first. Exact hosts only; wildcards would be a
//! second map, asked with each parent domain when the first has no answer.

use crate::engine::lease::Target;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{AppName, Backend, HealthCheck, PathPrefix, Snapshot};

/// Checks failed in a row after which a target gets no request while another can take it. The same
/// number wakes deployd.
pub const UNHEALTHY_AFTER: u32 = 3;

/// The routes that are served together.
#[derive(Debug)]
pub struct RouteTable {
    /// Raised with every table this process publishes.
    pub(super) epoch: u64,
    snapshot: Arc<Snapshot>,
    hosts: HashMap<String, Vec<Arc<Route>>>,
    /// Every target of the table once, with its check; static sites have none.
    targets: Vec<(Arc<Target>, Option<HealthCheck>)>,
}

/// One route, ready to be used.
#[derive(Debug)]
pub struct Route {
    /// The app this is for.
    pub app: AppName,
    /// The release that serves it.
    pub release: ReleaseId,
    /// The start of the paths it takes.
    pub prefix: PathPrefix,
    /// Who answers.
    pub answer: Answer,
}

/// Who answers a route's requests.
#[derive(Debug)]
pub enum Answer {
    /// Instances.
    Pool(Pool),
    /// Files.
    Files(Site),
}

/// Instances that share a route's requests.
#[derive(Debug)]
pub struct Pool {
    targets: Vec<Arc<Target>>,
    next: AtomicUsize,
}

/// A static site.
#[derive(Debug)]
pub struct Site {
    /// Carries the leases.
    pub target: Arc<Target>,
    /// The release directory.
    pub root: PathBuf,
    /// Answer unknown paths with `/index.html`.
    pub spa: bool,
}

impl RouteTable {
    /// A table that knows no host: generation 0.
    pub fn empty() -> Self {
        Self {
            epoch: 0,
            snapshot: Arc::default(),
            hosts: HashMap::new(),
            targets: Vec::new(),
        }
    }

    /// The table of a valid `snapshot`. Targets that `known` finds are used again.
    pub(super) fn build(
        snapshot: Arc<Snapshot>,
        epoch: u64,
        mut known: impl FnMut(&InstanceId, Option<&temps_ipc::types::Address>) -> Option<Arc<Target>>,
    ) -> Self {
        let mut made: HashMap<InstanceId, Arc<Target>> = HashMap::new();
        let mut targets = Vec::new();
        let mut hosts: HashMap<String, Vec<Arc<Route>>> = HashMap::new();
        let mut get = |id: &InstanceId, address: Option<&temps_ipc::types::Address>, check| {
            if let Some(target) = made.get(id) {
                return Arc::clone(target);
            }
            let target =
                known(id, address).unwrap_or_else(|| Target::new(id.clone(), address.cloned()));
            made.insert(id.clone(), Arc::clone(&target));
            targets.push((Arc::clone(&target), check));
            target
        };
        for route in &snapshot.routes {
            let answer = match &route.backend {
                Backend::Targets(list) => Answer::Pool(Pool {
                    targets: list
                        .iter()
                        .map(|target| {
                            get(
                                &target.id,
                                Some(&target.address),
                                Some(target.check.clone()),
                            )
                        })
                        .collect(),
                    next: AtomicUsize::new(0),
                }),
                Backend::Static(site) => Answer::Files(Site {
                    target: get(&site.id, None, None),
                    root: site.root.clone(),
                    spa: site.spa,
                }),
            };
            let ready = Arc::new(Route {
                app: route.app.clone(),
                release: route.release.clone(),
                prefix: route.path_prefix.clone(),
                answer,
            });
            hosts
                .entry(route.host.as_str().to_owned())
                .or_default()
                .push(ready);
        }
        for routes in hosts.values_mut() {
            routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.as_str().len()));
        }
        Self {
            epoch,
            snapshot,
            hosts,
            targets,
        }
    }

    /// The snapshot it was built from.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Generation of that snapshot; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.snapshot.generation
    }

    /// The route for `host` (lower case, no port) and `path` (no query).
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.hosts
            .get(host)?
            .iter()
            .find(|route| route.prefix.matches(path))
    }

    /// Whether any route is for `host`.
    pub fn knows(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
    }

    /// The hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// Every target once, with its check.
    pub fn targets(&self) -> &[(Arc<Target>, Option<HealthCheck>)] {
        &self.targets
    }
}

impl Route {
    /// A target for the next request: in turn, those not in `tried` and healthy first.
    ///
    /// If none is healthy one is chosen all the same: a failing check is no proof that a request
    /// fails, and an error page is no better.
    pub fn choose(&self, tried: &[InstanceId]) -> Option<&Arc<Target>> {
        match &self.answer {
            Answer::Files(site) => Some(&site.target),
            Answer::Pool(pool) => pool.choose(tried),
        }
    }
}

impl Pool {
    fn choose(&self, tried: &[InstanceId]) -> Option<&Arc<Target>> {
        if let [only] = self.targets.as_slice() {
            return Some(only);
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = || {
            let count = self.targets.len();
            (0..count).map(move |step| &self.targets[start.wrapping_add(step) % count])
        };
        let fresh = |target: &&Arc<Target>| !tried.contains(target.id());
        in_turn()
            .find(|target| fresh(target) && target.failures() < UNHEALTHY_AFTER)
            .or_else(|| in_turn().find(fresh))
            .or_else(|| in_turn().next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::snapshot::tests::{route, target};

    fn table(routes: Vec<temps_ipc::types::Route>) -> RouteTable {
        let snapshot = Snapshot {
            generation: 1,
            routes,
        };
        RouteTable::build(Arc::new(snapshot), 1, |_, _| None)
    }

    fn app(table: &RouteTable, host: &str, path: &str) -> Option<String> {
        table.find(host, path).map(|route| route.app.to_string())
    }

    #[test]
    fn the_longest_prefix_of_the_host_wins() {
        let table = table(vec![
            route("shop.test", "/", "web", vec![target(1)]),
            route("shop.test", "/api", "api", vec![target(2)]),
            route("shop.test", "/api/v2", "apinew", vec![target(3)]),
            route("blog.test", "/", "blog", vec![target(4)]),
        ]);
        for (host, path, expected) in [
            ("shop.test", "/", Some("web")),
            ("shop.test", "/apis", Some("web")),
            ("shop.test", "/api", Some("api")),
            ("shop.test", "/api/v1", Some("api")),
            ("shop.test", "/api/v2/x", Some("apinew")),
            ("blog.test", "/api", Some("blog")),
            ("other.test", "/", None),
            ("sub.shop.test", "/", None),
        ] {
            assert_eq!(app(&table, host, path).as_deref(), expected, "{host}{path}");
        }
    }

    #[test]
    fn requests_are_shared_in_turn_and_tried_targets_avoided() {
        let table = table(vec![route(
            "a.test",
            "/",
            "a",
            vec![target(1), target(2), target(3)],
        )]);
        let route = table.find("a.test", "/").unwrap();
        let ids: Vec<InstanceId> = (0..3)
            .map(|_| route.choose(&[]).unwrap().id().clone())
            .collect();
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        for _ in 0..6 {
            assert_eq!(route.choose(&ids[..2]).unwrap().id(), &ids[2]);
        }
        assert!(route.choose(&ids).is_some(), "better a tried one than none");
    }

    #[test]
    fn an_unhealthy_target_gets_requests_only_when_no_other_can_take_them() {
        let table = table(vec![route("a.test", "/", "a", vec![target(1), target(2)])]);
        let route = table.find("a.test", "/").unwrap();
        let bad = Arc::clone(route.choose(&[]).unwrap());
        for _ in 0..UNHEALTHY_AFTER {
            bad.failed();
        }
        for _ in 0..4 {
            assert_ne!(route.choose(&[]).unwrap().id(), bad.id());
        }
        let other = route.choose(&[]).unwrap().id().clone();
        assert_eq!(route.choose(&[other]).unwrap().id(), bad.id());
    }
}
