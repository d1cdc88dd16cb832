//! Fields of an event as people read them on stderr: the message, then `name=value`.
//!
//! The message id is for catalogs and left out. Values come from outside at times, so control
//! characters are escaped: a log line can neither command a terminal nor forge another line.

use std::fmt::{self, Debug, Write};
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// The format of the fields of events and spans.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line {
            out: Escaped(writer),
            empty: true,
            result: Ok(()),
        };
        fields.record(&mut line);
        line.result
    }
}

struct Line<W> {
    out: Escaped<W>,
    empty: bool,
    result: fmt::Result,
}

impl<W: Write> Line<W> {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message_id" || self.result.is_err() {
            return;
        }
        let gap = if std::mem::take(&mut self.empty) {
            ""
        } else {
            " "
        };
        self.result = match field.name() {
            "message" => write!(self.out, "{gap}{value}"),
            name => write!(self.out, "{gap}{name}={value}"),
        };
    }
}

impl<W: Write> Visit for Line<W> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.put(field, format_args!("{value}"));
        } else {
            self.put(field, format_args!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            match piece.char_indices().next_back() {
                Some((end, last)) if last.is_control() => {
                    self.0.write_str(&piece[..end])?;
                    write!(self.0, "{}", last.escape_default())?;
                }
                _ => self.0.write_str(piece)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::MessageId;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Buffer {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let layer = tracing_subscriber::fmt::layer()
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .fmt_fields(Fields)
            .with_writer(buffer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const LIVE: MessageId = MessageId::new("0123456789abcdef0123456789abcdef");

    #[test]
    fn the_message_id_is_not_shown_to_people() {
        let app = "shop";
        let line =
            logged(|| crate::event!(info, LIVE, temps_app = %app, count = 3, "{app} is live"));
        assert_eq!(line, " INFO shop is live temps_app=shop count=3\n");
    }

    #[test]
    fn values_can_neither_command_a_terminal_nor_forge_a_line() {
        let evil = "a\n ERROR forged \u{1b}[2J";
        let line = logged(|| tracing::warn!(shown = %evil, quoted = evil, "got {evil}"));
        assert_eq!(line.lines().count(), 1, "{line:?}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
        assert!(
            line.contains("got a\\n ERROR forged \\u{1b}[2J"),
            "{line:?}"
        );
    }
}
