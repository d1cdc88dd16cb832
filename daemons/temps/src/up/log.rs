//! What the supervisor itself says, between the lines of its daemons: on stderr, one line each.

use crate::output::harmless;
use std::io::Write;
use temps_ipc::types::Timestamp;

/// Says one line.
pub fn say(text: &str) {
    let text = harmless(text, false).replace('\n', " ");
    // The terminal may be gone; the platform goes on.
    let _ = writeln!(
        std::io::stderr().lock(),
        "{} temps-up: {text}",
        Timestamp::now().rfc3339()
    );
}
