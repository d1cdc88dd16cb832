//! What instances said: how much of it is kept, and how it is read.

use crate::support::{shop, started};
use temps_deployd::engine::paths::Paths;
use temps_deployd::logfile::Writer;
use temps_ipc::types::{LogKind, LogPage, LogQuery, LogStream, Phase};

#[tokio::test(start_paused = true)]
async fn an_instance_that_dies_for_ever_leaves_a_bounded_trace() {
    let (host, running) = started();
    let view = running.deploy("healthy").await;
    running.until(view.clone(), Phase::Confirmed).await;
    for _ in 0..30 {
        let (id, _, _) = host.world.instances().remove(0);
        host.world.kill(&id);
        running.engine.reconcile().await.unwrap();
        host.runs_only(&view.release);
    }
    let logs = host.directory.path().join("logs");
    let logs = std::fs::read_dir(logs.join(view.release.as_str()));
    let logs = logs.unwrap().count();
    // Its build, the ten that are kept, the one that runs, and the last one that died.
    assert!((3..=13).contains(&logs), "{logs} logs of one release");
}

/// What the shop's instances said, the last `tail` lines or all.
fn query(tail: Option<u32>) -> LogQuery {
    LogQuery {
        app: shop(),
        release: None,
        kind: LogKind::Runtime,
        after: None,
        tail,
        limit: 1_000,
        wait_ms: 0,
    }
}

/// A frame has 1 MiB, and lines are not all there is in it.
#[track_caller]
fn assert_fits(page: &LogPage) {
    let bytes: usize = page.lines.iter().map(|line| line.text.len()).sum();
    assert!(bytes < 900 * 1024, "{bytes} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_page_of_logs_fits_a_frame_and_skips_no_line() {
    let (host, running) = started();
    // Lines so long that no log's page is full by their number.
    let text = "x".repeat(10_000);
    for name in ["first", "second"] {
        let view = running.deploy("healthy").await;
        let (instance, _, _) = host.world.instances().remove(0);
        let log = Paths::new(host.directory.path()).instance_log(&view.release, &instance);
        let mut log = Writer::open(&log).unwrap();
        for number in 0..100 {
            log.line(LogStream::Stdout, &format!("{name} {number} {text}"));
        }
    }
    let mut query = query(None);
    let mut seen = Vec::new();
    loop {
        let page = running.engine.logs(query.clone()).await.unwrap();
        assert_fits(&page);
        assert!(!page.ended, "the app may be deployed again");
        if page.lines.is_empty() {
            break;
        }
        seen.extend(page.lines.into_iter().map(|line| line.text));
        query.after = Some(page.cursor);
    }
    for name in ["first", "second"] {
        for number in 0..100 {
            let start = format!("{name} {number} x");
            let found = seen.iter().filter(|line| line.starts_with(&start));
            assert_eq!(found.count(), 1, "{start}");
        }
    }
    query.after = None;
    query.tail = Some(200);
    let page = running.engine.logs(query).await.unwrap();
    assert_fits(&page);
}

#[tokio::test(start_paused = true)]
async fn a_follower_of_an_app_without_an_instance_waits_for_its_first() {
    let (_host, running) = started();
    let queued = running.queue("slow-build:5000").await;
    let mut query = query(Some(100));
    let page = running.engine.logs(query.clone()).await.unwrap();
    assert!(page.lines.is_empty() && !page.ended);
    query.after = Some(page.cursor);
    query.wait_ms = 20_000;
    let page = running.engine.logs(query).await.unwrap();
    assert_eq!(page.lines[0].release, queued.release);
}
