//! `cargo xtask notices`: the licences and copyright notices of what is compiled into the binary, as one
//! text that the packages carry. Nearly every licence asks for no more than that.
//!
//! - Cargo says which crates that are: those of the shipped features, for the target, without those that
//!   only run while it is compiled. Their texts are found in their sources, whatever they are called.
//! - A licence that deny.toml does not allow, or a crate without any text, ends it.
//! - One commit, one toolchain: one text. Nothing is fetched that a build would not.

mod crates;
mod library;
mod texts;

use crate::generated::root;
use crate::pack;
use anyhow::{Context, Result, ensure};
use clap::Args;
use crates::Crate;
use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;
use texts::Text;

/// Where the text goes.
#[derive(Debug, Args)]
pub struct Notices {
    /// The architecture of the binary
    #[arg(long, value_name = "ARCH", default_value = std::env::consts::ARCH)]
    arch: String,

    /// The file to write
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/packages/THIRD-PARTY-NOTICES"
    )]
    out: PathBuf,
}

/// Writes the text; prints where it is.
///
/// # Errors
/// As [`text`], or when it cannot be written.
pub fn run(notices: &Notices) -> Result<()> {
    let text = text(&notices.arch)?;
    let path = root().join(&notices.out);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// The notices of what a binary for `arch` (as Rust calls it) holds.
///
/// # Errors
/// When Cargo does not answer, or a crate is without a licence that is allowed or without its text.
pub fn text(arch: &str) -> Result<String> {
    let crates = crates::shipped(&format!("{arch}-unknown-linux-gnu"))?;
    let mut problems = crates::not_allowed(&crates)?;
    let mut each = Vec::new();
    for one in &crates {
        let found = texts::of(one, &crates)?;
        if found.is_empty() {
            problems.push(format!(
                "{} {} comes without the text of its licence: name one in notices/texts.rs",
                one.name, one.version
            ));
        }
        each.push((one, found));
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    let version = pack::said(std::process::Command::new("rustc").arg("--version"))?;
    Ok(write(&each, version.trim(), &library::notices()?))
}

/// Names every crate with the numbers of its texts; each text is there once.
fn write(each: &[(&Crate, Vec<Text>)], compiler: &str, library: &str) -> String {
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut once: Vec<&Text> = Vec::new();
    let mut out = String::from(
        "The program `temps` is under the Apache License, version 2.0. What follows are the notices of\n\
         others whose work is compiled into it: of crates, each with the numbers of the texts that came\n\
         with it, then those texts, then of Rust's standard library.\n\n",
    );
    for (one, texts) in each {
        let mut found: Vec<usize> = Vec::new();
        for text in texts {
            let number = *numbers.entry(text.words()).or_insert_with(|| {
                once.push(text);
                once.len()
            });
            if !found.contains(&number) {
                found.push(number);
            }
        }
        let found: Vec<String> = found.iter().map(|number| format!("[{number}]")).collect();
        line(
            &mut out,
            &format!("{} {}", one.name, one.version),
            &one.licence,
            &found.join(" "),
        );
    }
    for (number, text) in once.iter().enumerate() {
        heading(&mut out, &format!("[{}] {}", number + 1, text.name));
        out.push_str(text.body.trim_end());
        out.push('\n');
    }
    heading(&mut out, &format!("Rust's standard library, of {compiler}"));
    out.push_str(library.trim_end());
    out.push('\n');
    out
}

fn line(out: &mut String, name: &str, licence: &str, texts: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{name}: {licence} {texts}");
}

fn heading(out: &mut String, text: &str) {
    let _ = writeln!(out, "\n{}\n{text}\n{}\n", "=".repeat(78), "=".repeat(78));
}

#[cfg(test)]
mod tests;
