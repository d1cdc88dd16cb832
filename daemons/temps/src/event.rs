//! Every event of the command itself that an operator may want to find again: its `MESSAGE_ID` in the
//! journal; the catalog explains each.

use temps_unit::journal::MessageId;

/// A unit of the platform failed.
pub const UNIT_FAILED: MessageId = MessageId::new("ac9e3ba963e7466b94348c546553e9ce");

/// All of them.
pub const ALL: [MessageId; 1] = [UNIT_FAILED];
