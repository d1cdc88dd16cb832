//! The first call on every connection: daemons are restarted one by one, so version skew is normal
//! and is found before a frame can be misread.

use crate::{Code, Fault, PROTOCOL};
use serde::{Deserialize, Serialize};

/// Who speaks, and what it understands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u32,
    /// The sender's version, for messages.
    pub build: String,
}

impl Hello {
    /// This build's.
    pub fn ours() -> Self {
        Self {
            protocol: PROTOCOL,
            build: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Whether we can talk to `self`.
    ///
    /// # Errors
    /// [`Code::Unavailable`] if the protocols differ, with the way out as its hint.
    pub fn check(&self) -> Result<(), Fault> {
        if self.protocol == PROTOCOL {
            return Ok(());
        }
        let build: String = self
            .build
            .chars()
            .filter(|c| !c.is_control())
            .take(40)
            .collect();
        Err(Fault::new(
            Code::Unavailable,
            format!(
                "the other side ({build}) speaks protocol {}, this one ({}) protocol {PROTOCOL}",
                self.protocol,
                env!("CARGO_PKG_VERSION")
            ),
        )
        .hint("finish the upgrade: restart the Temps daemons so that all run the same version"))
    }
}
