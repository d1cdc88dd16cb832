//! A fault in answer to a request that was not read.
//!
//! Who may not call a daemon is refused before any of its requests is decoded, so the answer cannot
//! have the type the method would give. It is a tarpc server error whose text carries the fault. The
//! error's kind carries nothing: tarpc writes it as a signed and reads it as an unsigned number, which
//! postcard encodes differently.

use crate::{Code, Fault};
use std::io;
use tarpc::ServerError;

/// Begins the text of a refusal; other server errors do not start with a line like this.
const MARK: &str = "temps refusal";

/// The server error that carries `fault`.
pub fn encode(fault: &Fault) -> ServerError {
    let text = format!(
        "{MARK}\n{}\n{}\n{}",
        fault.code,
        fault.what.replace('\n', " "),
        fault.hint
    );
    ServerError::new(io::ErrorKind::PermissionDenied, text)
}

/// The fault that `error` carries, if it is a refusal.
pub fn decode(error: &ServerError) -> Option<Fault> {
    let mut lines = error.detail.splitn(4, '\n');
    if lines.next() != Some(MARK) {
        return None;
    }
    let name = lines.next()?;
    let code = Code::ALL.into_iter().find(|code| code.name() == name)?;
    let fault = Fault::new(code, lines.next()?);
    Some(fault.hint(lines.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_codec() {
        let fault = Fault::new(Code::Denied, "uid 7 may not call this").hint("ask\nsomebody");
        let frame = postcard::to_allocvec(&encode(&fault)).unwrap();
        let error: ServerError = postcard::from_bytes(&frame).unwrap();
        assert_eq!(decode(&error), Some(fault));
    }

    #[test]
    fn other_server_errors_are_no_refusals() {
        let error = ServerError::new(io::ErrorKind::Other, "temps refusal".to_owned());
        assert_eq!(decode(&error), None);
        let error = ServerError::new(io::ErrorKind::Other, "Denied\nx\ny".to_owned());
        assert_eq!(decode(&error), None);
    }
}
