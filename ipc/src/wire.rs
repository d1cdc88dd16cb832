//! How the contract travels: postcard frames with a length in front, over Unix stream sockets.

pub mod client;
pub mod codec;
pub mod refusal;
pub mod upload;

use codec::Postcard;
use serde::{Deserialize, Serialize};
use tarpc::serde_transport::{self, Transport};
use tokio::net::UnixStream;
use tokio_util::codec::LengthDelimitedCodec;

/// Largest frame in bytes. A larger one ends the connection, so results are paged and uploads take
/// a second stream.
pub const MAX_FRAME: usize = 1024 * 1024;

/// The transport of a connection, for `tarpc`.
pub fn transport<Item, SinkItem>(
    stream: UnixStream,
) -> Transport<UnixStream, Item, SinkItem, Postcard>
where
    Item: for<'de> Deserialize<'de>,
    SinkItem: Serialize,
{
    let framed = LengthDelimitedCodec::builder()
        .max_frame_length(MAX_FRAME)
        .new_framed(stream);
    serde_transport::new(framed, Postcard::default())
}
