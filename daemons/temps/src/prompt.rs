//! Questions to the person at the terminal.

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{self, BufRead, IsTerminal, Write};
use temps_ipc::Fault;

/// Whether somebody can be asked.
pub fn possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for one line; blanks around it do not count.
///
/// # Errors
/// When the terminal goes away.
pub fn ask(question: &str) -> Result<String, Fault> {
    eprint!("{question}");
    let line = line()?;
    Ok(line.trim().to_owned())
}

/// Asks for one line that is not shown.
///
/// # Errors
/// When the terminal goes away, or cannot be kept from showing it.
pub fn secret(question: &str) -> Result<String, Fault> {
    eprint!("{question}");
    let quiet = Quiet::new()?;
    let line = line();
    drop(quiet);
    eprintln!();
    line
}

fn line() -> Result<String, Fault> {
    let failed = |error: &io::Error| Fault::invalid(format!("the answer cannot be read: {error}"));
    io::stderr().flush().map_err(|error| failed(&error))?;
    let mut line = String::new();
    let length = io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| failed(&error))?;
    if length == 0 {
        return Err(Fault::invalid("there was no answer"));
    }
    let end = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(end);
    Ok(line)
}

/// The terminal does not show what is typed, until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn new() -> Result<Self, Fault> {
        let failed = |error: nix::Error| {
            Fault::internal(format!("the terminal cannot be silenced: {error}"))
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing more can be done if the terminal is gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}
