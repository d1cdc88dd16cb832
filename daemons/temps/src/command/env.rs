//! `temps env`. Values are secrets: they are masked unless somebody asks, and never in an error.

use crate::cli::{EnvCommand, EnvListArgs, EnvSetArgs};
use crate::dotenv;
use crate::instance::{self, Instance, PATIENCE};
use crate::output::{Done, Out};
use crate::prompt;
use crate::table::Table;
use serde::Serialize;
use std::io::Read;
use std::path::Path;
use temps_ipc::Fault;
use temps_ipc::types::{AppName, EnvName, EnvVar};
use temps_ipc::wire::client::Repeat;

/// What stands for a value that is not shown. Always as long, so that it tells nothing.
const MASK: &str = "••••";

/// Most bytes read from a file or stdin: all of a frame, and more than any set of variables needs.
const MAX_INPUT: u64 = 1024 * 1024;

/// A variable, for programs; the value is null unless it was asked for.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: &'a str,
    value: Option<&'a str>,
}

/// Carries out `temps env …`.
pub async fn run(instance: &Instance, command: EnvCommand, out: &Out) -> Done {
    match command {
        EnvCommand::Set(args) => set(instance, args, out).await,
        EnvCommand::Unset(args) => unset(instance, args.app, args.names, out).await,
        EnvCommand::List(args) => list(instance, args, out).await,
    }
}

async fn set(instance: &Instance, args: EnvSetArgs, out: &Out) -> Done {
    let mut variables = Vec::new();
    if let Some(path) = &args.file {
        let text = read(path)?;
        let pairs = dotenv::parse(&text)
            .map_err(|what| Fault::invalid(format!("{}: {what}", path.display())))?;
        for (name, value) in pairs {
            variables.push(variable(&name, &value)?);
        }
    }
    for argument in &args.variables {
        variables.push(match argument.split_once('=') {
            Some((name, value)) => variable(name, value)?,
            None => asked(argument, args.variables.len() > 1 || args.file.is_some())?,
        });
    }
    if variables.is_empty() {
        return Err(Fault::invalid("there are no variables in the file").into());
    }
    instance
        .deployd
        // Setting the same values twice is the same as once.
        .call(Repeat::Idempotent, PATIENCE, |client, context| {
            let (app, variables) = (args.app.clone(), variables.clone());
            async move {
                client
                    .env_set(context, app, variables, instance::actor())
                    .await
            }
        })
        .await?;
    let names = variables
        .iter()
        .map(|variable| variable.name.as_str())
        .collect();
    changed(&args.app, "set", names, out)
}

async fn unset(instance: &Instance, app: AppName, names: Vec<EnvName>, out: &Out) -> Done {
    instance
        .deployd
        .call(Repeat::Never, PATIENCE, |client, context| {
            let (app, names) = (app.clone(), names.clone());
            async move {
                client
                    .env_unset(context, app, names, instance::actor())
                    .await
            }
        })
        .await?;
    changed(
        &app,
        "unset",
        names.iter().map(EnvName::as_str).collect(),
        out,
    )
}

fn changed(app: &AppName, verb: &str, names: Vec<&str>, out: &Out) -> Done {
    if out.json {
        return out.object(&serde_json::json!({ "app": app, verb: names }));
    }
    out.line(format!("{app}: {verb} {}", names.join(", ")))?;
    out.note(format!(
        "the next release gets the change: `temps redeploy {app}` makes one"
    ));
    Ok(())
}

async fn list(instance: &Instance, args: EnvListArgs, out: &Out) -> Done {
    let variables = instance
        .deployd
        .call(Repeat::Idempotent, PATIENCE, |client, context| {
            let app = args.app.clone();
            async move { client.env_list(context, app).await }
        })
        .await?;
    if out.json {
        let listed: Vec<Listed<'_>> = variables
            .iter()
            .map(|variable| Listed {
                name: variable.name.as_str(),
                value: args.reveal.then(|| variable.value.reveal()),
            })
            .collect();
        return out.object(&listed);
    }
    let mut table = Table::new(&["NAME", "VALUE"]);
    for variable in &variables {
        let value = if args.reveal {
            variable.value.reveal()
        } else {
            MASK
        };
        table.row([variable.name.to_string(), value.to_owned()]);
    }
    table.print(out)
}

fn variable(name: &str, value: &str) -> Result<EnvVar, Fault> {
    let name: EnvName = name.parse().map_err(Fault::invalid)?;
    let value = value
        .parse()
        .map_err(|what: String| Fault::invalid(format!("{name}: {what}")))?;
    Ok(EnvVar { name, value })
}

/// Asks for a value on the terminal, or reads it from stdin to its end.
fn asked(name: &str, several: bool) -> Result<EnvVar, Fault> {
    // Before anybody types a secret for nothing.
    let checked: EnvName = name.parse().map_err(Fault::invalid)?;
    if prompt::possible() {
        return variable(name, &prompt::secret(&format!("{checked}: "))?);
    }
    if several {
        return Err(Fault::invalid(format!(
            "the value of {checked} cannot be read from stdin beside other variables"
        ))
        .hint("set it alone, or use --file"));
    }
    let text = read(Path::new("-"))?;
    // The end of the last line is the shell's, not the value's.
    variable(name, text.strip_suffix('\n').unwrap_or(&text))
}

/// The text of a file, or of stdin for `-`.
fn read(path: &Path) -> Result<String, Fault> {
    let failed = |error: std::io::Error| {
        Fault::invalid(format!("{} cannot be read: {error}", path.display()))
    };
    let mut text = String::new();
    let length = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_INPUT + 1)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .map_err(failed)?
            .take(MAX_INPUT + 1)
            .read_to_string(&mut text)
    };
    if length.map_err(failed)? as u64 > MAX_INPUT {
        return Err(Fault::invalid(format!(
            "{} has more than {MAX_INPUT} bytes",
            path.display()
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_variable_never_shows_its_value() {
        let fault = variable("A-B", "hunter2").unwrap_err();
        assert!(!fault.what.contains("hunter2"));
        let fault = variable("A", "hunter2\0").unwrap_err();
        assert!(fault.what.starts_with("A: ") && !fault.what.contains("hunter2"));
    }

    #[test]
    fn a_hidden_value_is_null_for_programs() {
        let json = serde_json::to_string(&Listed {
            name: "A",
            value: None,
        })
        .unwrap();
        assert_eq!(json, r#"{"name":"A","value":null}"#);
    }
}
