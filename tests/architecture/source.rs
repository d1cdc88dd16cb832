//! The files of the tree, and a Rust file without its tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{app, command};

/// A text file of the tree.
pub struct File {
    /// Below the top of the tree.
    pub path: PathBuf,
    pub text: String,
}

impl File {
    pub fn is_rust(&self) -> bool {
        self.path
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    /// Is itself part of a test, or of what tests deploy.
    pub fn is_test(&self) -> bool {
        let parts: Vec<_> = self.path.iter().collect();
        parts.iter().any(|part| *part == "tests") || self.path.ends_with("tests.rs")
    }

    /// Of the file what is compiled outside tests.
    pub fn product(&self) -> String {
        if self.is_test() {
            String::new()
        } else {
            without_tests(&self.text)
        }
    }
}

/// Every text file that git knows or would add.
pub fn files() -> Vec<File> {
    let mut list = Command::new("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(app::root());
    let list = command::run(&mut list, Duration::from_secs(30));
    let list = list
        .and_then(|output| output.success())
        .expect("git ls-files")
        .stdout;
    let read = |path: &str| {
        let text = std::fs::read_to_string(app::root().join(path)).ok()?;
        let path = Path::new(path).to_owned();
        Some(File { path, text })
    };
    let files: Vec<File> = list.lines().filter_map(read).collect();
    assert!(
        files.len() > 100,
        "the tree was not found: {} files",
        files.len()
    );
    files
}

/// Leaves out items under `#[cfg(test)]`. Relies on rustfmt: an item ends with a closing brace
/// that stands where the item began.
fn without_tests(text: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let indent = &line[..line.len() - line.trim_start().len()];
        if !line.trim_start().starts_with("#[cfg(test)]") {
            kept.push(line);
            continue;
        }
        let end = format!("{indent}}}");
        for line in lines.by_ref() {
            let is_over = line == end
                || (line.starts_with(indent)
                    && line.ends_with(';')
                    && !line[indent.len()..].starts_with(' '));
            if is_over {
                break;
            }
        }
    }
    kept.join("\n")
}

#[test]
fn tests_are_left_out_and_nothing_else() {
    let text = "a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod more {\n    x;\n}\nc\nimpl A {\n    #[cfg(test)]\n    fn d() {\n        y;\n    }\n    e\n}";
    assert_eq!(without_tests(text), "a\nb\nc\nimpl A {\n    e\n}");
}
