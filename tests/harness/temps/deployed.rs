//! What `temps deploy --json` ends with.

use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer};

use crate::command::Output;

/// The outcome of a deployment.
#[derive(Debug, Clone, Deserialize)]
pub struct Deployed {
    pub app: String,
    /// Empty if it came to none, as when the build failed.
    #[serde(deserialize_with = "empty_if_null", default)]
    pub release: String,
    pub url: Option<String>,
    /// `live`, `refused` or `rolled_back`.
    pub status: String,
    pub reason: Option<String>,
    /// The exit code of the command.
    #[serde(skip)]
    pub exit: i32,
    #[serde(skip)]
    pub stderr: String,
}

impl Deployed {
    /// Reads the object at the end of stdout.
    ///
    /// # Errors
    /// There is none: the whole output is in the error.
    pub fn parse(output: Output) -> Result<Self> {
        let mut starts: Vec<usize> = output
            .stdout
            .match_indices('\n')
            .map(|(at, _)| at + 1)
            .chain([0])
            .collect();
        starts.sort_unstable();
        let texts = starts.iter().rev().map(|at| &output.stdout[*at..]);
        let found = texts
            .filter(|text| text.starts_with('{'))
            .find_map(|text| serde_json::from_str::<Self>(text).ok())
            .with_context(|| {
                let Output {
                    status,
                    stdout,
                    stderr,
                } = &output;
                format!("no outcome of a deployment, exit status {status}\n{stdout}{stderr}")
            })?;
        Ok(Self {
            exit: output.status,
            stderr: output.stderr,
            ..found
        })
    }

    /// Itself, if the new release serves and the command said so by its exit code too.
    ///
    /// # Errors
    /// The reason why not.
    pub fn live(self) -> Result<Self> {
        let Self {
            release,
            status,
            reason,
            exit,
            stderr,
            ..
        } = &self;
        anyhow::ensure!(
            status == "live" && *exit == 0,
            "{release} is {status} ({reason:?}), exit code {exit}\n{stderr}"
        );
        Ok(self)
    }
}

fn empty_if_null<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(stdout: &str) -> Output {
        Output {
            status: 1,
            stdout: stdout.to_owned(),
            stderr: "log".to_owned(),
        }
    }

    #[test]
    fn the_object_at_the_end_is_read_on_one_line_or_more() {
        let short = r#"{"app":"a","release":"rel_1","url":null,"status":"refused","reason":"500"}"#;
        let long = short.replace(',', ",\n ");
        for text in [
            short,
            &long,
            &format!("building\n{{\"step\": 1}}\n{short}\n"),
        ] {
            let deployed = Deployed::parse(output(text)).expect(text);
            assert_eq!((&*deployed.release, deployed.exit), ("rel_1", 1));
            assert!(deployed.live().is_err());
        }
    }

    #[test]
    fn a_deployment_may_end_without_a_release() {
        let text = r#"{"app":"a","release":null,"url":null,"status":"refused","reason":"build"}"#;
        assert_eq!(
            Deployed::parse(output(text)).expect("an outcome").release,
            ""
        );
    }

    #[test]
    fn output_without_an_outcome_is_shown_whole() {
        let error = Deployed::parse(output("building\n"))
            .expect_err("no object")
            .to_string();
        assert!(
            error.contains("building") && error.contains("log"),
            "{error}"
        );
    }
}
