//! The sample app for a container: the standard library only, one static program, no shell and no
//! libc in the image. tests/apps/README.md says what it answers.
//!
//! One thread per connection. A request counts as in flight from its first byte to the flush of
//! its answer; SIGTERM waits for those and for nothing else.

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

struct Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
    keep_alive: bool,
    body: Vec<u8>,
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

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn read_request(reader: &mut BufReader<TcpStream>, stream: &mut TcpStream) -> io::Result<Request> {
    let mut head = reader.by_ref().take(HEAD_LIMIT);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(bad("request line"));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query
            .map(|(name, value)| (unescape(name), unescape(value)))
            .collect(),
        headers: HashMap::new(),
        keep_alive: version == "HTTP/1.1",
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(bad("head ends early or is too long"));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        request
            .headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    if let Some(wish) = request.headers.get("connection") {
        request.keep_alive &= !wish.eq_ignore_ascii_case("close");
    }
    if request
        .headers
        .get("expect")
        .is_some_and(|wish| wish.eq_ignore_ascii_case("100-continue"))
    {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    request.body = read_body(reader, &request.headers)?;
    Ok(request)
}

fn read_body(
    reader: &mut BufReader<TcpStream>,
    headers: &HashMap<String, String>,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if !headers
        .get("transfer-encoding")
        .is_some_and(|coding| coding.contains("chunked"))
    {
        let length: u64 = headers
            .get("content-length")
            .map_or(Ok(0), |text| text.parse())
            .map_err(io::Error::other)?;
        if length > BODY_LIMIT {
            return Err(bad("body too large"));
        }
        body.resize(length as usize, 0);
        reader.read_exact(&mut body)?;
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        reader.by_ref().take(1024).read_line(&mut line)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
        if body.len() as u64 + size > BODY_LIMIT {
            return Err(bad("body too large"));
        }
        let start = body.len();
        body.resize(start + size as usize, 0);
        reader.read_exact(&mut body[start..])?;
        // The line end after a chunk, or the trailers after the last one.
        loop {
            line.clear();
            reader.by_ref().take(HEAD_LIMIT).read_line(&mut line)?;
            if size > 0 || line.trim().is_empty() {
                break;
            }
        }
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Echoes text and binary frames as they come, until either side closes.
fn websocket(
    app: &App,
    request: &Request,
    mut reader: BufReader<TcpStream>,
    mut stream: TcpStream,
    in_flight: InFlight,
) -> io::Result<()> {
    let key = &request.headers["sec-websocket-key"];
    let accept = base64(&sha1(
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    ));
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nX-Release: {}\r\nX-Version: {}\r\n\r\n",
        app.release, app.version
    );
    stream.write_all(head.as_bytes())?;
    let id = NEXT_WEBSOCKET.fetch_add(1, Ordering::SeqCst);
    websockets()
        .get_or_insert_default()
        .insert(id, stream.try_clone()?);
    // Not a request in flight any more: a stop closes it with 1001 instead of waiting.
    drop(in_flight);
    let ended = frames(&mut reader, &mut stream);
    websockets().get_or_insert_default().remove(&id);
    ended
}

fn frames(reader: &mut BufReader<TcpStream>, stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head)?;
        let mut extended = [0; 8];
        let size = match head[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        reader.read_exact(&mut extended[8 - size..])?;
        let length = if size == 0 {
            u64::from(head[1] & 0x7F)
        } else {
            u64::from_be_bytes(extended)
        };
        if head[1] & 0x80 == 0 || length > FRAME_LIMIT {
            return stream.write_all(&[0x88, 2, 0x03, 0xEA]); // 1002, protocol error
        }
        let mut mask = [0; 4];
        reader.read_exact(&mut mask)?;
        let mut data = vec![0; length as usize];
        reader.read_exact(&mut data)?;
        data.iter_mut()
            .enumerate()
            .for_each(|(i, byte)| *byte ^= mask[i % 4]);
        let first = match head[0] & 0x0F {
            0x9 => 0x8A,
            0xA => continue,
            _ => head[0],
        };
        let mut frame = vec![first];
        match data.len() {
            n @ 0..126 => frame.push(n as u8),
            n @ 126..65536 => {
                frame.push(126);
                frame.extend((n as u16).to_be_bytes());
            }
            n => {
                frame.push(127);
                frame.extend((n as u64).to_be_bytes());
            }
        }
        frame.extend(data);
        stream.write_all(&frame)?;
        if first & 0x0F == 0x8 {
            return Ok(());
        }
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

/// FIPS 180-4, only for the handshake of RFC 6455.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((message.len() as u64 * 8).to_be_bytes());
    let mut state: [u32; 5] = [
        0x6745_2301,
        0xEFCD_AB89,
        0x98BA_DCFE,
        0x1032_5476,
        0xC3D2_E1F0,
    ];
    for block in padded.as_chunks::<64>().0 {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        for i in 16..80 {
            words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.iter().enumerate() {
            let (mixed, constant) = match i {
                0..20 => ((b & c) | (!b & d), 0x5A82_7999),
                20..40 => (b ^ c ^ d, 0x6ED9_EBA1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8F1B_BCDC),
                _ => (b ^ c ^ d, 0xCA62_C1D6_u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in bytes.chunks(3) {
        let group = part
            .iter()
            .fold(0_u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - part.len()));
        for i in 0..4 {
            let letter = ALPHABET[(group >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= part.len() { letter as char } else { '=' });
        }
    }
    out
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
