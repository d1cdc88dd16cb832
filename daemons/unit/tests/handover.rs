//! Sockets passed to a real child by `listen::pass` and adopted there by `Listeners::adopt`.
//!
//! No test harness: this one program is the supervisor, the hidden `unit exec` command and the
//! daemon, as the real binary is; and adoption needs a process with one thread.
#![allow(clippy::unwrap_used, reason = "a test, though without the harness")]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use temps_unit::listen::pass::{self, Program};
use temps_unit::listen::{ListenError, Listeners};
use temps_unit::notify::{self, NotifyMessage, Receiver};

const TESTS: [(&str, fn()); 4] = [
    (
        "a_daemon_tells_its_supervisor_how_it_is",
        a_daemon_tells_its_supervisor_how_it_is,
    ),
    (
        "a_child_adopts_its_sockets_by_name",
        a_child_adopts_its_sockets_by_name,
    ),
    (
        "children_started_at_once_get_only_their_own_sockets",
        children_started_at_once_get_only_their_own_sockets,
    ),
    (
        "a_child_without_sockets_says_what_to_do",
        a_child_without_sockets_says_what_to_do,
    ),
];

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let name = args.remove(0);
    if args.iter().take(2).eq(pass::APPLET.iter()) {
        return pass::exec(&args[2..]);
    }
    if name == "temps-daemon" {
        return daemon();
    }
    if name == "temps-notifier" {
        notify::status("3 routes\nnot shown");
        notify::ready();
        notify::extend_timeout(Duration::from_secs(7));
        notify::reloading();
        notify::stopping();
        return ExitCode::SUCCESS;
    }
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--list") {
        if !has("--ignored") {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&OsString> = args
        .iter()
        .filter(|arg| !arg.as_bytes().starts_with(b"-"))
        .collect();
    for (name, test) in TESTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name) {
            test();
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

/// Answers one connection on each socket with its name, then tells the state of its environment.
fn daemon() -> ExitCode {
    let mut listeners = match Listeners::adopt() {
        Ok(listeners) => listeners,
        Err(error @ ListenError::NoSockets) => {
            println!("{error}");
            return ExitCode::from(69);
        }
        Err(error) => panic!("{error}"),
    };
    let http = listeners.take_tcp("http").unwrap();
    let control = listeners.take_unix("control").unwrap();
    listeners.finish().unwrap();
    // Adopted sockets do not block; this daemon has nothing else to do.
    http.set_nonblocking(false).unwrap();
    control.set_nonblocking(false).unwrap();
    http.accept().unwrap().0.write_all(b"http").unwrap();
    control.accept().unwrap().0.write_all(b"control").unwrap();
    let variables = std::env::vars()
        .filter(|(name, _)| name.starts_with("LISTEN_"))
        .count();
    // Whoever runs the tests may leak descriptors of its own into us, but no sockets that listen.
    let sockets = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.as_os_str().as_bytes().starts_with(b"socket:"))
        .count();
    println!(
        "{variables} variables, {sockets} sockets, pid {}",
        std::process::id()
    );
    ExitCode::SUCCESS
}

fn program() -> Program {
    Program {
        path: std::env::current_exe().unwrap(),
        name: "temps-daemon".into(),
        args: Vec::new(),
    }
}

fn adopts(http: &TcpListener, control: &UnixListener, path: &std::path::Path) {
    let sockets: [(String, BorrowedFd<'_>); 2] = [
        ("http".into(), http.as_fd()),
        ("control".into(), control.as_fd()),
    ];
    let child = pass::command(program().path, &program(), &sockets)
        .unwrap()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let mut answer = String::new();
    let mut stream = TcpStream::connect(http.local_addr().unwrap()).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    let mut stream = UnixStream::connect(path).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "httpcontrol");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(report, format!("0 variables, 2 sockets, pid {pid}\n"));
}

fn a_child_adopts_its_sockets_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let control = UnixListener::bind(&path).unwrap();
    adopts(&http, &control, &path);
}

fn children_started_at_once_get_only_their_own_sockets() {
    let threads: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(a_child_adopts_its_sockets_by_name))
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn a_daemon_tells_its_supervisor_how_it_is() {
    use NotifyMessage::{ExtendTimeout, Ready, Reloading, Status, Stopping};
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut receiver = Receiver::bind(dir.path().join("notify")).unwrap();
        let mut child = Command::new(program().path)
            .arg0("temps-notifier")
            .env("NOTIFY_SOCKET", receiver.path())
            .spawn()
            .unwrap();
        for expected in [
            Status("3 routes".to_owned()),
            Ready,
            ExtendTimeout(Duration::from_secs(7)),
            Reloading,
            Stopping,
        ] {
            let waited = tokio::time::timeout(Duration::from_secs(10), receiver.recv());
            let got = waited.await.unwrap().unwrap();
            assert_eq!((got.pid, got.messages), (child.id(), vec![expected]));
        }
        assert!(child.wait().unwrap().success());
    });
}

fn a_child_without_sockets_says_what_to_do() {
    let output = Command::new(program().path)
        .arg0("temps-daemon")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said,
        "started without sockets; start it by systemd or `temps up`\n"
    );
}
