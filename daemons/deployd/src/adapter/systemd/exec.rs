//! A shell command whose last program takes the shell's place.
//!
//! A socket is handed to one process, by number (`LISTEN_PID`, sd_listen_fds(3)), which is the shell that
//! carries out the app's command. Debian's shell starts even a single command as a child, to which the
//! socket is not meant then. `exec` before the last command mends that; it is put there where that
//! certainly means the same: in a list of simple commands (`cd src && KEY=x python3 app.py`). Any other
//! command stays as it is, and has to say `exec` itself.

/// What the shell does itself or reads as its grammar: not to be replaced, or not a program.
const NO_PROGRAM: [&str; 30] = [
    "!", "{", "}", ".", ":", "[", "[[", "case", "cd", "do", "done", "elif", "else", "esac", "eval",
    "exec", "exit", "export", "fi", "for", "function", "if", "return", "set", "then", "trap",
    "until", "wait", "while", "test",
];

/// The command with `exec` before its last program, where that means the same.
pub(super) fn in_place(command: &str) -> String {
    match last_program(command) {
        Some(at) => format!("{}exec {}", &command[..at], &command[at..]),
        None => command.to_owned(),
    }
}

/// Where the name of the last program begins, if the command is a list of simple ones.
fn last_program(command: &str) -> Option<usize> {
    let last = last_command(command)?;
    let mut rest = &command[last..];
    loop {
        let word = rest.trim_start();
        let at = command.len() - word.len();
        let length = word_length(word)?;
        if !is_assignment(&word[..length]) {
            let is_plain = length > 0 && !NO_PROGRAM.contains(&&word[..length]);
            return is_plain.then_some(at);
        }
        rest = &word[length..];
    }
}

/// Where the last command of the list begins; none if there is anything but simple commands.
fn last_command(command: &str) -> Option<usize> {
    let mut start = 0;
    let mut at = 0;
    while at < command.len() {
        let rest = &command[at..];
        if rest.starts_with("&&") {
            at += 2;
            start = at;
        } else if rest.starts_with(';') {
            at += 1;
            start = at;
        } else if rest.starts_with(">&") || rest.starts_with("<&") {
            at += 2;
        } else if rest.starts_with(['|', '&', '(', ')', '\n', '#']) {
            return None;
        } else {
            at += piece(rest)?;
        }
    }
    Some(start)
}

/// The length of the word that the text begins with.
fn word_length(text: &str) -> Option<usize> {
    let mut at = 0;
    while at < text.len() && !text[at..].starts_with([' ', '\t', ';', '&', '<', '>']) {
        at += piece(&text[at..])?;
    }
    Some(at)
}

/// The length of the first character with all that belongs to it: a quoted text, a substitution. None
/// where that cannot be told simply.
fn piece(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    let close = |after: usize, end: char, forbidden: &[char]| {
        let inner = &text[after..];
        let length = inner.find(end)?;
        (!inner[..length].contains(forbidden)).then_some(after + length + 1)
    };
    match first {
        '`' => None,
        '\\' => Some(1 + text[1..].chars().next()?.len_utf8()),
        '\'' => close(1, '\'', &[]),
        '"' => close(1, '"', &['\\', '`', '(']),
        '$' if text.starts_with("$(") => close(2, ')', &['(', '\'', '"', '\\', '`', '#']),
        '$' if text.starts_with("${") => close(2, '}', &['{', '\'', '"', '\\', '`', '(']),
        other => Some(other.len_utf8()),
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name
                .bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_last_program_of_simple_commands_takes_the_shells_place() {
        for (command, expected) in [
            ("python3 app.py", "exec python3 app.py"),
            ("  gunicorn app:app", "  exec gunicorn app:app"),
            (
                "A=1 B=\"x y\" ./run --port $PORT",
                "A=1 B=\"x y\" exec ./run --port $PORT",
            ),
            ("cd src && node server.js", "cd src && exec node server.js"),
            (
                "./migrate; gunicorn -w $(nproc) 'a;b' \"c && d\"",
                "./migrate; exec gunicorn -w $(nproc) 'a;b' \"c && d\"",
            ),
            (
                "java -Xmx${MEMORY:-64m} -jar a.jar 2>&1",
                "exec java -Xmx${MEMORY:-64m} -jar a.jar 2>&1",
            ),
        ] {
            assert_eq!(in_place(command), expected);
        }
    }

    #[test]
    fn any_other_command_stays_as_it_is() {
        for command in [
            "",
            "exec python3 app.py",
            "A=1",
            "a | b",
            "a || b",
            "a & b",
            "(a)",
            "{ a; }",
            "if a; then b; fi",
            "while true; do a; done",
            "a `b`",
            "a # b",
            "a \"$(b \"c\")\" && d",
            "a 'b",
            "a; wait",
            "a\nb",
            "f() { a; }; f",
        ] {
            assert_eq!(in_place(command), command);
        }
    }

    #[test]
    fn the_shell_becomes_it() {
        for command in [
            "readlink /proc/self",
            "true && A=x readlink /proc/self",
            "true; readlink /proc/self 2>&1",
        ] {
            let child = Command::new("/bin/sh")
                .args(["-c", &in_place(command)])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let number = child.id().to_string();
            let output = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), number);
        }
        let output = Command::new("/bin/sh")
            .args(["-c", &in_place("KEY=value printenv KEY")])
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"value\n");
    }
}
