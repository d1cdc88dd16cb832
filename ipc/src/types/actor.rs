//! Who asked for a change, as it is recorded.

use serde::{Deserialize, Serialize};

/// Who asked for a change. The daemon adds the uid that the kernel vouches for; this is what the
/// caller says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The user's name, or the daemon's.
    pub name: String,
    /// By which way: `cli`, `proxy`, `webhook`.
    pub via: String,
}

impl Actor {
    /// An actor; both texts are cut to 64 characters.
    pub fn new(name: &str, via: &str) -> Self {
        let cut = |text: &str| text.chars().filter(|c| !c.is_control()).take(64).collect();
        Self {
            name: cut(name),
            via: cut(via),
        }
    }
}
