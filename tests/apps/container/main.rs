//! The sample app for a container: the standard library only, one static program, no shell and no
//! libc in the image. tests/apps/README.md says what it answers.
//!
//! One thread per connection. A request counts as in flight from its first byte to the flush of
//! its answer; SIGTERM waits for those and for nothing else.

mod request;
mod websocket;

use request::{Request, read_request};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, exit};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use websocket::websocket;

const HEAD_LIMIT: u64 = 64 << 10;
/// What a test may send or ask for; a mistyped number must not fill the machine.
const BODY_LIMIT: u64 = 64 << 20;
const BYTES_LIMIT: u64 = 1 << 30;
const FRAME_LIMIT: u64 = 1 << 20;
/// Longer than any /slow a test asks for; after it the app leaves whatever is open.
const DRAIN: Duration = Duration::from_secs(60);
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

struct App {
    release: String,
    version: String,
    variant: String,
    delay: Duration,
    started: Instant,
}

static APP: OnceLock<App> = OnceLock::new();
static DRAINING: AtomicBool = AtomicBool::new(false);
static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);
static LISTENER: AtomicI32 = AtomicI32::new(-1);
static NEXT_WEBSOCKET: AtomicU64 = AtomicU64::new(0);
static WEBSOCKETS: Mutex<Option<HashMap<u64, TcpStream>>> = Mutex::new(None);

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("child") => child(),
        Some("escaped-child") => {
            signals::new_session();
            child();
        }
        _ => serve(),
    }
}

fn child() {
    // Started by a process that blocks the stop signals; a child is to end like any other.
    signals::unblock();
    sleep(Duration::from_secs(3600));
}

fn serve() {
    let app = APP.get_or_init(App::read);
    signals::block();
    thread::spawn(stop_on_signal);
    match app.variant.as_str() {
        "crash" => {
            sleep(app.delay);
            let _ = std::panic::catch_unwind(|| {
                panic!("cannot reach the database: this release is made to crash")
            });
            exit(3);
        }
        "slow-start" => sleep(app.delay),
        "fork" => {
            // One child in our process group, and one that escapes it; neither is ended by us.
            let program = std::env::current_exe().expect("/proc is mounted");
            for kind in ["child", "escaped-child"] {
                Command::new(&program)
                    .arg(kind)
                    .spawn()
                    .expect("a child starts");
            }
        }
        "dies" => {
            thread::spawn(|| {
                sleep(app.delay);
                eprintln!("fatal: this release dies {:?} after its start", app.delay);
                exit(1);
            });
        }
        _ => {}
    }
    let host = variable("HOST", "0.0.0.0");
    let port = if app.variant == "wrong-port" {
        "0".into()
    } else {
        variable("PORT", "8080")
    };
    let listener = match TcpListener::bind(format!("{host}:{port}")) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on {host}:{port}: {error}");
            exit(1);
        }
    };
    LISTENER.store(listener.as_raw_fd(), Ordering::SeqCst);
    let port = listener.local_addr().map_or(0, |address| address.port());
    println!(
        "container {} ({}) listens on {host}:{port}",
        app.version, app.variant
    );
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                thread::spawn(|| connection(app, stream));
            }
            // The stop shut the listener down; its thread ends the program.
            Err(_) if DRAINING.load(Ordering::SeqCst) => sleep(DRAIN),
            Err(_) => sleep(Duration::from_millis(10)),
        }
    }
}

/// Waits for SIGTERM or SIGINT, then for the requests in flight, then leaves.
fn stop_on_signal() {
    signals::wait();
    DRAINING.store(true, Ordering::SeqCst);
    signals::shut_down(LISTENER.load(Ordering::SeqCst));
    let end = Instant::now() + DRAIN;
    while IN_FLIGHT.load(Ordering::SeqCst) > 0 && Instant::now() < end {
        sleep(Duration::from_millis(5));
    }
    for stream in websockets().get_or_insert_default().values_mut() {
        let _ = stream.write_all(&[0x88, 2, 0x03, 0xE9]); // 1001, going away
        let _ = stream.shutdown(Shutdown::Write);
    }
    exit(0);
}

fn websockets() -> std::sync::MutexGuard<'static, Option<HashMap<u64, TcpStream>>> {
    WEBSOCKETS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| default.into())
}

impl App {
    fn read() -> Self {
        let started = Instant::now();
        let here = std::env::current_exe().unwrap_or_default();
        let beside = |name: &str, default: &str| {
            std::fs::read_to_string(here.with_file_name(name))
                .map_or_else(|_| default.to_owned(), |text| text.trim().to_owned())
        };
        let given = beside("variant", "healthy");
        let (variant, seconds) = given.split_once(':').unwrap_or((&given, ""));
        let seconds = seconds.parse().unwrap_or(match variant {
            "slow-start" => 5.0,
            "dies" => 60.0,
            "bad-later" => 10.0,
            _ => 0.0,
        });
        Self {
            release: variable("TEMPS_RELEASE", "unknown"),
            version: beside("version", "unknown"),
            variant: variant.to_owned(),
            delay: Duration::from_secs_f64(seconds),
            started,
        }
    }

    fn is_bad(&self) -> bool {
        self.variant == "error"
            || (self.variant == "bad-later" && self.started.elapsed() >= self.delay)
    }

    fn facts(&self, path: &str) -> String {
        format!(
            r#"{{"release": {}, "version": {}, "pid": {}, "path": {}}}"#,
            json(&self.release),
            json(&self.version),
            std::process::id(),
            json(path)
        )
    }
}

/// Counts one request in flight for as long as it lives.
struct InFlight;

impl InFlight {
    fn new() -> Self {
        IN_FLIGHT.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        IN_FLIGHT.fetch_sub(1, Ordering::SeqCst);
    }
}

fn connection(app: &App, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    // A client that went away is no news.
    let _ = requests(app, stream);
}

fn requests(app: &App, mut stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while !reader.fill_buf()?.is_empty() {
        let in_flight = InFlight::new();
        let request = read_request(&mut reader, &mut stream)?;
        if request.path == "/ws"
            && request.headers.contains_key("sec-websocket-key")
            && !app.is_bad()
        {
            return websocket(app, &request, reader, stream, in_flight);
        }
        let close = !request.keep_alive || DRAINING.load(Ordering::SeqCst);
        let mut answer = Answer {
            app,
            stream: &mut stream,
            close,
            bodiless: request.method == "HEAD",
        };
        route(app, &request, &mut answer)?;
        if answer.close {
            return Ok(());
        }
    }
    Ok(())
}

fn route(app: &App, request: &Request, answer: &mut Answer<'_>) -> io::Result<()> {
    let asked = |name: &str, default: f64| {
        request.query.get(name).map_or(Ok(default), |text| {
            text.parse::<f64>().map_err(io::Error::other)
        })
    };
    if app.is_bad() {
        let error = format!("this release is made to fail ({})", app.variant);
        return answer.json(
            500,
            &format!(
                "{{\"error\": {}, {}",
                json(&error),
                &app.facts(&request.path)[1..]
            ),
        );
    }
    match request.path.as_str() {
        "/slow" => sleep(Duration::from_secs_f64(asked("s", 1.0)?.clamp(0.0, 3600.0))),
        "/bytes" => return answer.bytes((asked("n", 1024.0)? as u64).min(BYTES_LIMIT)),
        "/echo" => {
            let kind = request
                .headers
                .get("content-type")
                .map_or("application/octet-stream", String::as_str);
            return answer.whole(200, kind, &request.body);
        }
        "/env" => {
            let name = request.query.get("name").map_or("", String::as_str);
            let value = std::env::var(name).ok();
            let text = value
                .as_ref()
                .map_or("null".to_owned(), |value| json(value));
            let status = if value.is_some() { 200 } else { 404 };
            return answer.json(
                status,
                &format!(r#"{{"name": {}, "value": {text}}}"#, json(name)),
            );
        }
        "/log" => println!("{}", request.query.get("line").map_or("", String::as_str)),
        "/sse" => return answer.events(asked("s", 60.0)?.clamp(0.0, 60.0)),
        "/ws" => return answer.json(426, r#"{"error": "this path speaks WebSocket"}"#),
        _ => {}
    }
    answer.json(200, &app.facts(&request.path))
}

struct Answer<'a> {
    app: &'a App,
    stream: &'a mut TcpStream,
    close: bool,
    bodiless: bool,
}

impl Answer<'_> {
    fn head(&mut self, status: u16, headers: &str) -> Vec<u8> {
        // Again at the end of a long wait: the app may have been told to stop meanwhile.
        self.close |= DRAINING.load(Ordering::SeqCst);
        let reason = match status {
            200 => "OK",
            404 => "Not Found",
            426 => "Upgrade Required",
            _ => "Internal Server Error",
        };
        let close = if self.close {
            "Connection: close\r\n"
        } else {
            ""
        };
        format!(
            "HTTP/1.1 {status} {reason}\r\nX-Release: {}\r\nX-Version: {}\r\n{headers}{close}\r\n",
            self.app.release, self.app.version
        )
        .into_bytes()
    }

    fn whole(&mut self, status: u16, kind: &str, body: &[u8]) -> io::Result<()> {
        let mut bytes = self.head(
            status,
            &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len()),
        );
        if !self.bodiless {
            bytes.extend_from_slice(body);
        }
        self.stream.write_all(&bytes)
    }

    fn json(&mut self, status: u16, text: &str) -> io::Result<()> {
        self.whole(status, "application/json", format!("{text}\n").as_bytes())
    }

    fn bytes(&mut self, n: u64) -> io::Result<()> {
        let head = self.head(
            200,
            &format!("Content-Type: application/octet-stream\r\nContent-Length: {n}\r\n"),
        );
        self.stream.write_all(&head)?;
        let block: Vec<u8> = (0..65536_u32).map(|i| i as u8).collect();
        let mut left = if self.bodiless { 0 } else { n };
        while left > 0 {
            let part = left.min(block.len() as u64);
            self.stream.write_all(&block[..part as usize])?;
            left -= part;
        }
        Ok(())
    }

    /// An event each 200 ms; a stop of the app ends the stream properly.
    fn events(&mut self, seconds: f64) -> io::Result<()> {
        let headers = "Content-Type: text/event-stream\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n";
        let head = self.head(200, headers);
        self.stream.write_all(&head)?;
        if self.bodiless {
            return Ok(());
        }
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let mut number = 0;
        while Instant::now() < end && !DRAINING.load(Ordering::SeqCst) {
            let event = format!(
                "id: {number}\ndata: {{\"n\": {number}, \"release\": {}}}\n\n",
                json(&self.app.release)
            );
            self.stream
                .write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
            number += 1;
            sleep(Duration::from_millis(200));
        }
        self.stream.write_all(b"0\r\n\r\n")
    }
}

fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if (control as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out + "\""
}

/// Percent-decoding, and `+` for a space; what is not valid stays as it is.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escaped = text
            .get(at + 1..at + 3)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The few calls of the C library that std links but does not offer.
mod signals {
    use super::{SIGINT, SIGTERM};

    /// As large as any `sigset_t` on Linux.
    #[repr(C, align(8))]
    struct Set([u8; 128]);

    unsafe extern "C" {
        fn sigemptyset(set: *mut Set) -> i32;
        fn sigaddset(set: *mut Set, signal: i32) -> i32;
        fn pthread_sigmask(how: i32, set: *const Set, old: *mut Set) -> i32;
        fn sigwait(set: *const Set, signal: *mut i32) -> i32;
        fn shutdown(fd: i32, how: i32) -> i32;
        fn setsid() -> i32;
    }

    fn set() -> Set {
        let mut set = Set([0; 128]);
        // SAFETY: the set is valid, writable memory of the size the C library expects.
        unsafe {
            sigemptyset(&mut set);
            sigaddset(&mut set, SIGTERM);
            sigaddset(&mut set, SIGINT);
        }
        set
    }

    /// Blocks the stop signals in this thread and those it starts.
    pub fn block() {
        // SAFETY: a valid set, and no old mask is asked for. 0 is SIG_BLOCK on Linux.
        unsafe { pthread_sigmask(0, &set(), std::ptr::null_mut()) };
    }

    pub fn unblock() {
        // SAFETY: as above. 1 is SIG_UNBLOCK on Linux.
        unsafe { pthread_sigmask(1, &set(), std::ptr::null_mut()) };
    }

    pub fn wait() {
        let mut signal = 0;
        // SAFETY: both point to live memory. As PID 1 only a blocked or handled signal arrives.
        unsafe { sigwait(&set(), &mut signal) };
    }

    /// Ends `accept` on the listener; -1 if there is none yet.
    pub fn shut_down(listener: i32) {
        // SAFETY: takes no memory; the listener lives until the end of the program.
        unsafe { shutdown(listener, 2) };
    }

    pub fn new_session() {
        // SAFETY: takes no memory.
        unsafe { setsid() };
    }
}
