//! deployd on the system bus: what administrators and their tools watch and a few things they ask
//! for. A thin adapter over the same engine as [`crate::rpc`].
//!
//! ```text
//! /sh/temps/Deploy1             sh.temps.Deploy1, org.freedesktop.DBus.ObjectManager
//! /sh/temps/Deploy1/app/NAME    sh.temps.Deploy1.App       while the app exists
//! /sh/temps/Deploy1/job/ID      sh.temps.Deploy1.Job       while it is under way, whoever began it
//! ```
//!
//! Every local user may read and hear all of this, so nothing secret is ever here: no variables, no
//! logs, nothing that an app or a build printed. What changes something asks
//! [`temps_unit::bus::authority`]. Only an installed system has it; `temps up` has no bus.

mod app;
mod board;
mod job;
mod manager;
mod shown;

use crate::engine::Engine;
use async_trait::async_trait;
use board::Board;
use std::sync::Arc;
use temps_unit::bus::{Bus, Place, Service};
use temps_unit::idle::Idle;
use temps_unit::task::Supervisor;
use zbus::Connection;

/// The name on the bus.
pub const NAME: &str = "sh.temps.Deploy1";

/// The object of deployd itself.
pub const ROOT: &str = "/sh/temps/Deploy1";

/// Brings deployd to the bus, now or when there is one.
pub fn start(engine: &Engine, idle: &Idle, place: Place, supervisor: &Supervisor) -> Bus {
    let board = Board::new(engine.clone(), idle.clone());
    let service = Deploy {
        board: Arc::new(board),
    };
    Bus::start(Arc::new(service), place, idle.clone(), supervisor)
}

struct Deploy {
    board: Arc<Board>,
}

#[async_trait]
impl Service for Deploy {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn register(&self, connection: &Connection) -> zbus::Result<()> {
        let server = connection.object_server();
        server.at(ROOT, zbus::fdo::ObjectManager).await?;
        let manager = manager::Manager::new(Arc::clone(&self.board));
        server.at(ROOT, manager).await?;
        self.board.begin(connection).await
    }

    async fn follow(&self, connection: &Connection) -> zbus::Error {
        self.board.follow(connection).await
    }
}
