//! The notices of Rust's standard library, which is in every Rust program. The toolchain brings them
//! as a page of HTML; here they become a text.

use crate::pack::said;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// Where rustup's toolchains have the page, below their root.
const PAGE: &str = "share/doc/rust/COPYRIGHT-library.html";
/// What is true of it wherever it comes from.
const SHORT: &str = "Copyright: The Rust Project Developers (see https://thanks.rust-lang.org)\n\
    License: Apache-2.0 OR MIT; the texts of both are above.\n";
/// Elements that end a line.
const BLOCKS: [&str; 9] = [
    "p", "h1", "h2", "h3", "li", "pre", "div", "summary", "details",
];

/// The text.
///
/// # Errors
/// When the page cannot be read although it is there.
pub fn notices() -> Result<String> {
    let root = said(Command::new("rustc").args(["--print", "sysroot"]))?;
    let page = Path::new(root.trim()).join(PAGE);
    if !page.exists() {
        // A toolchain of a distribution. What is released is built with rustup's.
        eprintln!(
            "warning: {} is not there: of the crates in Rust's standard library no notices are given",
            page.display()
        );
        return Ok(SHORT.to_owned());
    }
    let html =
        std::fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    Ok(plain(body(&html)))
}

/// What is to be read: from the first heading on.
fn body(html: &str) -> &str {
    html.find("<h1").map_or(html, |start| &html[start..])
}

/// The text of HTML as simple as that page: elements go, and blank lines that follow each other.
fn plain(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some((before, after)) = rest.split_once('<') {
        text.push_str(before);
        let Some((element, then)) = after.split_once('>') else {
            rest = "";
            break;
        };
        let name = element.trim_start_matches('/');
        let name = name.split_whitespace().next().unwrap_or_default();
        if BLOCKS.contains(&name) {
            text.push('\n');
        }
        rest = then;
    }
    text.push_str(rest);
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if !line.is_empty() || lines.last().is_some_and(|last| !last.is_empty()) {
            lines.push(line);
        }
    }
    unescape(&lines.join("\n"))
}

fn unescape(text: &str) -> String {
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#39;", "'"),
        // The last, or what it makes would be read again.
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (escaped, is)| {
        text.replace(escaped, is)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_a_text() {
        let page = "<html><title>no</title><body>\n<h1>Of it</h1>\n\n\n<p><b>License:</b> <code>MIT</code></p>\n\n\n\
            <pre>  &#34;A&#34; &amp;amp; &lt;b&gt;\n\n  end</pre></body></html>";
        assert_eq!(
            plain(body(page)).trim(),
            "Of it\n\nLicense: MIT\n\n  \"A\" &amp; <b>\n\n  end"
        );
    }

    #[test]
    fn what_is_cut_off_does_no_harm() {
        assert_eq!(plain("a <b"), "a");
    }

    #[test]
    fn there_is_always_something_to_be_said() {
        assert!(notices().unwrap().contains("Rust Project"));
    }
}
