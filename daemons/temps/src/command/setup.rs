//! `temps setup`: from an installed package to a platform that serves.
//!
//! ```text
//! present -> answers -> checks -> plan -> (asked) -> changes, one after the other
//! ```
//! - What is as it should be is left alone: a second run changes nothing.
//! - Nothing is changed before everything was asked, checked and shown.
//! - A port that is taken or an engine that is not there is said, and does not stop the rest.

mod checks;
mod machine;
mod plan;
mod port;
mod present;

use super::doctor;
use crate::cli::SetupArgs;
use crate::output::{Done, Out, Stop, Style};
use crate::prompt;
use machine::Machine;
use plan::{Change, Plan};
use present::Present;
use serde_json::json;
use temps_ipc::types::{Check, CheckLevel, Host};
use temps_ipc::{Code, Fault};

/// An answer that cannot be read is asked for again, so often.
const ATTEMPTS: usize = 3;

/// What shall be, as far as it was said.
#[derive(Debug)]
struct Wanted {
    base_domain: Host,
    operators: Vec<String>,
}

/// Carries out `temps setup`.
pub async fn run(args: SetupArgs, out: &Out) -> Done {
    if args.acme_mail.is_some() {
        return Err(Fault::new(
            Code::Unsupported,
            "publicly trusted certificates (ACME) are not built yet",
        )
        .hint("leave --acme-mail out: certificates are issued by an authority of this machine")
        .into());
    }
    let machine = Machine::new(args.root.as_deref());
    if !args.check && !args.dry_run {
        machine.may_change()?;
    }
    let present = Present::read(&machine).await?;
    if args.check {
        let checks = checks::all(&machine, &present, &present.base_domain).await;
        return say_what_is_in_the_way(&checks, out);
    }
    let wanted = wanted(&args, &present, &machine)?;
    let mut checks = checks::all(&machine, &present, &wanted.base_domain).await;
    let plan = Plan::new(&present, &wanted, &checks);
    if !out.json {
        checks
            .iter()
            .try_for_each(|check| doctor::show(check, out))?;
        show(&plan, out)?;
    }
    let makes = !args.dry_run && !plan.changes.is_empty();
    if makes {
        agreed(args.yes)?;
        for change in &plan.changes {
            change.make(&machine).await?;
        }
    }
    checks.extend(overruled(&machine, &wanted, args.dry_run)?);
    finish(&wanted, &checks, &plan, makes, out)
}

fn say_what_is_in_the_way(checks: &[Check], out: &Out) -> Done {
    if out.json {
        out.object(&json!({ "checks": checks }))?;
    } else {
        for check in checks.iter().filter(|check| check.level != CheckLevel::Ok) {
            doctor::show(check, out)?;
        }
    }
    status(checks)
}

/// What was given by flags, and what is asked for where it was not.
fn wanted(args: &SetupArgs, present: &Present, machine: &Machine) -> Result<Wanted, Fault> {
    let asks = !args.yes && prompt::possible();
    let base_domain = match &args.base_domain {
        Some(domain) => domain.clone(),
        None if asks => ask_domain(&present.base_domain)?,
        None => present.base_domain.clone(),
    };
    let operators = if args.operator.is_empty() && asks {
        ask_operators(present, machine)?
    } else {
        args.operator.clone()
    };
    known(&operators, machine)?;
    Ok(Wanted {
        base_domain,
        operators,
    })
}

fn ask_domain(present: &Host) -> Result<Host, Fault> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let answer = prompt::ask(&format!(
            "{last}Under which domain shall apps answer, as APP.DOMAIN? [{present}] "
        ))?;
        if answer.is_empty() {
            return Ok(present.clone());
        }
        match answer.parse() {
            Ok(domain) => return Ok(domain),
            Err(problem) => last = format!("{problem}\n"),
        }
    }
    Err(Fault::invalid(last.trim_end()))
}

fn ask_operators(present: &Present, machine: &Machine) -> Result<Vec<String>, Fault> {
    let by_sudo = std::env::var("SUDO_USER").unwrap_or_default();
    let usual = if present.operators.is_empty() && machine.has_user(&by_sudo) {
        by_sudo
    } else {
        present.operators.join(" ")
    };
    let shown = if usual.is_empty() { "nobody" } else { &usual };
    let mut last = Ok(());
    for _ in 0..ATTEMPTS {
        let said = last.map_or_else(
            |fault: Fault| format!("{}\n", fault.what),
            |()| String::new(),
        );
        let answer = prompt::ask(&format!(
            "{said}Which users may operate the platform, beside root? [{shown}] "
        ))?;
        let names = if answer.is_empty() { &usual } else { &answer };
        let names: Vec<String> = names
            .split([' ', ','])
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        last = known(&names, machine);
        if last.is_ok() {
            return Ok(names);
        }
    }
    last.map(|()| Vec::new())
}

/// That there are such users.
fn known(users: &[String], machine: &Machine) -> Result<(), Fault> {
    match users.iter().find(|user| !machine.has_user(user)) {
        Some(user) => Err(Fault::not_found(format!("there is no user `{user}`"))
            .hint(format!("`adduser {user}` makes one"))),
        None => Ok(()),
    }
}

fn agreed(yes: bool) -> Result<(), Fault> {
    if yes {
        return Ok(());
    }
    if !prompt::possible() {
        return Err(
            Fault::invalid("there is nobody to be asked whether this shall be changed")
                .hint("pass --yes"),
        );
    }
    match prompt::ask("Change this? [Y/n] ")?.as_str() {
        "" | "y" | "Y" | "yes" => Ok(()),
        _ => Err(Fault::invalid("nothing was changed").hint("it may be run again at any time")),
    }
}

fn show(plan: &Plan, out: &Out) -> Done {
    if plan.changes.is_empty() {
        return out.line("Everything is set up; there is nothing to change.");
    }
    out.line(out.styled(Style::Bold, "To be changed:"))?;
    for change in &plan.changes {
        out.line(format!("  {}", change.words()))?;
    }
    Ok(())
}

/// A setting that was written, and does not count because of another file.
fn overruled(machine: &Machine, wanted: &Wanted, dry_run: bool) -> Result<Option<Check>, Fault> {
    if dry_run {
        return Ok(None);
    }
    let counts = present::base_domain(machine)?;
    Ok((counts != wanted.base_domain).then(|| {
        doctor::warning(
            "base-domain",
            format!("is {counts}, by another file below /etc/temps"),
            "a file in deployd.toml.d that comes after 10-setup.toml decides: change it there",
        )
    }))
}

fn finish(wanted: &Wanted, checks: &[Check], plan: &Plan, made: bool, out: &Out) -> Done {
    if out.json {
        let changes: Vec<String> = plan.changes.iter().map(Change::words).collect();
        out.object(&json!({
            "base_domain": wanted.base_domain,
            "operators": wanted.operators,
            "checks": checks,
            "changes": changes,
            "changed": made,
        }))?;
        return status(checks);
    }
    if made {
        out.line(format!(
            "{} apps answer at APP.{}; `temps doctor` says how everything is",
            out.styled(Style::Good, "done:"),
            wanted.base_domain
        ))?;
        if plan.adds_operators() {
            out.line("Operators who are logged in have to log in again.")?;
        }
    }
    status(checks)
}

/// Exit status 1 if something keeps the platform from serving.
fn status(checks: &[Check]) -> Done {
    if checks.iter().any(|check| check.level == CheckLevel::Failed) {
        return Err(Stop::Status(1));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
