//! A target that died is noticed by the requests that cannot reach it, long before its next check.
//! The rounds of checks are an hour apart here, so nothing else can have noticed it.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::*;
use temps_ipc::id::InstanceId;
use temps_ipc::types::{Address, HealthCheck, Target};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// How long a wrong report would have had time to arrive.
const A_WHILE: Duration = Duration::from_millis(1500);

async fn proxy() -> Proxy {
    let mut settings = settings();
    settings.probes.routed = Duration::from_secs(3600);
    proxy_with(settings).await
}

async fn serve(proxy: &Proxy, target: &Target) {
    proxy
        .apply(vec![route("a.test", "/", &[target])])
        .await
        .unwrap();
}

fn heard(proxy: &Proxy) -> Vec<(InstanceId, String)> {
    proxy.heard.0.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_to_a_dead_target_is_enough_to_report_it() {
    let proxy = proxy().await;
    let app = says("x").await;
    let port = app.target.clone();
    let socket = Target {
        id: InstanceId::fresh(),
        address: Address::Unix(proxy.state.path().join("gone.sock")),
        check: HealthCheck::Any,
    };
    serve(&proxy, &port).await;
    assert_eq!(proxy.get("a.test", "/").await.status, 200);
    drop(app);
    for (reported, target) in [port, socket].iter().enumerate() {
        serve(&proxy, target).await;
        assert_eq!(heard(&proxy).len(), reported, "nobody asked for it");
        assert_eq!(proxy.get("a.test", "/").await.status, 502);
        until(|| heard(&proxy).len() > reported).await;
        let (id, why) = heard(&proxy).pop().unwrap();
        assert_eq!(
            (&id, why.as_str()),
            (&target.id, "nothing accepts connections there")
        );
        assert_eq!(proxy.status().await.unhealthy, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_dies_over_a_request_is_reported() {
    let proxy = proxy().await;
    // The listener goes with the first request, and no second one is made.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target {
        id: InstanceId::fresh(),
        address: Address::Tcp(listener.local_addr().unwrap()),
        check: HealthCheck::Tcp,
    };
    serve(&proxy, &target).await;
    let dies = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
        drop(listener);
        drop(stream);
    });
    assert_eq!(proxy.get("a.test", "/").await.status, 502);
    dies.await.unwrap();
    until(|| heard(&proxy).len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_only_restarted_is_not_reported() {
    let proxy = proxy().await;
    let gone = says("x").await;
    let target = gone.target.clone();
    serve(&proxy, &target).await;
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
        tokio::time::sleep(Duration::from_millis(100)).await;
        back.await
    });
    assert_eq!(answer.status, 502);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(heard(&proxy), []);
    assert_eq!(proxy.status().await.unhealthy, 0);
    drop(listener);
    // And it is still looked at when it is needed.
    assert_eq!(proxy.get("a.test", "/").await.status, 502);
    until(|| heard(&proxy).len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_together_cause_a_few_connections_and_one_report() {
    let proxy = proxy().await;
    // Accepts and says nothing: every request fails, and every look finds somebody.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target {
        id: InstanceId::fresh(),
        address: Address::Tcp(listener.local_addr().unwrap()),
        check: HealthCheck::Tcp,
    };
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
    serve(&proxy, &target).await;
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let address = proxy.http;
        clients.spawn(async move {
            for _ in 0..50 {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
                stream.write_all(request).await.unwrap();
                assert_eq!(read_answer(&mut stream).await.unwrap().status, 502);
            }
        });
    }
    clients.join_all().await;
    let (asked, all) = (asked.load(Ordering::SeqCst), all.load(Ordering::SeqCst));
    assert!(asked >= 1000, "{asked}");
    // One each 250 ms at most, and three that were under way.
    let looks = begun.elapsed().as_millis() / 250 + 3;
    assert!(((all - asked) as u128) <= looks, "{} looks", all - asked);
    assert_eq!(heard(&proxy), []);
    // Dead now, under as many requests: reported once.
    accepting.abort();
    let _ = accepting.await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let address = proxy.http;
        clients.spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let _ = read_answer(&mut stream).await;
        });
    }
    clients.join_all().await;
    until(|| !heard(&proxy).is_empty()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(heard(&proxy).len(), 1);
}
