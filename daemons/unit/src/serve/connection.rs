//! One connection of an authorised caller.
//!
//! ```text
//! open ── shutdown ──> draining ── nothing in flight ──> closed
//!   └── end of stream, broken frame, or quiet for too long ──^
//! ```
//!
//! In the drain, requests that arrive are still served: they were sent before the client could know.

use super::Limits;
use super::call::Call;
use crate::idle::Idle;
use futures::{FutureExt, SinkExt, Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tarpc::context::Context;
use tarpc::server::{BaseChannel, Channel, Config, Requests};
use tarpc::{ClientMessage, RequestName, Response, ServerError};
use temps_ipc::wire::transport;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// A connection accepted just before the shutdown may still send its first request for this long.
const FRESH: Duration = Duration::from_secs(1);

/// How long the last answers may take to leave.
const FLUSH: Duration = Duration::from_secs(2);

/// Serves the requests of `stream` until it ends or the drain is done.
pub(super) async fn run<Req, Resp, Handler, Answer>(
    stream: UnixStream,
    limits: Limits,
    idle: Idle,
    shutdown: &CancellationToken,
    handler: Arc<Handler>,
) where
    Req: DeserializeOwned + RequestName + Send + 'static,
    Resp: Serialize + Send + 'static,
    Handler: Fn(Context, Req) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Resp, ServerError>> + Send + 'static,
{
    let transport = transport::<Call<Req>, Response<Resp>>(stream)
        .map(|call| call.map(ClientMessage::<Req>::from));
    let config = Config {
        pending_response_buffer: limits.requests,
    };
    let channel = BaseChannel::new(config, transport).max_concurrent_requests(limits.requests);
    let mut requests = pin!(channel.requests());
    let fresh_until = Instant::now() + FRESH;
    let mut draining = false;
    let mut served = false;
    let mut quiet_since = Instant::now();
    loop {
        let done = draining && (served || Instant::now() >= fresh_until);
        let wake = match (draining, served) {
            (true, false) => fresh_until,
            _ => quiet_since + limits.quiet,
        };
        let step = tokio::select! {
            biased;
            step = next(requests.as_mut(), done) => step,
            () = shutdown.cancelled(), if !draining => {
                draining = true;
                continue;
            }
            () = sleep_until(wake), if !done => {
                if requests.channel().in_flight_requests() > 0 {
                    quiet_since = Instant::now();
                } else if !draining {
                    break;
                }
                continue;
            }
        };
        match step {
            Step::Request(request) => {
                served = true;
                quiet_since = Instant::now();
                let guard = idle.busy();
                let handler = Arc::clone(&handler);
                let serve =
                    tarpc::server::serve(move |context, message| answer(handler, context, message));
                // It ends with the connection at the latest: the channel aborts what is in flight.
                tokio::spawn(request.execute(serve).map(|()| drop(guard)));
            }
            Step::Drained => break,
            Step::Ended(None) => return,
            Step::Ended(Some(error)) => {
                tracing::debug!(error, "a connection broke");
                return;
            }
        }
    }
    // A client that does not read its answers cannot hold the drain.
    let mut channel = requests.channel_pin_mut();
    let closing = tokio::time::timeout(FLUSH, channel.close());
    if !matches!(closing.await, Ok(Ok(()))) {
        tracing::debug!("a connection was closed with answers unsent");
    }
}

/// Runs the handler; if it panics, the caller learns it at once instead of waiting for the deadline.
async fn answer<Req, Resp, Handler, Answer>(
    handler: Arc<Handler>,
    context: Context,
    message: Req,
) -> Result<Resp, ServerError>
where
    Handler: Fn(Context, Req) -> Answer,
    Answer: Future<Output = Result<Resp, ServerError>>,
{
    let answer = AssertUnwindSafe(async { handler(context, message).await });
    answer.catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a request handler panicked");
        let detail = "the daemon failed at this request; its log says why".to_owned();
        Err(ServerError::new(io::ErrorKind::Other, detail))
    })
}

enum Step<R> {
    Request(R),
    /// Nothing is in flight, and the caller asked to end then.
    Drained,
    /// By the client, or by an error.
    Ended(Option<String>),
}

/// The next request. With `until_drained`, ends as soon as none is there and none is in flight.
async fn next<C: Channel>(
    mut requests: Pin<&mut Requests<C>>,
    until_drained: bool,
) -> Step<tarpc::server::InFlightRequest<C::Req, C::Resp>>
where
    Requests<C>: Stream<
        Item = Result<
            tarpc::server::InFlightRequest<C::Req, C::Resp>,
            <C as futures::TryStream>::Error,
        >,
    >,
    <C as futures::TryStream>::Error: std::fmt::Display,
{
    poll_fn(|cx| match requests.as_mut().poll_next(cx) {
        Poll::Ready(Some(Ok(request))) => Poll::Ready(Step::Request(request)),
        Poll::Ready(Some(Err(error))) => Poll::Ready(Step::Ended(Some(error.to_string()))),
        Poll::Ready(None) => Poll::Ready(Step::Ended(None)),
        Poll::Pending if until_drained && requests.channel().in_flight_requests() == 0 => {
            Poll::Ready(Step::Drained)
        }
        Poll::Pending => Poll::Pending,
    })
    .await
}
