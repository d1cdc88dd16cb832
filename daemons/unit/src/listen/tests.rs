use super::*;
use std::os::fd::IntoRawFd;

fn handover(pid: u32, fds: &str, names: &str) -> Handover {
    Handover {
        pid: Some(pid.to_string()),
        fds: Some(fds.to_owned()),
        names: Some(names.to_owned()),
    }
}

fn tcp() -> OwnedFd {
    TcpListener::bind("127.0.0.1:0").unwrap().into()
}

fn unix(dir: &tempfile::TempDir) -> OwnedFd {
    UnixListener::bind(dir.path().join("s")).unwrap().into()
}

#[test]
fn names_are_given_to_descriptors_from_three_on() {
    let named = parse(&handover(7, "2", "http:control"), 7).unwrap();
    assert_eq!(named, [("http".to_owned(), 3), ("control".to_owned(), 4)]);
}

#[test]
fn wrong_variables_are_refused_with_what_is_wrong() {
    for (given, expected) in [
        (
            Handover::default(),
            "started without sockets; start it by systemd or `temps up`",
        ),
        (
            handover(7, "0", ""),
            "started without sockets; start it by systemd or `temps up`",
        ),
        (
            handover(8, "1", "a"),
            "LISTEN_PID is 8, but this process is 7",
        ),
        (handover(7, "x", "a"), "LISTEN_FDS is \"x\""),
        (handover(7, "65", "a"), "LISTEN_FDS is \"65\""),
        (handover(7, "-1", "a"), "LISTEN_FDS is \"-1\""),
        (
            handover(7, "2", "a"),
            "LISTEN_FDNAMES has 1 names (a) for 2 sockets",
        ),
        (handover(7, "2", "a:"), "LISTEN_FDNAMES has 2 names"),
        (handover(7, "2", "a:a"), "two sockets are named \"a\""),
        (
            Handover {
                names: None,
                ..handover(7, "1", "")
            },
            "LISTEN_FDNAMES is not set",
        ),
        (
            Handover {
                pid: None,
                ..handover(7, "1", "a")
            },
            "LISTEN_PID is , but this process is 7",
        ),
    ] {
        let error = parse(&given, 7).unwrap_err().to_string();
        assert!(error.contains(expected), "{given:?} gave {error:?}");
    }
}

#[test]
fn adopted_sockets_neither_block_nor_leak_to_children() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(false).unwrap();
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let number = listener.into_raw_fd();
    // SAFETY: `into_raw_fd` gave up the only owner.
    let mut listeners =
        unsafe { Listeners::from_descriptors(vec![("http".into(), number)]) }.unwrap();
    let listener = listeners.take_tcp("http").unwrap();
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    assert_eq!(
        fcntl(&listener, FcntlArg::F_GETFD).unwrap(),
        FdFlag::FD_CLOEXEC.bits()
    );
    listeners.finish().unwrap();
}

#[test]
fn a_socket_is_taken_only_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut listeners =
        Listeners::from_owned([("http".into(), tcp()), ("control".into(), unix(&dir))]).unwrap();
    assert!(
        listeners
            .take_unix("http")
            .unwrap_err()
            .to_string()
            .contains("not a Unix stream socket")
    );
    assert!(
        listeners
            .take_tcp("control")
            .unwrap_err()
            .to_string()
            .contains("not a TCP socket")
    );
    listeners.take_tcp("http").unwrap();
    listeners.take_unix("control").unwrap();
    listeners.finish().unwrap();
}

#[test]
fn missing_and_unknown_sockets_are_named() {
    let mut listeners = Listeners::from_owned([("a".into(), tcp()), ("b".into(), tcp())]).unwrap();
    let missing = listeners.take_tcp("c").unwrap_err().to_string();
    assert_eq!(missing, "no socket named \"c\" was passed; there are: a, b");
    listeners.take_raw("a").unwrap();
    let unknown = listeners.finish().unwrap_err().to_string();
    assert!(unknown.ends_with("does not know: b"), "{unknown}");
}

#[test]
fn what_does_not_listen_is_refused() {
    let file: OwnedFd = tempfile::tempfile().unwrap().into();
    let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let datagram: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
    for (fd, problem) in [
        (file, "is not a socket"),
        (end.into(), "does not listen"),
        (datagram, "not a stream"),
    ] {
        let error = Listeners::from_owned([("x".into(), fd)])
            .unwrap_err()
            .to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn dropping_a_listener_keeps_the_queue_of_the_one_who_holds_a_duplicate() {
    let manager = TcpListener::bind("127.0.0.1:0").unwrap();
    let copy: OwnedFd = manager.try_clone().unwrap().into();
    let mut listeners = Listeners::from_owned([("http".into(), copy)]).unwrap();
    let ours = listeners.take_tcp("http").unwrap();
    let _client = std::net::TcpStream::connect(manager.local_addr().unwrap()).unwrap();
    drop(ours);
    // The flag is shared by all duplicates; the manager only polls, so this concerns the test alone.
    manager.set_nonblocking(false).unwrap();
    manager.accept().unwrap();
}
