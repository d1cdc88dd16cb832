//! Reads a Procfile: one `NAME: COMMAND` per line, comments with `#`, strictly.
//!
//! `web` is run, `build` is run once before it, in the unpacked source.

/// The one entry that is no process type: the command that makes the release ready to run.
pub(super) const BUILD: &str = "build";

/// Largest Procfile in bytes.
pub(super) const MAX_PROCFILE: u64 = 64 * 1024;

/// The process types of an app, in the order of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Procfile(Vec<(String, String)>);

/// What is wrong with a Procfile, and in which line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Procfile, line {line}: {what}")]
pub(super) struct BadProcfile {
    line: usize,
    what: String,
}

impl Procfile {
    pub(super) fn parse(text: &str) -> Result<Self, BadProcfile> {
        let mut types: Vec<(String, String)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let refuse = |what: String| BadProcfile {
                line: number + 1,
                what,
            };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, command)) = line.split_once(':') else {
                return Err(refuse("expected `NAME: COMMAND`".to_owned()));
            };
            let (name, command) = (name.trim_end(), command.trim());
            let valid = !name.is_empty()
                && name.len() <= 40
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
            if !valid {
                let shown: String = name.chars().take(40).collect();
                return Err(refuse(format!(
                    "{shown:?} is not a process type: use letters, digits, `-` and `_`"
                )));
            }
            if command.is_empty() {
                return Err(refuse(format!("`{name}` has no command")));
            }
            if command.chars().any(|c| c.is_control() && c != '\t') {
                return Err(refuse(format!(
                    "the command of `{name}` has a control character"
                )));
            }
            if types.iter().any(|(known, _)| known == name) {
                return Err(refuse(format!("`{name}` is there twice")));
            }
            types.push((name.to_owned(), command.to_owned()));
        }
        Ok(Self(types))
    }

    /// The command of the process type.
    pub(super) fn command(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, command)| command.as_str())
    }

    /// The names of all process types.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_types_and_comments_are_read() {
        let text = "# what runs\r\n\r\nweb: python3 app.py --port=$PORT\nworker_2 :  ./work: now\n";
        let file = Procfile::parse(text).unwrap();
        assert_eq!(file.command("web"), Some("python3 app.py --port=$PORT"));
        assert_eq!(file.command("worker_2"), Some("./work: now"));
        assert_eq!(file.command("release"), None);
        assert_eq!(file.names().collect::<Vec<_>>(), ["web", "worker_2"]);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, line, what) in [
            ("web python3 app.py", 1, "expected `NAME: COMMAND`"),
            ("\n\nweb:", 3, "no command"),
            ("web: a\n# x\nweb: b", 3, "twice"),
            ("we b: a", 1, "not a process type"),
            (": a", 1, "not a process type"),
            ("\u{feff}web: a", 1, "not a process type"),
            ("web: a\u{7}b", 1, "control character"),
        ] {
            let error = Procfile::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}
