//! A new snapshot takes over without a failed request, and the old target is let go when nobody
//! needs it any more.

use crate::support::{PATIENCE, Proxy, ask, dead, load, read_answer, says, says_after, until};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use temps_ipc::types::ProbeFailure;
use temps_unit::exit::Exit;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn swaps_under_load_lose_no_request_and_send_none_to_a_drained_target() {
    let proxy = Proxy::new().await;
    let mut current = says("0").await;
    proxy.serve([("a.test", &current.target)]).await;
    let (stop, failures, mut clients) = load(&proxy, 6).await;
    for _ in 0..30 {
        let next = says("1").await;
        let probed = proxy.probe(vec![next.target.clone()], PATIENCE).await;
        assert!(probed.unwrap()[0].failure.is_none());
        proxy.serve([("a.test", &next.target)]).await;
        let drain = proxy.drained(&current.target.id, PATIENCE).await;
        assert!(drain.leases == 0 && !drain.routed, "{drain:?}");
        let served = current.asked();
        sleep(Duration::from_millis(10)).await;
        assert_eq!(current.asked(), served, "a request after the drain");
        // Dropped: it stops accepting and closes what is open, as a stopped instance does.
        current = next;
    }
    stop.store(true, Ordering::SeqCst);
    let mut asked = 0;
    while let Some(count) = clients.join_next().await {
        asked += count.unwrap();
    }
    assert_eq!(failures.load(Ordering::SeqCst), 0, "of {asked}");
    assert!(asked > 30, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_not_drained_before_its_slow_request_is_answered() {
    let proxy = Proxy::new().await;
    let slow = says_after(Duration::from_millis(600), "slow").await;
    let next = says("next").await;
    proxy.serve([("a.test", &slow.target)]).await;
    let mut stream = proxy.connect().await;
    ask(&mut stream, "a.test").await;
    until(|| slow.asked() == 1).await;
    proxy.serve([("a.test", &next.target)]).await;
    let drain = proxy
        .drained(&slow.target.id, Duration::from_millis(10))
        .await;
    assert_eq!((drain.leases, drain.routed), (1, false));
    assert_eq!(proxy.get("a.test", "/").await.body, "next");
    let drain = proxy.drained(&slow.target.id, PATIENCE).await;
    assert_eq!(drain.leases, 0);
    assert_eq!(read_answer(&mut stream).await.unwrap().body, "slow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_target_raises_the_alarm_while_it_is_routed() {
    let proxy = Proxy::new().await;
    let app = says("x").await;
    let target = app.target.clone();
    proxy.serve([("a.test", &target)]).await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(proxy.heard(), []);
    drop(app);
    until(|| proxy.heard().len() >= 2).await;
    let why = "nothing accepts connections there".to_owned();
    assert_eq!(proxy.heard()[0], (target.id.clone(), why));
    assert_eq!(proxy.status().await.unhealthy, 1);
    proxy.apply(vec![]).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    proxy.forget_heard();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(proxy.heard(), [], "it is not routed any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_how_a_target_fails() {
    let proxy = Proxy::new().await;
    let good = says("x").await;
    let dead = dead().await;
    let outcome = proxy
        .probe(vec![good.target.clone(), dead], Duration::from_millis(100))
        .await
        .unwrap();
    assert_eq!(outcome[0].failure, None);
    assert_eq!(outcome[1].failure, Some(ProbeFailure::Refused));
    let many = vec![good.target.clone(); 65];
    assert!(proxy.probe(many, PATIENCE).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_loses_no_request_that_has_begun_or_is_on_its_way() {
    let proxy = Proxy::new().await;
    let slow = says_after(Duration::from_millis(900), "slow").await;
    let fast = says("fast").await;
    proxy
        .serve([("slow.test", &slow.target), ("fast.test", &fast.target)])
        .await;
    // Kept alive and idle; fresh; with a request in flight.
    let mut idle = proxy.connect().await;
    ask(&mut idle, "fast.test").await;
    let answer = read_answer(&mut idle).await.unwrap();
    assert_eq!(answer.header("connection"), Some("keep-alive"));
    let mut fresh = proxy.connect().await;
    let mut busy = proxy.connect().await;
    ask(&mut busy, "slow.test").await;
    until(|| slow.asked() == 1).await;
    sleep(Duration::from_millis(50)).await;
    proxy.stop.cancel();
    sleep(Duration::from_millis(100)).await;
    for stream in [&mut idle, &mut fresh] {
        ask(stream, "fast.test").await;
        let answer = read_answer(stream).await;
        let answer = answer.expect("an answer during the drain");
        assert_eq!(answer.body, "fast");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    let answer = read_answer(&mut busy).await;
    let answer = answer.expect("the answer to what was in flight");
    assert_eq!(answer.body, "slow");
    assert_eq!(answer.header("connection"), Some("close"));
    let (exit, _) = proxy.stop().await;
    assert_eq!(exit, Exit::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_idle_connections_and_ends_soon() {
    let proxy = Proxy::new().await;
    let mut idle = proxy.connect().await;
    sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    let (exit, _) = proxy.stop().await;
    assert_eq!(exit, Exit::Success);
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "far below the deadline of the drain"
    );
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}
