//! Load for the time of a test.

use super::{Proxy, read_answer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Asks again and again on kept connections; counts what is not 200.
pub async fn load(
    proxy: &Proxy,
    clients: usize,
) -> (Arc<AtomicBool>, Arc<AtomicUsize>, JoinSet<usize>) {
    let (stop, failures) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut set = JoinSet::new();
    for client in 0..clients {
        let (stop, failures, address) = (stop.clone(), failures.clone(), proxy.http);
        set.spawn(async move {
            let mut asked = 0;
            let mut stream = TcpStream::connect(address).await.unwrap();
            while !stop.load(Ordering::SeqCst) {
                // Half of the clients connect anew for every request.
                let close = client % 2 == 0;
                if close && asked > 0 {
                    stream = TcpStream::connect(address).await.unwrap();
                }
                let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
                let sent = stream.write_all(request.as_bytes()).await;
                let answer = read_answer(&mut stream).await;
                asked += 1;
                let is_good = sent.is_ok() && answer.as_ref().is_some_and(|a| a.status == 200);
                if !is_good {
                    failures.fetch_add(1, Ordering::SeqCst);
                }
                // A client does not ask again where it was told that no answer will come.
                let is_last = answer.is_some_and(|a| a.header("connection") == Some("close"));
                if !is_good || is_last {
                    stream = TcpStream::connect(address).await.unwrap();
                }
            }
            asked
        });
    }
    (stop, failures, set)
}
