//! What commands say: results on stdout, everything else on stderr.
//!
//! - Colours and progress only on a terminal, and not with `NO_COLOR` set.
//! - Text that comes from apps and daemons cannot command the terminal it is shown on.
//! - A reader that went away (`temps logs | head`) ends the command without a word.

use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use temps_ipc::{Code, Fault};

/// Why a command ends early.
#[derive(Debug)]
pub enum Stop {
    /// It failed; to be said and turned into an exit status.
    Fault(Fault),
    /// Everything is said; only the exit status is left.
    Status(u8),
    /// Nobody reads stdout any more.
    Pipe,
}

/// How a command ends.
pub type Done = Result<(), Stop>;

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

/// A failure to write to stdout.
fn lost(error: &io::Error) -> Stop {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Stop::Pipe;
    }
    Stop::Fault(Fault::new(
        Code::NoSpace,
        format!("the output cannot be written: {error}"),
    ))
}

/// The looks of a piece of text.
#[derive(Debug, Clone, Copy)]
pub enum Style {
    /// Something went wrong.
    Error,
    /// Something wants attention.
    Warning,
    /// Something went well.
    Good,
    /// A heading.
    Bold,
    /// Less important than the text around it.
    Dim,
}

impl Style {
    /// The parameters of the SGR sequence (ECMA-48).
    const fn sgr(self) -> &'static str {
        match self {
            Style::Error => "1;31",
            Style::Warning => "33",
            Style::Good => "32",
            Style::Bold => "1",
            Style::Dim => "2",
        }
    }
}

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// Results are printed as JSON.
    pub json: bool,
    colour: bool,
    colour_errors: bool,
    terminal: bool,
    /// A progress line may be drawn on stderr.
    pub progress: bool,
}

impl Out {
    /// For this process' stdout and stderr.
    pub fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let terminal = io::stdout().is_terminal();
        let errors = io::stderr().is_terminal();
        Self {
            json,
            colour: terminal && !plain && !dumb,
            colour_errors: errors && !plain && !dumb,
            terminal,
            progress: errors && !dumb,
        }
    }

    /// One line on stdout.
    pub fn line(&self, text: impl AsRef<str>) -> Done {
        let text = text.as_ref();
        let mut stdout = io::stdout().lock();
        let written = if self.terminal {
            writeln!(stdout, "{}", harmless(text, true))
        } else {
            writeln!(stdout, "{text}")
        };
        written
            .and_then(|()| stdout.flush())
            .map_err(|error| lost(&error))
    }

    /// One line of JSON on stdout.
    pub fn object(&self, value: &impl Serialize) -> Done {
        let text = serde_json::to_string(value).map_err(|error| {
            Fault::internal(format!("the result cannot be written as JSON: {error}"))
        })?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")
            .and_then(|()| stdout.flush())
            .map_err(|error| lost(&error))
    }

    /// One line on stderr. That nobody reads it is no reason to stop.
    pub fn note(&self, text: impl AsRef<str>) {
        let text = harmless(text.as_ref(), true);
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Redraws the progress line; an empty text removes it.
    pub fn progress(&self, text: &str) {
        if self.progress {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{}", harmless(text, false));
            let _ = stderr.flush();
        }
    }

    /// `text` in a style, for stdout.
    pub fn styled(&self, style: Style, text: &str) -> String {
        paint(self.colour, style, text)
    }

    /// `text` in a style, for stderr.
    pub fn styled_note(&self, style: Style, text: &str) -> String {
        paint(self.colour_errors, style, text)
    }

    /// Says what went wrong and what to do about it.
    pub fn fault(&self, fault: &Fault) {
        self.error(&fault.what, &fault.hint);
        if self.json {
            let error = serde_json::json!({ "error": {
                "code": fault.code.name(),
                "what": fault.what,
                "hint": fault.hint,
            }});
            // The exit status says it too, should nobody read this.
            let _ = self.object(&error);
        }
    }

    /// `error: WHAT` and `hint: HINT` on stderr.
    pub fn error(&self, what: &str, hint: &str) {
        let what = if what.is_empty() {
            "it failed, and did not say why"
        } else {
            what
        };
        self.note(format!(
            "{} {what}",
            self.styled_note(Style::Error, "error:")
        ));
        if !hint.is_empty() {
            self.note(format!(
                "{} {hint}",
                self.styled_note(Style::Warning, "hint:")
            ));
        }
    }
}

fn paint(colour: bool, style: Style, text: &str) -> String {
    if colour {
        format!("\x1b[{}m{text}\x1b[0m", style.sgr())
    } else {
        text.to_owned()
    }
}

/// `text` without control characters; `colours` leaves SGR sequences (`ESC [ … m`) in.
pub fn harmless(text: &str, colours: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if colours && let Some(length) = sgr_length(rest) {
            clean.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        match character {
            '\t' | '\n' => clean.push(character),
            character if character.is_control() => clean.push('\u{fffd}'),
            character => clean.push(character),
        }
        rest = &rest[character.len_utf8()..];
    }
    clean
}

/// Bytes of the SGR sequence at the start of `text`, if there is one.
fn sgr_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let length = parameters
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || *byte == b';')
        .count();
    (parameters.as_bytes().get(length) == Some(&b'm')).then_some(length + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_cannot_command_the_terminal_but_may_use_colours() {
        assert_eq!(
            harmless("\x1b[31mred\x1b[0m\tx", true),
            "\x1b[31mred\x1b[0m\tx"
        );
        assert_eq!(harmless("\x1b[31mred", false), "\u{fffd}[31mred");
        assert_eq!(
            harmless("a\x1b]0;title\x07b\r\x1b[2J", true),
            "a\u{fffd}]0;title\u{fffd}b\u{fffd}\u{fffd}[2J"
        );
        assert_eq!(harmless("ünï \u{9b}m", true), "ünï \u{fffd}m");
    }

    #[test]
    fn a_broken_pipe_is_silent_and_a_full_disk_is_not() {
        let pipe = lost(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(pipe, Stop::Pipe));
        let full = lost(&io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(full, Stop::Fault(fault) if fault.code == Code::NoSpace));
    }
}
