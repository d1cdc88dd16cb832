//! How a call by the bus fails: the codes of [`Fault`], one to one, as `sh.temps.Error.<Code>`.
//!
//! The message has what happened in its first line and what to do, if there is something to do, in
//! its second.

use temps_ipc::{Code, Fault};
use zbus::message::{Header, Message};
use zbus::names::ErrorName;

/// A fault on its way over the bus.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    text: String,
}

/// The D-Bus name of a code.
pub const fn error_name(code: Code) -> &'static str {
    match code {
        Code::NotFound => "sh.temps.Error.NotFound",
        Code::Exists => "sh.temps.Error.Exists",
        Code::Invalid => "sh.temps.Error.Invalid",
        Code::Busy => "sh.temps.Error.Busy",
        Code::Denied => "sh.temps.Error.Denied",
        Code::Unavailable => "sh.temps.Error.Unavailable",
        Code::Internal => "sh.temps.Error.Internal",
        Code::Unsupported => "sh.temps.Error.Unsupported",
        Code::NoSpace => "sh.temps.Error.NoSpace",
        Code::Config => "sh.temps.Error.Config",
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let hint = match fault.hint.as_str() {
            "" => String::new(),
            hint => format!("\n{hint}"),
        };
        // A string of D-Bus cannot hold a NUL.
        let text = format!("{}{hint}", fault.what).replace('\0', " ");
        Self {
            code: fault.code,
            text,
        }
    }
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        Fault::internal(format!("the bus failed: {error}")).into()
    }
}

impl zbus::DBusError for Failure {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&self.text)
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(error_name(self.code))
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::DBusError as _;

    #[test]
    fn every_code_has_a_valid_name_of_its_own() {
        for code in Code::ALL {
            let name = ErrorName::try_from(error_name(code)).unwrap();
            assert_eq!(name.as_str(), format!("sh.temps.Error.{}", code.name()));
        }
    }

    #[test]
    fn what_and_hint_have_a_line_each() {
        let failure = Failure::from(Fault::not_found("no such app\0").hint("see `temps app list`"));
        assert_eq!(
            failure.description(),
            Some("no such app \nsee `temps app list`")
        );
        let failure = Failure::from(Fault::internal("a defect"));
        assert_eq!(failure.description(), Some("a defect"));
    }
}
