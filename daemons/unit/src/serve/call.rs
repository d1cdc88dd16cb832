//! What a client sends, read so that no frame can end the daemon.
//!
//! tarpc adds the deadline a client sends to the clock and keeps it in a timer wheel: either panics
//! if it is far enough in the future, and a panic ends the process. So requests are read as this
//! twin of `tarpc::ClientMessage`, with the same shape on the wire, and the deadline is cut first.

use serde::{Deserialize, Deserializer};
use std::fmt;
use std::time::{Duration, Instant};
use tarpc::{ClientMessage, Request, context, trace};

/// No call takes longer; what does is asked for again.
const LONGEST_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// `tarpc::ClientMessage`, as it is on the wire.
#[derive(Debug, Deserialize)]
pub(super) enum Call<Req> {
    Request {
        deadline: Duration,
        trace: trace::Context,
        id: u64,
        message: Req,
    },
    Cancel {
        trace: trace::Context,
        id: u64,
    },
}

impl<Req> From<Call<Req>> for ClientMessage<Req> {
    fn from(call: Call<Req>) -> Self {
        match call {
            Call::Request {
                deadline,
                trace,
                id,
                message,
            } => {
                let mut context = context::current();
                context.deadline = Instant::now() + deadline.min(LONGEST_DEADLINE);
                context.trace_context = trace;
                ClientMessage::Request(Request {
                    context,
                    id,
                    message,
                })
            }
            Call::Cancel { trace, id } => ClientMessage::Cancel {
                trace_context: trace,
                request_id: id,
            },
        }
    }
}

/// The rest of a frame, whatever it is.
#[derive(Debug)]
pub(super) struct Rest;

impl<'de> Deserialize<'de> for Rest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> serde::de::Visitor<'de> for Bytes {
            type Value = Rest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut bytes: A,
            ) -> Result<Rest, A::Error> {
                // The error is the end of the frame.
                while let Ok(Some(_)) = bytes.next_element::<u8>() {}
                Ok(Rest)
            }
        }
        deserializer.deserialize_tuple(usize::MAX, Bytes)
    }
}
