//! Restarts: a helper serves between two processes.

use crate::support::{PATIENCE, Proxy, ask, load, read_answer, says, says_after, tls, until};
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;
use temps_ipc::Code;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Every file of the state directory that holds something, with what it holds.
fn files(state: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for place in ["", "certificates"] {
        for entry in fs::read_dir(state.join(place)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                found.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_new_connection_waits_for_the_drain() {
    let proxy = Proxy::handing_over().await;
    let (slow, fast) = (
        says_after(Duration::from_millis(2500), "slow").await,
        says("fast").await,
    );
    proxy
        .serve([("slow.test", &slow.target), ("fast.test", &fast.target)])
        .await;
    let mut busy = proxy.connect().await;
    ask(&mut busy, "slow.test").await;
    until(|| slow.asked() == 1).await;
    proxy.stop.cancel();
    until(|| proxy.helpers() == 1).await;
    // Longer than the helper needs to start, and the old process to stop accepting.
    sleep(Duration::from_millis(300)).await;
    for _ in 0..5 {
        assert_eq!(proxy.get("fast.test", "/").await.body, "fast");
    }
    assert!(proxy.is_running(), "it drains all the while");
    let next = proxy.restart().await;
    assert_eq!(read_answer(&mut busy).await.unwrap().body, "slow");
    assert_eq!(next.get("fast.test", "/").await.body, "fast");
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_under_load_lose_no_request() {
    let mut proxy = Proxy::handing_over().await;
    let app = says("a").await;
    proxy.serve([("a.test", &app.target)]).await;
    let (stop, failures, mut clients) = load(&proxy, 6).await;
    for _ in 0..5 {
        proxy = proxy.restart().await;
        // Not always after the helper of the last restart has ended.
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(proxy.helpers(), 5);
    stop.store(true, Ordering::SeqCst);
    let mut asked = 0;
    while let Some(count) = clients.join_next().await {
        asked += count.unwrap();
    }
    assert_eq!(failures.load(Ordering::SeqCst), 0, "of {asked}");
    assert!(asked > 30, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_not_replaced_before_the_helper_has_ended() {
    let proxy = Proxy::handing_over().await;
    let (old, new) = (
        says_after(Duration::from_millis(1500), "old").await,
        says("new").await,
    );
    proxy.serve([("a.test", &old.target)]).await;
    // It is issued beside the first routes, and the last that the main process writes.
    let certificate = proxy.state.path().join("certificates/a.test.pem");
    until(|| certificate.exists()).await;
    let before = files(proxy.state.path());
    proxy.stop.cancel();
    until(|| proxy.helpers() == 1).await;
    sleep(Duration::from_millis(200)).await;
    // Nobody else accepts: the old process does not any more, the next is not there.
    let mut busy = proxy.connect().await;
    ask(&mut busy, "a.test").await;
    until(|| old.asked() == 1).await;
    let next = proxy.restart().await;
    let refused = next.apply(vec![crate::support::route("a.test", "/", &[&new.target])]);
    let fault = refused.await.unwrap_err();
    assert_eq!(fault.code, Code::Busy, "{fault}");
    // What the helper has in flight counts, too.
    let drain = next
        .drained(&old.target.id, Duration::from_millis(200))
        .await;
    assert_eq!((drain.leases, drain.routed), (1, true));
    assert_eq!(next.drained(&new.target.id, PATIENCE).await.leases, 0);
    assert_eq!(files(next.state.path()), before, "the helper wrote");
    assert_eq!(read_answer(&mut busy).await.unwrap().body, "old");
    let drain = next.drained(&old.target.id, PATIENCE).await;
    assert_eq!(drain.leases, 0);
    loop {
        let applied = next.apply(vec![crate::support::route("a.test", "/", &[&new.target])]);
        match applied.await {
            Ok(_) => break,
            Err(fault) => assert_eq!(fault.code, Code::Busy, "{fault}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(next.get("a.test", "/").await.body, "new");
    assert_eq!(old.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_helper_serves_the_last_routes_with_their_certificates() {
    let proxy = Proxy::handing_over().await;
    let app = says("a").await;
    proxy.serve([("a.test", &app.target)]).await;
    let certificate = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let of_main = certificate(&tls(&proxy, "a.test", &["http/1.1"]).await.unwrap());
    proxy.stop.cancel();
    until(|| proxy.helpers() == 1 && !proxy.is_running()).await;
    // Kept in memory, and for this process alone.
    fs::remove_file(proxy.state.path().join("certificates/localhost.pem")).unwrap_or(());
    assert!(tls(&proxy, "localhost", &[]).await.is_ok());
    assert!(tls(&proxy, "b.test", &[]).await.is_err());
    let mut stream = tls(&proxy, "a.test", &["http/1.1"]).await.unwrap();
    assert_eq!(certificate(&stream), of_main);
    ask(&mut stream, "a.test").await;
    assert_eq!(read_answer(&mut stream).await.unwrap().body, "a");
    assert!(
        !proxy
            .state
            .path()
            .join("certificates/localhost.pem")
            .exists()
    );
}
