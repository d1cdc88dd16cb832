//! Cuts a stream of bytes into lines with bounded memory.

use super::{MAX_LINE, Writer};
use temps_ipc::types::{LogStream, Timestamp};

/// Cuts what one stream printed into lines, and keeps the last one until its end comes.
///
/// Of a line longer than [`MAX_LINE`] the rest is thrown away as it comes.
#[derive(Debug)]
pub struct Splitter {
    stream: LogStream,
    partial: Vec<u8>,
}

impl Splitter {
    /// For the output of this stream.
    pub fn new(stream: LogStream) -> Self {
        Self {
            stream,
            partial: Vec::new(),
        }
    }

    /// Takes the next bytes; complete lines are pushed to the writer, which is not flushed.
    pub fn feed(&mut self, mut bytes: &[u8], to: &mut Writer) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.keep(&bytes[..end]);
            self.finish_line(to);
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// The stream is over: what is left is a line too.
    pub fn finish(&mut self, to: &mut Writer) {
        if !self.partial.is_empty() {
            self.finish_line(to);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.partial.len());
        self.partial
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn finish_line(&mut self, to: &mut Writer) {
        to.push(Timestamp::now(), self.stream, &self.partial);
        self.partial.clear();
    }
}
