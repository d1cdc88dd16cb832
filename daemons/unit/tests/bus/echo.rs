//! A daemon with one object.

use std::time::Duration;
use temps_unit::bus::Service;
use temps_unit::bus::authority::authorise;
use temps_unit::bus::failure::Failure;
use zbus::message::Header;
use zbus::{Connection, interface};

/// Any name that the policy files let us own.
pub const NAME: &str = "sh.temps.Deploy1";
pub const PATH: &str = "/sh/temps/Echo1";

/// Tells an activated daemon its bus.
pub const ADDRESS: &str = "TEMPS_TEST_BUS";

pub struct Echo;

#[async_trait::async_trait]
impl Service for Echo {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn register(&self, connection: &Connection) -> zbus::Result<()> {
        // Whoever requests the name first loses calls here.
        tokio::time::sleep(Duration::from_millis(20)).await;
        connection.object_server().at(PATH, Object).await?;
        Ok(())
    }

    async fn follow(&self, _: &Connection) -> zbus::Error {
        std::future::pending().await
    }
}

struct Object;

#[interface(name = "sh.temps.Echo1")]
impl Object {
    async fn echo(&self, wait_ms: u64, number: u32) -> u32 {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        number
    }

    async fn process(&self) -> u32 {
        std::process::id()
    }

    /// Who was allowed to do `sh.temps.echo`.
    async fn guarded(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Failure> {
        let caller = authorise(connection, &header, "sh.temps.echo", &[]).await?;
        Ok(format!("{} by {}", caller.actor.name, caller.actor.via))
    }
}

pub async fn ask(client: &Connection, number: u32) -> zbus::Result<u32> {
    slowly(client, 0, number).await
}

pub async fn slowly(client: &Connection, wait_ms: u64, number: u32) -> zbus::Result<u32> {
    let (interface, question) = (Some("sh.temps.Echo1"), (wait_ms, number));
    let call = client.call_method(Some(NAME), PATH, interface, "Echo", &question);
    call.await?.body().deserialize()
}

pub async fn process(client: &Connection) -> zbus::Result<u32> {
    let interface = Some("sh.temps.Echo1");
    let call = client.call_method(Some(NAME), PATH, interface, "Process", &());
    call.await?.body().deserialize()
}
