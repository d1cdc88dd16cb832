//! What administrators can rely on in the journal: every message of temps-deployd with its
//! MESSAGE_ID (`systemd-id128 new`). Never a variable's value, never a line an app printed.

use crate::store::app::App;
use crate::store::deployment::Deployment;
use crate::store::instance::Instance;
use temps_ipc::types::Phase;
use temps_unit::event;
use temps_unit::journal::MessageId;

/// The daemon answers.
pub const STARTED: MessageId = MessageId::new("44ca4de7746f48e991b4fea8ca7bc49f");
/// A release serves.
pub const LIVE: MessageId = MessageId::new("f77bc3b0c8e84426ad75007b65cd5b97");
/// A release was refused.
pub const REFUSED: MessageId = MessageId::new("9d85bdbeda174ef3881b3fa6f409ae62");
/// A release turned bad; the last good one serves again.
pub const ROLLED_BACK: MessageId = MessageId::new("62b7e74fceb1466f89a21a1920b1cfa4");
/// An instance is replaced, since it died or hangs.
pub const RESTARTING: MessageId = MessageId::new("a61738852c194bd3aab0bdd77977a6f9");
/// Something ran that should not, or the other way round.
pub const RECONCILED: MessageId = MessageId::new("17dc4b100629476184b9e6ba1bb4a6f3");
/// An app was removed.
pub const DESTROYED: MessageId = MessageId::new("2291e401cc7d49d287aab790161e901b");
/// The database cannot be used.
pub const STORE_UNUSABLE: MessageId = MessageId::new("9555f158956f44859a9542d1d708728a");

/// A damaged database was replaced by its last good copy.
pub const STORE_RESTORED: MessageId = MessageId::new("1c3182f0a73246fb970b38f0fba2123f");

/// Every id of this daemon, for the catalog.
pub const ALL: [MessageId; 9] = [
    STARTED,
    LIVE,
    REFUSED,
    ROLLED_BACK,
    RESTARTING,
    RECONCILED,
    DESTROYED,
    STORE_UNUSABLE,
    STORE_RESTORED,
];

pub(crate) fn phase(app: &App, deployment: &Deployment) {
    let (name, release, reason) = (&app.name, &deployment.release, &deployment.reason);
    match deployment.phase {
        Phase::Live => {
            event!(info, LIVE, temps_app = %name, temps_release = %release, "{name}: {release} is live");
        }
        Phase::Refused => {
            event!(warn, REFUSED, temps_app = %name, temps_release = %release, "{name}: {release} was refused: {reason}");
        }
        Phase::RolledBack => {
            event!(error, ROLLED_BACK, temps_app = %name, temps_release = %release, "{name}: {release} was rolled back: {reason}");
        }
        other => {
            tracing::debug!(temps_app = %name, temps_release = %release, phase = other.name(), "a deployment moved on");
        }
    }
}

pub(crate) fn restarting(app: &App, instance: &Instance, why: &str) {
    event!(warn, RESTARTING, temps_app = %app.name, temps_release = %instance.release,
        "{}: its instance {} is replaced: {why}", app.name, instance.id);
}

pub(crate) fn reconciled(what: &str) {
    event!(info, RECONCILED, "reconciled: {what}");
}

pub(crate) fn destroyed(app: &App) {
    event!(info, DESTROYED, temps_app = %app.name, "{}: the app was removed", app.name);
}
