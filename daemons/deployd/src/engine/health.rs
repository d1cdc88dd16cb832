//! Whether the new instance becomes healthy, and in which words it does not.

use super::Engine;
use super::step::{Step, explain};
use crate::port::{InstanceState, Runtime};
use crate::store::StoreError;
use crate::store::app::App;
use crate::store::deployment::Deployment;
use crate::store::instance::Instance;
use crate::store::release::Release;
use std::sync::Arc;
use std::time::Duration;
use temps_ipc::types::{Address, HealthCheck, Phase, ProbeFailure, Target};
use temps_ipc::{Code, Fault};
use tokio::time::Instant;

/// Longest single question to the proxy.
const SLICE: Duration = Duration::from_secs(10);

/// How long a proxy that does not answer is waited for, beyond the health timeout: its restart.
const PROXY_GRACE: Duration = Duration::from_secs(60);

/// Pause before a proxy or an engine that does not answer is asked again.
const PAUSE: Duration = Duration::from_millis(300);

/// Addresses that are named of those where an instance listens instead.
const TOLD: usize = 4;

impl Engine {
    /// Waits until the new instance is healthy.
    pub(super) async fn probe(
        &self,
        app: &App,
        deployment: &Deployment,
    ) -> Result<Step, StoreError> {
        let release = self.release(deployment).await?;
        let Some(instance) = self.own_instance(app, deployment).await? else {
            return Ok(Step::Refuse(
                "its instance disappeared before it was healthy".to_owned(),
            ));
        };
        if self.went_with_the_platform(&instance).await {
            return Ok(Step::Next(Phase::Starting));
        }
        tokio::select! {
            healthy = self.becomes_healthy(&release, &instance) => Ok(match healthy {
                Ok(()) => Step::Next(Phase::Switching),
                Err(reason) => Step::Refuse(reason),
            }),
            () = self.stopping.cancelled() => Ok(Step::Paused),
            () = self.cancelled(deployment) => Ok(Step::Paused),
        }
    }

    /// Whether nothing is left of an instance that was started: it was stopped together with the
    /// platform while its deployment was under way, which says nothing about the release.
    pub(super) async fn went_with_the_platform(&self, instance: &Instance) -> bool {
        let runtime = self.runtimes.get(instance.runtime);
        match runtime.filter(|_| instance.address.is_some()) {
            Some(runtime) => matches!(runtime.state(&instance.id).await, Ok(InstanceState::Absent)),
            None => false,
        }
    }

    /// Waits until `instance` passes its health check; otherwise why not, in a sentence.
    pub(super) async fn becomes_healthy(
        &self,
        release: &Release,
        instance: &Instance,
    ) -> Result<(), String> {
        let Some(address) = instance.address.clone() else {
            return Ok(());
        };
        let runtime = self.runtimes.get(instance.runtime).ok_or_else(|| {
            format!(
                "the {} runtime is not part of this installation",
                instance.runtime
            )
        })?;
        let target = Target {
            id: instance.id.clone(),
            address: address.clone(),
            check: release.check(),
        };
        let timeout = Duration::from_millis(release.health_timeout_ms);
        tokio::select! {
            passed = self.passes(target, timeout) => match passed {
                Ok(()) => Ok(()),
                Err(Verdict::Failed(failure)) => {
                    Err(unhealthy(&runtime, instance, &address, release, &failure, timeout).await)
                }
                Err(Verdict::Fault(fault)) => Err(explain(&fault)),
            },
            how = ended(&runtime, instance) => {
                Err(format!("it {how} before it was healthy"))
            }
        }
    }

    /// Probes until the target is healthy or the time is over.
    async fn passes(&self, target: Target, timeout: Duration) -> Result<(), Verdict> {
        let deadline = Instant::now() + timeout;
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self
                .proxy
                .probe(vec![target.clone()], left.min(SLICE))
                .await
            {
                Ok(outcomes) => {
                    let failure = outcomes
                        .into_iter()
                        .find(|outcome| outcome.target == target.id)
                        .map_or(Some(ProbeFailure::TimedOut), |outcome| outcome.failure);
                    let Some(failure) = failure else {
                        return Ok(());
                    };
                    // The last question has little time, so its silence says less than an answer
                    // to an earlier one.
                    let known = match (failure, last.take()) {
                        (ProbeFailure::TimedOut, Some(earlier)) => earlier,
                        (failure, _) => failure,
                    };
                    if Instant::now() >= deadline {
                        return Err(Verdict::Failed(known));
                    }
                    last = Some(known);
                }
                Err(fault) if fault.code == Code::Unavailable => {
                    if Instant::now() >= deadline + PROXY_GRACE {
                        return Err(Verdict::Fault(fault));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(fault) => return Err(Verdict::Fault(fault)),
            }
        }
    }
}

/// Why a target did not pass.
enum Verdict {
    /// It was asked, and this was the last failure.
    Failed(ProbeFailure),
    /// It could not be asked.
    Fault(Fault),
}

/// Waits until the instance does not run any more; in which way, for people.
pub(super) async fn ended(runtime: &Arc<dyn Runtime>, instance: &Instance) -> String {
    loop {
        match runtime.ended(&instance.id).await {
            Ok(
                InstanceState::Exited { how, .. } | InstanceState::Resting { failed: Some(how) },
            ) => return how,
            Ok(InstanceState::Absent) => return "disappeared".to_owned(),
            // An engine that does not answer says nothing about the instance.
            Ok(InstanceState::Running | InstanceState::Resting { failed: None }) | Err(_) => {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Why a running instance is not healthy, with what was expected and what is there instead.
async fn unhealthy(
    runtime: &Arc<dyn Runtime>,
    instance: &Instance,
    address: &Address,
    release: &Release,
    failure: &ProbeFailure,
    timeout: Duration,
) -> String {
    let seconds = timeout.as_secs_f64();
    match failure {
        ProbeFailure::Status(status) => match release.check() {
            HealthCheck::Http { path } => {
                format!(
                    "it answers {status} on {path} where its health check wants 200 to 399 (waited {seconds:.0} s)"
                )
            }
            _ => format!(
                "it answers {status} on / (waited {seconds:.0} s; choose another path with --health)"
            ),
        },
        ProbeFailure::TimedOut if release.socket_activated => format!(
            "it does not answer in the socket that it was given as descriptor 3 (LISTEN_FDS); where its command is more than a list of simple ones, the last needs `exec` (waited {seconds:.0} s)"
        ),
        ProbeFailure::Refused | ProbeFailure::TimedOut | ProbeFailure::Broken(_) => {
            let expected = match address {
                Address::Tcp(address) => format!("port {} ($PORT)", address.port()),
                Address::Unix(path) => path.display().to_string(),
            };
            let elsewhere = runtime.listening(&instance.id).await;
            let wrong_place = matches!(address, Address::Tcp(address)
                if !elsewhere.iter().any(|at| at.ends_with(&format!(":{}", address.port()))));
            if wrong_place && elsewhere.is_empty() {
                format!(
                    "it does not listen on {expected}, nor on any other port, after {seconds:.0} s"
                )
            } else if wrong_place {
                format!(
                    "it does not listen on {expected}; it listens on {} instead (waited {seconds:.0} s)",
                    told(&elsewhere)
                )
            } else if let Some(local) = only_reachable_inside(address, &elsewhere) {
                format!(
                    "it listens on {local} only, where nobody outside reaches it: it must listen on $HOST (waited {seconds:.0} s)"
                )
            } else {
                format!("it did not become healthy on {expected} within {seconds:.0} s: {failure}")
            }
        }
    }
}

/// Addresses as a text, of which an app may have as many as it may have files.
fn told(addresses: &[String]) -> String {
    let (first, others) = addresses.split_at(addresses.len().min(TOLD));
    let first = first.join(" and ");
    match others.len() {
        0 => first,
        count => format!("{first} and {count} others"),
    }
}

/// Where the instance listens on the right port, if that is nowhere it can be reached: on a loopback
/// address that is not the one it was given.
fn only_reachable_inside(expected: &Address, listening: &[String]) -> Option<String> {
    let Address::Tcp(expected) = expected else {
        return None;
    };
    let right: Vec<std::net::SocketAddr> = listening
        .iter()
        .filter_map(|at| at.parse().ok())
        .filter(|at: &std::net::SocketAddr| at.port() == expected.port())
        .collect();
    let inside = |at: &std::net::SocketAddr| at.ip().is_loopback() && at != expected;
    (!right.is_empty() && right.iter().all(inside)).then(|| {
        let texts: Vec<String> = right.iter().map(ToString::to_string).collect();
        told(&texts)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_addresses_a_few_are_told() {
        let all: Vec<String> = (1..=10).map(|port| format!("[::]:{port}")).collect();
        assert_eq!(told(&all[..2]), "[::]:1 and [::]:2");
        assert_eq!(
            told(&all),
            "[::]:1 and [::]:2 and [::]:3 and [::]:4 and 6 others"
        );
    }

    #[test]
    fn an_instance_that_listens_only_to_itself_is_told_apart() {
        let container = Address::Tcp("10.192.0.5:8080".parse().unwrap());
        let process = Address::Tcp("127.0.0.1:21000".parse().unwrap());
        for (expected, listening, found) in [
            (&container, "127.0.0.1:8080", Some("127.0.0.1:8080")),
            (&container, "0.0.0.0:8080", None),
            (&container, "127.0.0.1:9999", None),
            (&process, "127.0.0.1:21000", None),
            (&process, "[::1]:21000", Some("[::1]:21000")),
            (&process, "[::]:21000", None),
        ] {
            let listening = [listening.to_owned()];
            assert_eq!(
                only_reachable_inside(expected, &listening).as_deref(),
                found,
                "{listening:?}"
            );
        }
    }
}
