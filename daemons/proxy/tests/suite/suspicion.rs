//! A target that died is noticed by the requests that cannot reach it, long before its next check.
//! The rounds of checks are an hour apart here, so nothing else can have noticed it.

use crate::support::{Proxy, read_answer, says, target, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use temps_ipc::types::Address;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How long a wrong report would have had time to arrive.
const A_WHILE: Duration = Duration::from_millis(1500);

/// A proxy that checks no target by itself.
async fn unchecked() -> Proxy {
    Proxy::with(|settings| settings.probes.routed = Duration::from_secs(3600)).await
}

/// Many clients at once, each with `requests` on connections of their own; their statuses.
async fn crowd(proxy: &Proxy, clients: usize, requests: usize) -> Vec<Option<u16>> {
    let mut crowd = JoinSet::new();
    for _ in 0..clients {
        let address = proxy.http;
        crowd.spawn(async move {
            let mut statuses = Vec::new();
            for _ in 0..requests {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
                stream.write_all(request).await.unwrap();
                let answer = read_answer(&mut stream).await;
                statuses.push(answer.map(|answer| answer.status));
            }
            statuses
        });
    }
    crowd.join_all().await.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_to_a_dead_target_is_enough_to_report_it() {
    let proxy = unchecked().await;
    let app = says("x").await;
    let port = app.target.clone();
    let socket = target(Address::Unix(proxy.state.path().join("gone.sock")));
    proxy.serve([("a.test", &port)]).await;
    assert_eq!(proxy.get("a.test", "/").await.status, 200);
    drop(app);
    for (reported, target) in [port, socket].iter().enumerate() {
        proxy.serve([("a.test", target)]).await;
        assert_eq!(proxy.heard().len(), reported, "nobody asked for it");
        assert_eq!(proxy.get("a.test", "/").await.status, 502);
        until(|| proxy.heard().len() > reported).await;
        let why = "nothing accepts connections there".to_owned();
        assert_eq!(proxy.heard().pop(), Some((target.id.clone(), why)));
        assert_eq!(proxy.status().await.unhealthy, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_dies_over_a_request_is_reported() {
    let proxy = unchecked().await;
    // The listener goes with the first request, and no second one is made.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(Address::Tcp(listener.local_addr().unwrap()));
    proxy.serve([("a.test", &target)]).await;
    let dies = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
        drop(listener);
        drop(stream);
    });
    assert_eq!(proxy.get("a.test", "/").await.status, 502);
    dies.await.unwrap();
    until(|| proxy.heard().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_only_restarted_is_not_reported() {
    let proxy = unchecked().await;
    let gone = says("x").await;
    let target = gone.target.clone();
    proxy.serve([("a.test", &target)]).await;
    let address = gone.address;
    drop(gone);
    let back = async {
        loop {
            // The old one is closed by a task that has yet to end.
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    // Whatever the request finds, the listener is back an instant later.
    let (answer, listener) = tokio::join!(proxy.get("a.test", "/"), async {
        sleep(Duration::from_millis(100)).await;
        back.await
    });
    assert_eq!(answer.status, 502);
    sleep(A_WHILE).await;
    assert_eq!(proxy.heard(), []);
    assert_eq!(proxy.status().await.unhealthy, 0);
    drop(listener);
    // And it is still looked at when it is needed.
    assert_eq!(proxy.get("a.test", "/").await.status, 502);
    until(|| proxy.heard().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_together_cause_a_few_connections_and_one_report() {
    let proxy = unchecked().await;
    // Accepts and says nothing: every request fails, and every look finds somebody.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(Address::Tcp(listener.local_addr().unwrap()));
    let (asked, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (asked.clone(), all.clone());
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counts.1.fetch_add(1, Ordering::SeqCst);
            let asked = counts.0.clone();
            tokio::spawn(async move {
                let mut first = [0; 1];
                if stream.peek(&mut first).await.is_ok_and(|length| length > 0) {
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    proxy.serve([("a.test", &target)]).await;
    let begun = Instant::now();
    assert_eq!(crowd(&proxy, 20, 50).await, [Some(502); 1000]);
    let (asked, all) = (asked.load(Ordering::SeqCst), all.load(Ordering::SeqCst));
    assert!(asked >= 1000, "{asked}");
    // One each 250 ms at most, and three that were under way.
    let looks = begun.elapsed().as_millis() / 250 + 3;
    assert!(((all - asked) as u128) <= looks, "{} looks", all - asked);
    assert_eq!(proxy.heard(), []);
    // Dead now, under as many requests: reported once.
    accepting.abort();
    let _ = accepting.await;
    crowd(&proxy, 300, 1).await;
    until(|| !proxy.heard().is_empty()).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(proxy.heard().len(), 1);
}
