//! The helper's side: it answers main processes, and knows when it is needed no more.

use super::line::Line;
use super::{ABANDONED, Answer, Word};
use crate::engine::Engine;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::sync::Arc;
use std::time::Duration;
use temps_unit::authz::Peer;
use temps_unit::watchdog::Ticker;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Connections at once: there is one main process, at most two for a moment.
const CONNECTIONS: usize = 16;

/// A connection that says nothing at first is none of ours.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// Pause after accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where the helper is called. Shared by its connections.
#[derive(Debug)]
pub struct Desk {
    engine: Arc<Engine>,
    /// Both at once, so that nobody is promised what another takes back.
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct State {
    /// Main processes that want it to stay.
    holds: usize,
    /// What is answered to one that asks it to.
    stage: Answer,
}

/// A main process that wants the helper to stay.
struct Held<'a>(&'a Desk);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.holds -= 1);
    }
}

impl Desk {
    /// A desk for what `engine` serves.
    pub fn new(engine: Arc<Engine>) -> Self {
        let state = State {
            holds: 0,
            stage: Answer::Serving,
        };
        Self {
            engine,
            state: watch::Sender::new(state),
        }
    }

    /// Everything is being stopped: it drains, and nobody can have another.
    pub fn stopping(&self) {
        self.state
            .send_modify(|state| state.stage = Answer::Stopping);
    }

    /// Waits until it was told to leave, or nobody wants it to stay any more.
    pub async fn dismissed(&self) {
        let mut states = self.state.subscribe();
        // The sender is ours, so no wait fails.
        loop {
            let _ = states
                .wait_for(|state| state.holds == 0 || state.stage != Answer::Serving)
                .await;
            let waiting =
                states.wait_for(|state| state.holds > 0 || state.stage != Answer::Serving);
            let is_abandoned = timeout(ABANDONED, waiting).await.is_err();
            if is_abandoned && self.leave() == Answer::Leaving {
                tracing::warn!("no main process holds the helper; it ends");
            }
            if self.state.borrow().stage != Answer::Serving {
                return;
            }
        }
    }

    /// Begins to hold it, if it stays.
    fn hold(&self) -> Option<Held<'_>> {
        let mut is_held = false;
        self.state.send_modify(|state| {
            is_held = state.stage == Answer::Serving;
            state.holds += usize::from(is_held);
        });
        is_held.then(|| Held(self))
    }

    /// Ends it, unless somebody holds it.
    fn leave(&self) -> Answer {
        let mut stage = Answer::Leaving;
        self.state.send_modify(|state| {
            if state.holds == 0 && state.stage == Answer::Serving {
                state.stage = Answer::Leaving;
            }
            stage = state.stage;
        });
        stage
    }

    /// Answers until `over`; first the one whose call has started us.
    ///
    /// # Errors
    /// Only if the listener itself is unusable.
    pub async fn answer(
        self: Arc<Self>,
        listener: UnixListener,
        caller: Option<StdUnixStream>,
        mut alive: Ticker,
        over: CancellationToken,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        if let Some(caller) = caller {
            caller.set_nonblocking(true)?;
            let line = Line::new(UnixStream::from_std(caller)?);
            let (desk, over) = (Arc::clone(&self), over.clone());
            tokio::spawn(async move {
                over.run_until_cancelled(desk.converse(line, Some(Word::Stay)))
                    .await;
            });
        }
        loop {
            let accepted = tokio::select! {
                () = over.cancelled() => return Ok(()),
                () = alive.tick() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    // More than that are not main processes.
                    let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                        continue;
                    };
                    let (desk, over) = (Arc::clone(&self), over.clone());
                    tokio::spawn(async move {
                        over.run_until_cancelled(desk.greet(stream)).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the helper cannot be called for the moment");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn greet(&self, stream: UnixStream) {
        // The socket's mode says the same; but who is in doubt asks the kernel.
        let own = nix::unistd::geteuid().as_raw();
        if !Peer::of(&stream).is_ok_and(|peer| peer.uid == own || peer.uid == 0) {
            return;
        }
        let mut line = Line::new(stream);
        let Ok(Ok(Some(first))) = timeout(FIRST_WORD, line.next()).await else {
            return;
        };
        self.converse(line, Word::read(&first)).await;
    }

    async fn converse(&self, mut line: Line, mut next: Option<Word>) {
        let mut held = None;
        while let Some(word) = next {
            let answer = match word {
                Word::Stay => {
                    held = held.or_else(|| self.hold());
                    self.state.borrow().stage
                }
                Word::Leave => {
                    held = None;
                    self.leave()
                }
                Word::Leases(id) => Answer::Leases(self.engine.leases(&id)),
            };
            if line.send(&answer.text()).await.is_err() {
                return;
            }
            next = line
                .next()
                .await
                .ok()
                .flatten()
                .as_deref()
                .and_then(Word::read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::client::{Helper, NoHelper};
    use crate::handover::sockets::Sockets;
    use crate::store::Store;
    use temps_unit::watchdog::Watchdog;
    use tokio::time::Instant;

    struct Bench {
        desk: Arc<Desk>,
        helper: Helper,
        over: CancellationToken,
        _dir: tempfile::TempDir,
    }

    fn sockets() -> Sockets {
        let http = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Sockets::of(&[http], &[]).unwrap()
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("handover.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let desk = Arc::new(Desk::new(Arc::new(Engine::new(Store::new(dir.path())))));
        let over = CancellationToken::new();
        let alive = Watchdog::new(None).register("handover").ticker();
        tokio::spawn(Arc::clone(&desk).answer(listener, None, alive, over.clone()));
        Bench {
            desk,
            helper: Helper::new(socket),
            over,
            _dir: dir,
        }
    }

    #[tokio::test]
    async fn it_stays_while_it_is_held_and_leaves_when_it_is_told() {
        let bench = bench();
        let hold = bench
            .helper
            .summon(Duration::from_secs(5), &sockets())
            .await
            .unwrap();
        let dismissed = tokio::spawn({
            let desk = Arc::clone(&bench.desk);
            async move { desk.dismissed().await }
        });
        tokio::task::yield_now().await;
        assert!(!dismissed.is_finished());
        let released = tokio::spawn(hold.release());
        dismissed.await.unwrap();
        assert!(!released.is_finished(), "it waits for the end");
        bench.over.cancel();
        released.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_nobody_holds_any_more_leaves_by_itself() {
        let desk = bench().desk;
        let held = desk.hold().unwrap();
        let begun = Instant::now();
        let held_for = ABANDONED * 3;
        let (_, ()) = tokio::join!(desk.dismissed(), async {
            sleep(held_for).await;
            drop(held);
            sleep(ABANDONED / 2).await;
            // The next one comes before it is too late.
            let again = desk.hold().unwrap();
            sleep(held_for).await;
            drop(again);
        });
        assert_eq!(begun.elapsed(), held_for * 2 + ABANDONED / 2 + ABANDONED);
    }

    #[tokio::test]
    async fn one_that_is_stopped_serves_nobody_any_more() {
        let bench = bench();
        bench.desk.stopping();
        let refused = bench
            .helper
            .summon(Duration::from_secs(5), &sockets())
            .await;
        let why = refused.unwrap_err();
        assert!(matches!(why, NoHelper::Stopping), "{why}");
        assert!(bench.helper.meet().await.is_none());
    }

    #[tokio::test]
    async fn who_was_promised_that_it_stays_is_not_left_by_anothers_leave() {
        let bench = bench();
        let patience = Duration::from_secs(5);
        let first = bench.helper.summon(patience, &sockets()).await.unwrap();
        let second = bench.helper.summon(patience, &sockets()).await.unwrap();
        first.release().await;
        assert!(bench.desk.hold().is_some(), "it serves");
        drop(second);
    }

    #[tokio::test]
    async fn no_helper_is_no_reason_to_wait() {
        let missing = Helper::new("/no/such/socket");
        assert!(
            missing
                .summon(Duration::from_secs(60), &sockets())
                .await
                .is_err()
        );
        assert!(missing.meet().await.is_none());
    }
}
