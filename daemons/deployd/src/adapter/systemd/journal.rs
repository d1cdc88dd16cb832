//! Copies an instance's output from the journal into our log file, each line once
//! ([`crate::adapter::collected`]), by journalctl(1).
//!
//! Entries are chosen by `_SYSTEMD_UNIT`, which the journal takes from the control group of who wrote
//! them: no program can speak in another's name. The journal's files belong to root, so deployd reads
//! them without any capability.

use super::state::{exited, killed};
use crate::adapter::collected::{Known, Turns};
use crate::logfile::{Writer, clean};
use serde::Deserialize;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use temps_ipc::types::{LogStream, Timestamp};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// How long one look at the journal may take; on a slow disk it is read from its beginning.
const LIMIT: Duration = Duration::from_secs(60);

/// Longest entry read, in bytes: a line of 48 KiB (journald.conf(5)), each byte written as up to four
/// characters, and its other fields.
const MAX_ENTRY: u64 = 512 * 1024;

/// Entries taken in one look; what is left is taken by the next one.
const MAX_ENTRIES: usize = 500_000;

/// Lines that are kept before they are written.
const BATCH: usize = 256;

/// What the manager says when the process of a unit has ended (SD_MESSAGE_UNIT_PROCESS_EXIT of
/// sd-messages.h).
const PROCESS_EXIT: &str = "98e322203f7a4ed290d09fe03c09fe15";

/// How long one look for such a message may take; only the last seconds are read.
const CRASH_LIMIT: Duration = Duration::from_secs(10);

/// Copies output.
#[derive(Debug, Default)]
pub(super) struct Journal(Turns);

impl Journal {
    /// Brings the file up to date with what the unit has printed.
    pub(super) async fn collect(&self, unit: &str, file: &Path) -> io::Result<()> {
        let turn = self.0.of(file);
        let _turn = turn.lock().await;
        timeout(LIMIT, collect(unit, file))
            .await
            .map_err(|_| io::Error::other("journalctl takes too long"))?
    }

    /// How the unit's process ended the last time that it did not end well, since then; in words.
    pub(super) async fn crash(&self, unit: &str, since: Timestamp) -> Option<String> {
        let mut command = journalctl();
        command
            .args(["--quiet", "--no-pager", "--output=json", "--lines=20"])
            .args(["--output-fields=EXIT_CODE,EXIT_STATUS"])
            .arg(format!("--since=@{}", since.0 / 1_000))
            .args(["_PID=1", &format!("MESSAGE_ID={PROCESS_EXIT}")])
            .arg(format!("UNIT={unit}"));
        let output = timeout(CRASH_LIMIT, command.output()).await.ok()?.ok()?;
        let lines = output.stdout.split(|&byte| byte == b'\n');
        lines.rev().find_map(|line| crash(line, since))
    }

    /// Waits until the journal has taken what was printed until now.
    pub(super) async fn sync(&self) {
        let mut command = journalctl();
        command.arg("--sync").stdout(Stdio::null());
        // Without it, the last lines may come with the next look.
        let _ = timeout(Duration::from_secs(10), command.status()).await;
    }
}

fn journalctl() -> Command {
    let mut command = Command::new("journalctl");
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Where in the journal to go on.
enum Place {
    /// Behind the entry with this cursor, which the file names.
    After(String),
    /// At this moment, or at the beginning: the file has no mark yet.
    Since(Timestamp),
}

impl Place {
    fn arguments(&self) -> Option<String> {
        match self {
            Self::After(cursor) => Some(format!("--after-cursor={cursor}")),
            // What comes too early for us is known, or older than the file.
            Self::Since(at) => (at.0 > 0).then(|| format!("--since=@{}", at.0 / 1_000)),
        }
    }
}

async fn collect(unit: &str, file: &Path) -> io::Result<()> {
    if let Some((cursor, known)) = Known::marked(file)?
        && copy(unit, file, &Place::After(cursor), known).await?
    {
        return Ok(());
    }
    let known = Known::read(file)?;
    copy(unit, file, &Place::Since(known.since), known)
        .await
        .map(|_| ())
}

/// Copies what comes from the place on; whether journalctl could go there.
async fn copy(unit: &str, file: &Path, from: &Place, mut known: Known) -> io::Result<bool> {
    let mut command = journalctl();
    command
        .args([
            "--quiet",
            "--no-pager",
            "--all",
            "--output=json",
            "--output-fields=MESSAGE,PRIORITY",
        ])
        .args(from.arguments())
        // Not what the manager itself says about the unit, which has no such field.
        .arg(format!("_SYSTEMD_UNIT={unit}"))
        .arg("_TRANSPORT=stdout")
        .stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut output = BufReader::new(output);
    let mut writer: Option<Writer> = None;
    let (mut cursor, mut is_whole) = (None, false);
    let mut line = Vec::new();
    for count in 1..=MAX_ENTRIES {
        line.clear();
        let read = (&mut output)
            .take(MAX_ENTRY)
            .read_until(b'\n', &mut line)
            .await?;
        if read == 0 {
            is_whole = true;
            break;
        }
        let Some(entry) = Entry::parse(&line) else {
            continue;
        };
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(Writer::open(file)?),
        };
        if known.is_new(entry.at, entry.stream, &clean(&entry.text)) {
            writer.push(entry.at, entry.stream, &entry.text);
        }
        cursor = entry.cursor;
        if count % BATCH == 0 {
            write(writer, cursor.take());
        }
    }
    let came = writer.is_some();
    if let Some(writer) = &mut writer {
        write(writer, cursor);
    }
    if !is_whole {
        // It has more to say.
        drop(output);
        let _ = child.start_kill();
    }
    let ended = child.wait().await?;
    Ok(came || ended.success())
}

/// Writes the lines up to the cursor, and that they were written.
fn write(writer: &mut Writer, cursor: Option<String>) {
    if let Some(cursor) = cursor {
        writer.mark(&cursor);
    }
    writer.flush();
}

/// A line that an instance printed.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    at: Timestamp,
    stream: LogStream,
    text: Vec<u8>,
    /// Its place in the journal.
    cursor: Option<String>,
}

/// What is read of an entry (systemd.journal-fields(7)).
#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "__CURSOR")]
    cursor: Option<String>,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    micros: String,
    #[serde(rename = "MESSAGE")]
    message: Option<Message>,
    #[serde(rename = "PRIORITY")]
    priority: Option<String>,
}

/// Text that is not valid UTF-8, or has control characters, is written as an array of bytes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    Bytes(Vec<u8>),
}

impl Entry {
    fn parse(line: &[u8]) -> Option<Self> {
        let fields: Fields = serde_json::from_slice(line).ok()?;
        let micros: i64 = fields.micros.parse().ok()?;
        Some(Self {
            at: Timestamp(micros / 1_000),
            stream: match fields.priority.as_deref() {
                Some(STDERR_PRIORITY) => LogStream::Stderr,
                _ => LogStream::Stdout,
            },
            text: match fields.message? {
                Message::Text(text) => text.into_bytes(),
                Message::Bytes(bytes) => bytes,
            },
            cursor: fields.cursor.filter(|cursor| is_cursor(cursor)),
        })
    }
}

/// Whether it has the form of a cursor: it becomes a line of a log, and an argument.
fn is_cursor(text: &str) -> bool {
    /// More than any has, with six numbers in hexadecimal.
    const MAX: usize = 300;
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '=' | ';');
    !text.is_empty() && text.len() <= MAX && text.chars().all(is_part)
}

/// The priority (notice) under which standard error is written, to tell it from standard output
/// (info). What programs say there is seldom an error.
pub(super) const STDERR_PRIORITY: &str = "5";

/// What the manager says of a process that ended (systemd.journal-fields(7)).
#[derive(Deserialize)]
struct Ending {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    micros: String,
    #[serde(rename = "EXIT_CODE")]
    code: String,
    #[serde(rename = "EXIT_STATUS")]
    status: String,
}

/// How a process ended after `since`, if it was not well.
fn crash(line: &[u8], since: Timestamp) -> Option<String> {
    let ending: Ending = serde_json::from_slice(line).ok()?;
    let micros: i64 = ending.micros.parse().ok()?;
    if micros / 1_000 < since.0 {
        return None;
    }
    match (ending.code.as_str(), ending.status.parse().ok()?) {
        ("exited", 0) => None,
        ("exited", status) => Some(exited(status)),
        (_, signal) => Some(killed(signal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_the_journal_writes_them() {
        let line = br#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1700000000123456","MESSAGE":"a \"line\"","PRIORITY":"6"}"#;
        let entry = Entry::parse(line).unwrap();
        assert_eq!(entry.at, Timestamp(1_700_000_000_123));
        assert_eq!(entry.cursor.as_deref(), Some("s=1"));
        assert_eq!(
            (entry.stream, entry.text.as_slice()),
            (LogStream::Stdout, &b"a \"line\""[..])
        );
        let bytes = br#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":[27,91,49,109,255],"PRIORITY":"5"}"#;
        let entry = Entry::parse(bytes).unwrap();
        assert_eq!(
            (entry.stream, entry.text.as_slice()),
            (LogStream::Stderr, &b"\x1b[1m\xff"[..])
        );
    }

    #[test]
    fn only_a_bad_end_of_late_is_a_crash() {
        let said = |code: &str, status: &str| {
            let line = format!(
                r#"{{"__REALTIME_TIMESTAMP":"2000000","EXIT_CODE":"{code}","EXIT_STATUS":"{status}"}}"#
            );
            crash(line.as_bytes(), Timestamp(2_000))
        };
        assert_eq!(said("exited", "3").as_deref(), Some("exited with status 3"));
        let killed = said("killed", "9");
        assert_eq!(killed.as_deref(), Some("was killed by signal 9 (SIGKILL)"));
        assert_eq!(said("exited", "0"), None);
        let early = br#"{"__REALTIME_TIMESTAMP":"1999000","EXIT_CODE":"exited","EXIT_STATUS":"3"}"#;
        assert_eq!(crash(early, Timestamp(2_000)), None);
        assert_eq!(crash(b"", Timestamp(0)), None);
    }

    #[test]
    fn an_entry_without_text_is_left_out() {
        for line in [
            &br#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":null}"#[..],
            br#"{"__REALTIME_TIMESTAMP":"x","MESSAGE":"a"}"#,
            br#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":"cut in the mid"#,
            b"",
        ] {
            assert_eq!(Entry::parse(line), None);
        }
    }
}
