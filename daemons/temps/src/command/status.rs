//! `temps status`: works with a part down, and says which.

use super::app;
use crate::instance::Instance;
use crate::output::{Done, Out, Stop, Style};
use serde_json::{Value, json};
use std::time::Duration;
use temps_ipc::types::{AppView, DeploydStatus, ProxyStatus};
use temps_ipc::wire::client::Repeat;
use temps_ipc::{Code, Fault};

/// How long a daemon may take to say how it is. A start on demand fits in.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Shows how the daemons and the apps are.
pub async fn run(instance: &Instance, out: &Out) -> Done {
    let (proxy, deployd) = tokio::join!(ask_proxy(instance), ask_deployd(instance));
    let apps = match &deployd {
        Ok(_) => app::all(instance).await,
        Err(fault) => Err(fault.clone()),
    };
    if out.json {
        out.object(&json!({
            "runtime_dir": instance.dir,
            "proxy": proxy.as_ref().map_or_else(down, proxy_json),
            "deployd": deployd.as_ref().map_or_else(down, deployd_json),
            "apps": apps.as_ref().ok().map(|apps| apps.iter().map(app::Listed::from).collect::<Vec<_>>()),
        }))?;
    } else {
        show(&proxy, &deployd, apps.as_deref().unwrap_or_default(), out)?;
    }
    let faults: Vec<&Fault> = [proxy.as_ref().err(), deployd.as_ref().err()]
        .into_iter()
        .flatten()
        .collect();
    for fault in &faults {
        out.error(&fault.what, &fault.hint);
    }
    match worst(&faults) {
        None => Ok(()),
        Some(code) => Err(Stop::Status(code.exit_status())),
    }
}

/// What the exit status says: that one is down, if one is. Who may not ask does not know.
fn worst(faults: &[&Fault]) -> Option<Code> {
    let code = if faults.iter().all(|fault| fault.code == Code::Denied) {
        Code::Denied
    } else {
        Code::Unavailable
    };
    (!faults.is_empty()).then_some(code)
}

/// How the proxy is.
///
/// # Errors
/// When it does not answer.
pub async fn ask_proxy(instance: &Instance) -> Result<ProxyStatus, Fault> {
    if let Some(fault) = &instance.proxy_failed {
        return Err(fault.clone());
    }
    instance
        .proxy
        .call(Repeat::Idempotent, PATIENCE, |client, context| async move {
            client.status(context).await
        })
        .await
}

/// How deployd is.
///
/// # Errors
/// When it does not answer.
pub async fn ask_deployd(instance: &Instance) -> Result<DeploydStatus, Fault> {
    if let Some(fault) = &instance.failed {
        return Err(fault.clone());
    }
    instance
        .deployd
        .call(Repeat::Idempotent, PATIENCE, |client, context| async move {
            client.status(context).await
        })
        .await
}

fn down(fault: &Fault) -> Value {
    let up = is_known(fault).then_some(false);
    json!({ "up": up, "error": { "code": fault.code.name(), "what": fault.what, "hint": fault.hint } })
}

/// Whether a daemon that answers so does not run.
fn is_known(fault: &Fault) -> bool {
    fault.code != Code::Denied
}

fn not_up(fault: &Fault, out: &Out) -> String {
    if is_known(fault) {
        out.styled(Style::Error, "down")
    } else {
        out.styled(Style::Warning, "unknown (permission denied)")
    }
}

fn proxy_json(status: &ProxyStatus) -> Value {
    json!({
        "up": true,
        "build": status.build,
        "started_at": status.started_at.rfc3339(),
        "generation": status.generation,
        "routes": status.routes,
        "targets": status.targets,
        "unhealthy": status.unhealthy,
        "certificates": status.certificates,
        "http": status.http,
        "https": status.https,
        "connections": status.connections,
        "requests": status.requests,
        "local_ca": status.local_ca,
    })
}

fn deployd_json(status: &DeploydStatus) -> Value {
    json!({
        "up": true,
        "build": status.build,
        "started_at": status.started_at.rfc3339(),
        "apps": status.apps,
        "deployments": status.deployments,
        "watching": status.watching,
        "base_domain": status.base_domain,
        "state_dir": status.state_dir,
    })
}

fn show(
    proxy: &Result<ProxyStatus, Fault>,
    deployd: &Result<DeploydStatus, Fault>,
    apps: &[AppView],
    out: &Out,
) -> Done {
    let up = out.styled(Style::Good, "up");
    match proxy {
        Ok(proxy) => {
            let address = |address: Option<std::net::SocketAddr>| {
                address.map_or_else(|| "-".to_owned(), |a| a.to_string())
            };
            out.line(format!(
                "temps-proxy    {up}  {} since {}; http {}, https {}; {} routes (generation {}), {} targets ({} unhealthy), {} connections, {} requests",
                proxy.build,
                proxy.started_at.rfc3339(),
                address(proxy.http),
                address(proxy.https),
                proxy.routes,
                proxy.generation,
                proxy.targets,
                proxy.unhealthy,
                proxy.connections,
                proxy.requests,
            ))?;
        }
        Err(fault) => out.line(format!("temps-proxy    {}", not_up(fault, out)))?,
    }
    match deployd {
        Ok(deployd) => {
            out.line(format!(
                "temps-deployd  {up}  {} since {}; {} apps, {} deployments under way, {} watched; state in {}",
                deployd.build,
                deployd.started_at.rfc3339(),
                deployd.apps,
                deployd.deployments,
                deployd.watching,
                deployd.state_dir.display(),
            ))?;
        }
        Err(fault) => out.line(format!("temps-deployd  {}", not_up(fault, out)))?,
    }
    if !apps.is_empty() {
        out.line("")?;
        app::table(apps).print(out)?;
    }
    for told in apps.iter().filter_map(app::dying) {
        out.line(out.styled(Style::Warning, &told))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_ask_is_not_told_that_anything_is_down() {
        let denied = Fault::new(Code::Denied, "not you");
        let dead = Fault::unavailable("nobody answers");
        assert_eq!(worst(&[]), None);
        assert_eq!(worst(&[&denied, &denied]), Some(Code::Denied));
        assert_eq!(worst(&[&denied, &dead]), Some(Code::Unavailable));
        assert_eq!(down(&denied)["up"], Value::Null);
        assert_eq!(down(&dead)["up"], Value::Bool(false));
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_start_is_told_by_its_notice() {
        let dir = tempfile::tempdir().unwrap();
        let fault = Fault::new(
            Code::Config,
            "temps-proxy: proxy.toml:1: unknown field `bogus`",
        );
        for daemon in ["proxy", "deployd"] {
            let notice = crate::instance::notice(dir.path(), daemon);
            std::fs::write(notice, serde_json::to_vec(&fault).unwrap()).unwrap();
        }
        let instance = Instance::find(Some(dir.path())).unwrap();
        assert_eq!(ask_proxy(&instance).await.err(), Some(fault.clone()));
        assert_eq!(ask_deployd(&instance).await.err(), Some(fault));
    }
}
