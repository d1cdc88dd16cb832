//! The variables of apps: sealed in the database, opened only to start an instance or to show them
//! to an operator who asks.

use super::Engine;
use super::instance::seal_fault;
use crate::store::{RowError, app, audit};
use temps_ipc::Fault;
use temps_ipc::types::{Actor, AppName, EnvName, EnvVar};

/// Most variables of one app.
const MAX_VARIABLES: usize = 500;

/// Most bytes of all variables of one app: they are passed to exec(2) together, and are listed in
/// one frame.
const MAX_BYTES: usize = 512 * 1024;

impl Engine {
    /// Sets variables for the next release; the app is made if it is new.
    ///
    /// # Errors
    /// `Invalid` beyond the limits; when the database fails.
    pub async fn env_set(
        &self,
        name: AppName,
        variables: Vec<EnvVar>,
        actor: Actor,
        uid: u32,
    ) -> Result<(), Fault> {
        let app = self.app_or_new(&name).await?;
        let mut all = self.env_of(&app.id).await?;
        all.retain(|old| variables.iter().all(|new| new.name != old.name));
        all.extend(variables.iter().cloned());
        let bytes: usize = all
            .iter()
            .map(|one| one.name.as_str().len() + one.value.reveal().len())
            .sum();
        if all.len() > MAX_VARIABLES || bytes > MAX_BYTES {
            return Err(Fault::invalid(format!(
                "an app can have at most {MAX_VARIABLES} variables with {} KiB in all",
                MAX_BYTES / 1024
            )));
        }
        let mut sealed = Vec::with_capacity(variables.len());
        for variable in &variables {
            let value = self
                .seal
                .seal_variable(app.id.as_str(), &variable.name, &variable.value)
                .map_err(|error| seal_fault(&error))?;
            sealed.push((variable.name.clone(), value));
        }
        self.store
            .change(move |tx| {
                let mut names = Vec::new();
                for (name, value) in &sealed {
                    app::put_env(tx, &app.id, name, value)?;
                    names.push(name.as_str());
                }
                audit::record(tx, uid, &actor, "env set", name.as_str(), &names.join(" "))
            })
            .await?;
        Ok(())
    }

    /// Unsets variables.
    ///
    /// # Errors
    /// `NotFound` names those that are not set; then nothing was changed.
    pub async fn env_unset(
        &self,
        name: AppName,
        names: Vec<EnvName>,
        actor: Actor,
        uid: u32,
    ) -> Result<(), Fault> {
        self.store
            .change(move |tx| {
                let app = app::get(tx, &name)?;
                let mut missing = Vec::new();
                for variable in &names {
                    if !app::remove_env(tx, &app.id, variable)? {
                        missing.push(variable.as_str());
                    }
                }
                if !missing.is_empty() {
                    return Err(RowError::Missing(format!(
                        "`{name}` has no {}",
                        missing.join(", ")
                    )));
                }
                let names: Vec<&str> = names.iter().map(EnvName::as_str).collect();
                audit::record(
                    tx,
                    uid,
                    &actor,
                    "env unset",
                    name.as_str(),
                    &names.join(" "),
                )
            })
            .await?;
        Ok(())
    }

    /// The app's variables with their values.
    ///
    /// # Errors
    /// `NotFound`; `Config` if they were sealed under another key.
    pub async fn env_list(&self, name: AppName) -> Result<Vec<EnvVar>, Fault> {
        let app = self.store.read(move |db| app::get(db, &name)).await?;
        self.env_of(&app.id).await
    }
}
