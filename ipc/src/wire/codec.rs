//! The postcard codec for `tokio-serde` (bincode, tarpc's usual companion, is no longer
//! maintained). <https://postcard.jamesmunns.com/wire-format>

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::io;
use std::pin::Pin;
use tokio_serde::{Deserializer, Serializer};

/// Encodes and decodes one frame.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Postcard {}

fn invalid(error: postcard::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<T: for<'de> Deserialize<'de>> Deserializer<T> for Postcard {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, frame: &BytesMut) -> Result<T, io::Error> {
        // Trailing bytes mean that the two sides read the frame differently.
        match postcard::take_from_bytes(frame) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} bytes left over in a frame", rest.len()),
            )),
            Err(error) => Err(invalid(error)),
        }
    }
}

impl<T: Serialize> Serializer<T> for Postcard {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, item: &T) -> Result<Bytes, io::Error> {
        postcard::to_allocvec(item)
            .map(Bytes::from)
            .map_err(invalid)
    }
}
