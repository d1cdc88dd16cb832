//! Every event of this daemon that an operator may want to find again: its `MESSAGE_ID` in the
//! journal; the catalog explains each.

use temps_unit::journal::MessageId;

/// The proxy serves.
pub const STARTED: MessageId = MessageId::new("f29b63c328fc209f033bf9c339247ad1");
/// A snapshot of routes is served.
pub const SNAPSHOT_APPLIED: MessageId = MessageId::new("a581e17e7f67282ebb9bfd16e8724138");
/// A snapshot of routes was refused; the one before is still served.
pub const SNAPSHOT_REFUSED: MessageId = MessageId::new("dce911504b7c071d110be3f4d8d4a069");
/// A stored snapshot could not be read and was set aside.
pub const SNAPSHOT_CORRUPT: MessageId = MessageId::new("0c8ebae5afab8d0993659e9c7c49fbf0");
/// A routed target failed its health check three times in a row.
pub const TARGET_UNHEALTHY: MessageId = MessageId::new("7e2ef80692d66b4627d59919517d9359");
/// A target that was unhealthy answers again.
pub const TARGET_RECOVERED: MessageId = MessageId::new("e8cb1b8a2a9c3487ec68b0f507f696dc");
/// A certificate was issued.
pub const CERTIFICATE_ISSUED: MessageId = MessageId::new("e115399cc71b40f6b3ede1a8c0fa84b8");
/// Access events were lost.
pub const SPOOL_LOSSES: MessageId = MessageId::new("c2a5d91ace2b11f11d6014be7db1e83a");
/// The drain has ended and the process is about to.
pub const DRAINED: MessageId = MessageId::new("a70c3673a09029789a506fca22ef031f");
/// A helper serves while the proxy is restarted.
pub const HANDED_OVER: MessageId = MessageId::new("136cb38e4e8c61111cf2f7be30a714f3");

/// All of them.
pub const ALL: [MessageId; 10] = [
    STARTED,
    SNAPSHOT_APPLIED,
    SNAPSHOT_REFUSED,
    SNAPSHOT_CORRUPT,
    TARGET_UNHEALTHY,
    TARGET_RECOVERED,
    CERTIFICATE_ISSUED,
    SPOOL_LOSSES,
    DRAINED,
    HANDED_OVER,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_distinct() {
        for (index, id) in ALL.iter().enumerate() {
            assert!(!ALL[..index].contains(id));
        }
    }
}
