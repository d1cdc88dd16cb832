//! What a failed request is called, after kamal-proxy and nginx: 502 if the target gave no valid
//! answer, 504 if it gave none in time, 499 if nobody waits for it any more.

use pingora_core::{Error, ErrorSource, ErrorType};

/// Status of a request whose client went away before the answer; never sent (after nginx).
pub const CLIENT_GONE: u16 = 499;

/// The status that a failure means.
pub fn status_of(error: &Error) -> u16 {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, HTTPStatus, InvalidHTTPHeader, ReadError, ReadTimedout,
        WriteError, WriteTimedout,
    };
    let malformed = error
        .root_cause()
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData);
    match (error.etype(), error.esource()) {
        (HTTPStatus(status), _) => *status,
        // A chunked body of the client that is none.
        (_, ErrorSource::Downstream) if malformed => 400,
        (ConnectTimedout | ReadTimedout | WriteTimedout, ErrorSource::Upstream) => 504,
        (_, ErrorSource::Upstream) => 502,
        (ReadTimedout, ErrorSource::Downstream) => 408,
        (ReadError | WriteError | WriteTimedout | ConnectionClosed, ErrorSource::Downstream) => {
            CLIENT_GONE
        }
        (InvalidHTTPHeader, ErrorSource::Downstream) => 400,
        (_, ErrorSource::Downstream) => 400,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault_it_is_decides() {
        let up = |kind| Error::new_up(kind);
        let down = |kind| Error::new_down(kind);
        for (error, expected) in [
            (up(ErrorType::ConnectRefused), 502),
            (up(ErrorType::ConnectionClosed), 502),
            (up(ErrorType::InvalidHTTPHeader), 502),
            (up(ErrorType::ConnectTimedout), 504),
            (up(ErrorType::ReadTimedout), 504),
            (up(ErrorType::HTTPStatus(503)), 503),
            (down(ErrorType::ConnectionClosed), CLIENT_GONE),
            (down(ErrorType::WriteError), CLIENT_GONE),
            (down(ErrorType::ReadTimedout), 408),
            (down(ErrorType::InvalidHTTPHeader), 400),
            (Error::new_in(ErrorType::InternalError), 500),
        ] {
            assert_eq!(status_of(&error), expected, "{error}");
        }
    }
}
