//! The contract of tests/apps/README.md, on every app.

use std::thread;
use std::time::Instant;

use super::*;
use crate::http::{Call, get};
use crate::load::{Load, LoadSpec};
use crate::process;
use crate::websocket::{Frame, WebSocket};

const APPS: [&str; 3] = ["python", "node", "container"];
const MILLI: Duration = Duration::from_millis(1);

fn start(app: &str, variant: &str) -> Running {
    make(app, variant, "v1")
        .and_then(|made| made.start("rel_1"))
        .expect("it starts")
}

fn serving(app: &str, variant: &str) -> Running {
    let mut running = start(app, variant);
    running.wait_until_listening().expect(app);
    running
}

/// Runs `test` on all apps at once.
fn on_each(test: impl Fn(&str) + Sync) {
    thread::scope(|scope| APPS.map(|app| scope.spawn(|| test(app))).map(drop));
}

#[test]
fn an_app_carries_its_variant_and_version() {
    let app = make("python", "slow-start:2", "v7").expect("it is made");
    let read = |name| std::fs::read_to_string(app.path().join(name)).expect("it is there");
    assert_eq!(read("variant"), "slow-start:2\n");
    assert_eq!(read("version"), "v7\n");
    assert_eq!(read("Procfile"), "web: python3 app.py\n");
}

#[test]
fn the_page_of_a_static_site_names_its_version() {
    let app = make("static", "healthy", "v8").expect("it is made");
    let page = std::fs::read_to_string(app.path().join("index.html")).expect("a page");
    assert!(page.contains("v8") && !page.contains("@VERSION@"), "{page}");
    let big = std::fs::metadata(app.path().join("big.bin")).expect("a big file");
    assert_eq!(big.len(), 300 << 10);
}

#[test]
fn what_does_not_exist_is_refused_with_its_name() {
    let error = make("python", "sleepy", "v1").expect_err("no such variant");
    assert!(
        format!("{error:#}").contains("no variant 'sleepy'"),
        "{error:#}"
    );
}

#[test]
fn every_answer_says_which_release_gave_it() {
    on_each(|app| {
        let running = serving(app, "healthy");
        for path in ["/", "/health", "/a/b"] {
            let answer = get(running.addr(), "app", path).expect(app);
            assert_eq!(
                (answer.status, answer.release()),
                (200, "rel_1"),
                "{app} {path}"
            );
            assert_eq!(answer.header("x-version"), "v1", "{app} {path}");
            let facts = serde_json::json!({
                "release": "rel_1", "version": "v1", "pid": running.pid(), "path": path,
            });
            assert_eq!(answer.json().expect("JSON"), facts, "{app}");
        }
    });
}

#[test]
fn each_path_answers_as_the_readme_says() {
    on_each(|app| {
        let running = serving(app, "healthy");
        let addr = running.addr();
        let bytes = get(addr, "app", "/bytes?n=300000").expect(app).body;
        assert_eq!(
            (bytes.len(), bytes[257], bytes[299_999]),
            (300_000, 1, (299_999 % 256) as u8)
        );
        let big: Vec<u8> = (0..1_000_000_u32).map(|i| (i / 3) as u8).collect();
        let echoed = Call::post(addr, "app", "/echo", big.clone())
            .send()
            .expect(app);
        assert!(echoed.body == big, "{app}");
        let variable = get(addr, "app", "/env?name=TEMPS_RELEASE").expect(app);
        assert_eq!(variable.json().expect("JSON")["value"], "rel_1", "{app}");
        assert_eq!(
            get(addr, "app", "/env?name=NO_SUCH").expect(app).status,
            404,
            "{app}"
        );
        let events = get(addr, "app", "/sse?s=0.5").expect(app);
        assert_eq!(events.header("content-type"), "text/event-stream", "{app}");
        assert!(
            events.text().matches("data: ").count() >= 2,
            "{app}: {}",
            events.text()
        );
        let begun = Instant::now();
        assert_eq!(
            get(addr, "app", "/slow?s=0.3").expect(app).status,
            200,
            "{app}"
        );
        assert!(begun.elapsed() >= 300 * MILLI, "{app}");
        get(addr, "app", "/log?line=said%20by%20a%20test").expect(app);
        let output = running.stop().expect(app);
        assert!(
            output.stdout.ends_with("said by a test\n"),
            "{app}: {}",
            output.stdout
        );
    });
}

#[test]
fn the_load_of_the_main_job_fails_on_no_app() {
    on_each(|app| {
        let running = serving(app, "healthy");
        let load = Load::start(LoadSpec::new(running.addr(), "app")).expect(app);
        thread::sleep(2000 * MILLI);
        let report = load.stop_blocking();
        report.assert_no_failure();
        assert_eq!(report.answers_from("rel_1"), report.sent, "{app}: {report}");
    });
}

#[test]
fn a_websocket_echoes_until_either_side_closes_it() {
    on_each(|app| {
        let running = serving(app, "healthy");
        let mut socket = WebSocket::open(running.addr(), "app", "/ws").expect(app);
        assert_eq!(socket.header("x-release"), "rel_1");
        for length in [0, 5, 125, 126, 65_535, 65_536] {
            let text = "x".repeat(length);
            assert!(socket.echo(&text).expect(app) == text, "{app}: {length}");
        }
        socket.close().expect(app);
        assert_eq!(
            get(running.addr(), "app", "/ws").expect(app).status,
            426,
            "{app}"
        );
        let mut socket = WebSocket::open(running.addr(), "app", "/ws").expect(app);
        assert_eq!(running.stop().expect(app).status, 0, "{app}");
        assert_eq!(
            socket.receive().expect(app),
            Frame::Close(Some(1001)),
            "{app}"
        );
    });
}

#[test]
fn a_stop_finishes_what_is_in_flight_and_waits_for_nothing_else() {
    on_each(|app| {
        let running = serving(app, "healthy");
        let addr = running.addr();
        let slow = Call::get(addr, "app", "/slow?s=1.5").start();
        let events = Call::get(addr, "app", "/sse").start();
        let _idle = std::net::TcpStream::connect(addr).expect(app);
        thread::sleep(500 * MILLI);
        let output = running.stop().expect(app);
        assert_eq!((output.status, &*output.stderr), (0, ""), "{app}");
        let slow = slow.join().expect("no panic").expect(app);
        assert_eq!(
            (slow.status, slow.header("connection")),
            (200, "close"),
            "{app}"
        );
        let events = events
            .join()
            .expect("no panic")
            .expect("the stream is ended properly");
        assert!(events.text().starts_with("id: 0"), "{app}");
    });
}

#[test]
fn each_variant_fails_in_its_own_way() {
    on_each(|app| {
        let status = |running: &Running| get(running.addr(), "app", "/").expect(app).status;

        let crashed = start(app, "crash").wait().expect(app);
        assert_eq!(crashed.status, 3, "{app}: {}", crashed.stderr);
        assert!(
            crashed.stderr.contains("cannot reach the database"),
            "{app}: {}",
            crashed.stderr
        );

        assert_eq!(status(&serving(app, "error")), 500, "{app}");

        let deaf = start(app, "wrong-port");
        let end = Instant::now() + 20_000 * MILLI;
        while !deaf.stdout().contains("listens on") {
            assert!(Instant::now() < end, "{app} listens nowhere");
            thread::sleep(10 * MILLI);
        }
        assert!(!deaf.is_listening(), "{app}");
        let said = deaf.stop().expect(app);
        assert_eq!(said.status, 0, "{app}: {said:?}");

        let begun = Instant::now();
        let slow = serving(app, "slow-start:1");
        assert!(begun.elapsed() >= 1000 * MILLI, "{app}");
        assert_eq!(status(&slow), 200, "{app}");

        let bad = serving(app, "bad-later:2");
        assert_eq!(status(&bad), 200, "{app}");
        let dying = serving(app, "dies:2");
        assert_eq!(status(&dying), 200, "{app}");
        let died = dying.wait().expect(app);
        assert_eq!(
            (died.status, died.stderr.contains("fatal")),
            (1, true),
            "{app}: {died:?}"
        );
        thread::sleep(500 * MILLI);
        assert_eq!(status(&bad), 500, "{app}");
    });
}

#[test]
fn a_forking_app_leaves_two_children_behind() {
    on_each(|app| {
        let running = serving(app, "fork");
        let children = process::descendants(&process::all(), running.pid());
        assert_eq!(children.len(), 2, "{app}");
        assert_eq!(running.stop().expect(app).status, 0, "{app}");
        // One shared the process group, which was killed with the app; the other escaped it.
        let end = Instant::now() + 5000 * MILLI;
        let alive = || {
            let all = process::all();
            let left = all
                .iter()
                .filter(|process| process.state != 'Z')
                .map(|process| process.pid);
            left.filter(|pid| children.contains(pid)).count()
        };
        while alive() > 1 && Instant::now() < end {
            thread::sleep(10 * MILLI);
        }
        let left = alive();
        children.iter().for_each(|child| process::kill_now(*child));
        assert_eq!(left, 1, "{app}");
    });
}
