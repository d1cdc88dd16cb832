//! Failpoints: with the cargo feature `failpoints`, a test can stop or kill the daemon at every
//! transition of a deployment. Without it, [`hit`] is nothing.
//!
//! The directory named by `TEMPS_FAILPOINTS` holds a file per failpoint to trigger, named
//! `PHASE.MOMENT` (`starting.before`, `starting.after`): `before` is after the phase was written
//! and before its effect, `after` is after the effect and before the next phase is written. Content
//! `kill` ends the daemon by SIGKILL once; `pause` makes it wait until the file is gone, shown by a
//! file `PHASE.MOMENT.paused`. Every failpoint that is passed is a line of the file `hits`.

/// A failpoint is passed.
#[cfg(not(feature = "failpoints"))]
pub async fn hit(_phase: &str, _moment: &str) {}

/// A failpoint is passed.
#[cfg(feature = "failpoints")]
pub async fn hit(phase: &str, moment: &str) {
    use std::io::Write;
    use std::path::PathBuf;
    use std::time::Duration;

    let Some(directory) = std::env::var_os("TEMPS_FAILPOINTS").map(PathBuf::from) else {
        return;
    };
    let name = format!("{phase}.{moment}");
    if let Ok(mut hits) = std::fs::File::options()
        .append(true)
        .create(true)
        .open(directory.join("hits"))
    {
        let _ = writeln!(hits, "{name}");
    }
    let trigger = directory.join(&name);
    match std::fs::read_to_string(&trigger).as_deref().map(str::trim) {
        Ok("kill") => {
            // Removed first, so that the next start passes.
            let _ = std::fs::remove_file(&trigger);
            let _ =
                nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
            std::future::pending::<()>().await;
        }
        Ok("pause") => {
            let paused = directory.join(format!("{name}.paused"));
            let _ = std::fs::write(&paused, "");
            while trigger.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _ = std::fs::remove_file(&paused);
        }
        _ => {}
    }
}
