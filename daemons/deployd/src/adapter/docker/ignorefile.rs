//! `.dockerignore`: which files of the source are not sent to the engine.
//!
//! As Docker reads it: patterns are relative to the top of the source, a pattern that matches a
//! directory matches what is in it, `!` takes something back, and the last pattern that matches
//! decides. `Dockerfile` and `.dockerignore` are always sent.

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::path::Path;

/// Most patterns that are looked at.
const MAX_PATTERNS: usize = 1_000;

/// The patterns of a `.dockerignore`.
#[derive(Debug, Default)]
pub(super) struct IgnoreFile {
    patterns: Vec<(bool, Gitignore)>,
}

impl IgnoreFile {
    /// Reads the patterns; the error names the line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.strip_prefix('\u{feff}').unwrap_or(line).trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (takes_back, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let pattern = pattern
                .trim_start_matches('/')
                .trim_start_matches("./")
                .trim_end_matches('/');
            if pattern.is_empty() || pattern == "." {
                continue;
            }
            // Anchored, since unlike in a .gitignore `x` means only the `x` at the top.
            let mut builder = GitignoreBuilder::new("");
            let refuse =
                |error: ignore::Error| format!(".dockerignore, line {}: {error}", number + 1);
            builder
                .add_line(None, &format!("/{pattern}"))
                .map_err(refuse)?;
            patterns.push((takes_back, builder.build().map_err(refuse)?));
            if patterns.len() > MAX_PATTERNS {
                return Err(format!(
                    ".dockerignore has more than {MAX_PATTERNS} patterns"
                ));
            }
        }
        Ok(Self { patterns })
    }

    /// Whether the file or directory, relative to the top, is left out.
    pub(super) fn ignores(&self, path: &Path, is_dir: bool) -> bool {
        if path == Path::new("Dockerfile") || path == Path::new(".dockerignore") {
            return false;
        }
        let mut ignored = false;
        for (takes_back, pattern) in &self.patterns {
            if ignored == *takes_back
                && pattern
                    .matched_path_or_any_parents(path, is_dir)
                    .is_ignore()
            {
                ignored = !takes_back;
            }
        }
        ignored
    }

    /// Whether nothing is taken back, so that what is in an ignored directory need not be looked at.
    pub(super) fn is_plain(&self) -> bool {
        self.patterns.iter().all(|(takes_back, _)| !takes_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_docker() {
        let table = [
            ("node_modules", "node_modules", true),
            ("node_modules", "node_modules/a/b.js", true),
            ("node_modules", "lib/node_modules", false),
            ("/target/", "target/debug/x", true),
            ("*/temp*", "a/temporary.txt", true),
            ("*/temp*", "temp.txt", false),
            ("**/*.pyc", "a/b/c.pyc", true),
            ("**/*.pyc", "c.pyc", true),
            ("*.md\n!README.md", "CHANGES.md", true),
            ("*.md\n!README.md", "README.md", false),
            ("docs\n!docs/keep", "docs/keep/x", false),
            ("docs\n!docs/keep\ndocs/keep/x", "docs/keep/x", true),
            ("*", "anything/at/all", true),
            ("*", "Dockerfile", false),
            ("# *\n\n.", "a", false),
            ("temp?", "temp1", true),
            ("[ab].txt", "b.txt", true),
        ];
        for (text, path, ignored) in table {
            let file = IgnoreFile::parse(text).unwrap();
            assert_eq!(
                file.ignores(Path::new(path), false),
                ignored,
                "{text:?} {path}"
            );
        }
        assert!(
            IgnoreFile::parse("a\n[z-a]")
                .unwrap_err()
                .contains("line 2")
        );
    }
}
