//! WebSockets pass, however long they are silent.

use crate::support::{Handler, PATIENCE, Proxy, says, upstream};
use futures::FutureExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Answers 101 and then sends everything back.
fn echoing() -> Handler {
    Arc::new(|head, mut stream| {
        async move {
            assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.ok()?;
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            None
        }
        .boxed()
    })
}

/// Opens a WebSocket to the app at `a.test`.
async fn websocket(proxy: &Proxy) -> TcpStream {
    let mut stream = proxy.connect().await;
    let request = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_and_lives_through_a_swap() {
    let proxy = Proxy::new().await;
    let (app, next) = (upstream(echoing()).await, says("next").await);
    proxy.serve([("a.test", &app.target)]).await;
    let mut stream = websocket(&proxy).await;
    for round in 0..3_u8 {
        let frame = [0x81, 5, b'h', b'e', b'l', b'l', round];
        stream.write_all(&frame).await.unwrap();
        let mut back = [0; 7];
        timeout(PATIENCE, stream.read_exact(&mut back))
            .await
            .expect("an echo")
            .unwrap();
        assert_eq!(back, frame);
        if round == 0 {
            proxy.serve([("a.test", &next.target)]).await;
            let drain = proxy
                .drained(&app.target.id, Duration::from_millis(10))
                .await;
            assert_eq!(drain.leases, 1, "an open WebSocket holds its target");
        }
    }
    drop(stream);
    assert_eq!(proxy.drained(&app.target.id, PATIENCE).await.leases, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_websocket_stays_open() {
    // As long as a client that sends a body may pause, which this one does not.
    let proxy =
        Proxy::with(|settings| settings.timeouts.client_body = Duration::from_millis(100)).await;
    let app = upstream(echoing()).await;
    proxy.serve([("a.test", &app.target)]).await;
    let mut stream = websocket(&proxy).await;
    let silence = Duration::from_millis(500);
    let end = timeout(silence, stream.read_u8()).await;
    assert!(end.is_err(), "it ended: {end:?}");
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut back))
        .await
        .expect("an echo")
        .unwrap();
    assert_eq!(&back, b"ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_is_cut_off_gets_no_page() {
    let proxy = Proxy::with(|settings| settings.timeouts.stream = Duration::from_millis(100)).await;
    let app = upstream(echoing()).await;
    proxy.serve([("a.test", &app.target)]).await;
    let mut stream = websocket(&proxy).await;
    let mut rest = Vec::new();
    // However it ends: what counts is what came before.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("it is cut off");
    assert_eq!(String::from_utf8_lossy(&rest), "");
}
