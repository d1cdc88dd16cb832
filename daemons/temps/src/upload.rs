//! Sends a directory to deployd: packed on the fly, in bounded memory, over the upload socket.
//!
//! An upload that breaks (deployd was restarted) is sent again from the start with a new ticket:
//! without its end nothing of it is kept.

use crate::archive::{self, Packed, Rules};
use crate::instance::{Instance, PATIENCE, UPLOAD};
use crate::output::Out;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use temps_ipc::wire::client::Repeat;
use temps_ipc::wire::upload::{self, MAX_CHUNK, Receipt, UploadTicket};
use temps_ipc::{Code, Fault};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Chunks packed ahead of what is sent: at most 1 MiB in memory.
const AHEAD: usize = 4;

/// How long deployd may take to accept a chunk. Its disk may be slow, but not stuck.
const STALL: Duration = Duration::from_secs(60);

/// How long deployd may take to store the archive durably after its last byte.
const STORE: Duration = Duration::from_secs(120);

/// How long an answer that explains a broken connection may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often an upload is begun before we give up: a restart costs one, two are bad luck.
const TRIES: u32 = 4;

/// Pause before an upload is begun again.
const PAUSE: Duration = Duration::from_millis(500);

/// Pause between two updates of the progress line, for the eye.
const REDRAW: Duration = Duration::from_millis(100);

/// Why an upload failed.
enum Failure {
    /// Another try may do.
    Broken(Fault),
    /// No use trying again.
    Final(Fault),
}

/// Packs and sends `root`; its ticket stands for it in a deployment.
///
/// # Errors
/// What is wrong with the directory, or what deployd says.
pub async fn send(
    instance: &Instance,
    root: &Path,
    rules: Rules,
    out: &Out,
) -> Result<UploadTicket, Fault> {
    let mut tries = 0;
    loop {
        let ticket = instance
            .deployd
            .call(Repeat::Idempotent, PATIENCE, |client, context| async move {
                client.upload(context).await
            })
            .await?;
        let sent = once(&instance.dir.join(UPLOAD), &ticket, root, rules, out).await;
        out.progress("");
        match sent {
            Ok((packed, receipt)) => {
                out.note(format!(
                    "uploaded {} ({} files)",
                    size(receipt.bytes),
                    packed.files
                ));
                return Ok(ticket);
            }
            Err(Failure::Final(fault)) => return Err(fault),
            Err(Failure::Broken(fault)) => {
                tries += 1;
                if tries >= TRIES {
                    return Err(fault);
                }
                out.note(format!("{fault}; sending it again"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn once(
    socket: &Path,
    ticket: &UploadTicket,
    root: &Path,
    rules: Rules,
    out: &Out,
) -> Result<(Packed, Receipt), Failure> {
    let stream = timeout(STALL, UnixStream::connect(socket))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| broken(&error))?;
    let (mut from, mut to) = stream.into_split();
    let (sender, mut chunks) = mpsc::channel(AHEAD);
    let packer = {
        let root = root.to_owned();
        tokio::task::spawn_blocking(move || archive::pack(&root, rules, Chunks::new(sender)))
    };
    let mut answer = std::pin::pin!(upload::receive_answer(&mut from));
    let sending = async {
        timeout(STALL, upload::send_ticket(&mut to, ticket)).await??;
        let mut progress = Progress::new(out);
        while let Some(chunk) = chunks.recv().await {
            let chunk: Vec<u8> = chunk;
            timeout(STALL, upload::send_chunk(&mut to, &chunk)).await??;
            progress.add(chunk.len());
        }
        Ok::<u64, io::Error>(progress.bytes)
    };
    // Deployd may answer before the end: too large, disk full.
    let sent = tokio::select! {
        biased;
        early = &mut answer => return Err(early_answer(early)),
        sent = sending => sent,
    };
    let bytes = match sent {
        Ok(bytes) => bytes,
        Err(error) => {
            return Err(match timeout(LAST_WORDS, &mut answer).await {
                Ok(Ok(Err(fault))) => Failure::Final(fault),
                _ => broken(&error),
            });
        }
    };
    // All chunks came, so the packer has ended. Without the end mark, deployd keeps nothing.
    let packed = match packer.await {
        Ok(packed) => packed.map_err(|error| Failure::Final(error.into()))?,
        Err(error) => {
            return Err(Failure::Final(Fault::internal(format!(
                "packing broke off: {error}"
            ))));
        }
    };
    let end = timeout(STALL, upload::send_chunk(&mut to, &[])).await;
    if let Err(error) = end.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        return Err(broken(&error));
    }
    let answer = timeout(STORE, &mut answer)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match answer {
        Ok(Ok(receipt)) if receipt.bytes == bytes => Ok((packed, receipt)),
        Ok(Ok(receipt)) => Err(Failure::Final(Fault::internal(format!(
            "temps-deployd received {} of {bytes} bytes",
            receipt.bytes
        )))),
        Ok(Err(fault)) => Err(Failure::Final(fault)),
        Err(error) => Err(broken(&error)),
    }
}

fn early_answer(answer: io::Result<Result<Receipt, Fault>>) -> Failure {
    match answer {
        Ok(Err(fault)) => Failure::Final(fault),
        Ok(Ok(_)) => Failure::Final(Fault::internal(
            "temps-deployd took the upload for finished before its end",
        )),
        Err(error) => broken(&error),
    }
}

fn broken(error: &io::Error) -> Failure {
    let fault = Fault::new(
        Code::Unavailable,
        format!("the upload to temps-deployd broke off: {error}"),
    );
    Failure::Broken(fault.hint("see its log, and deploy again"))
}

/// Cuts what is written into chunks and hands them to the sending task, waiting for it.
struct Chunks {
    buffer: Vec<u8>,
    sender: mpsc::Sender<Vec<u8>>,
}

impl Chunks {
    fn new(sender: mpsc::Sender<Vec<u8>>) -> Self {
        Self {
            buffer: Vec::with_capacity(MAX_CHUNK),
            sender,
        }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(MAX_CHUNK));
        self.sender
            .blocking_send(chunk)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == MAX_CHUNK {
            self.hand_over()?;
        }
        let length = bytes.len().min(MAX_CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

/// The progress line.
struct Progress<'a> {
    out: &'a Out,
    bytes: u64,
    drawn: Instant,
}

impl<'a> Progress<'a> {
    fn new(out: &'a Out) -> Self {
        Self {
            out,
            bytes: 0,
            drawn: Instant::now(),
        }
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.drawn.elapsed() >= REDRAW {
            self.drawn = Instant::now();
            self.out
                .progress(&format!("uploading {}", size(self.bytes)));
        }
    }
}

/// Bytes for people, in binary units.
fn size(bytes: u64) -> String {
    const KIB: f64 = 1024.0;
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < KIB {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= KIB;
    }
    format!("{value:.1} GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_are_bounded_and_lose_nothing() {
        let (sender, mut chunks) = mpsc::channel(1);
        let packer = tokio::task::spawn_blocking(move || {
            let mut to = Chunks::new(sender);
            to.write_all(&vec![7; MAX_CHUNK * 2 + 5]).unwrap();
            to.flush().unwrap();
        });
        let mut lengths = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            assert!(chunk.iter().all(|byte| *byte == 7));
            lengths.push(chunk.len());
        }
        packer.await.unwrap();
        assert_eq!(lengths, [MAX_CHUNK, MAX_CHUNK, 5]);
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 * 1024 * 1024 * 1024), "5.0 GiB");
    }
}
