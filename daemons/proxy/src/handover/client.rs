//! The main process's side: it asks the helper to stay, and later to leave.

use super::line::Line;
use super::sockets::Sockets;
use super::{Answer, Word};
use crate::engine::Engine;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use temps_ipc::id::InstanceId;
use temps_ipc::rpc::Drain;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

/// How long a helper may take to start. A machine that needs longer has other worries, and the
/// drain must not be put off for ever.
const START: Duration = Duration::from_secs(10);

/// How long a running helper may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Between two questions to the helper about the leases of a target.
const AGAIN: Duration = Duration::from_millis(100);

/// Why there is no helper.
#[derive(Debug, thiserror::Error)]
pub enum NoHelper {
    /// Its socket is not there, or its process ended.
    #[error("it cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    /// It ended before it answered, twice.
    #[error("it does not start")]
    NoStart,
    /// It did not answer in time.
    #[error("it does not answer")]
    Silent,
    /// Everything is being stopped.
    #[error("it is being stopped, too")]
    Stopping,
    /// It does not speak as a helper does.
    #[error("it gave an answer that is none")]
    Nonsense,
}

/// Where the helper listens.
#[derive(Debug, Clone)]
pub struct Helper {
    socket: PathBuf,
}

/// A helper that serves, and goes on until this is dropped.
#[derive(Debug)]
pub struct Hold(Line);

impl Helper {
    /// The helper behind `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Has a helper serve, on `sockets` if it is to be started. One that is just leaving is waited
    /// for, at most `patience`: the next can only be started after its end.
    ///
    /// # Errors
    /// If there is none to be had; the restart goes on without.
    pub async fn summon(&self, patience: Duration, sockets: &Sockets) -> Result<Hold, NoHelper> {
        let deadline = Instant::now() + patience;
        let mut ended = 0;
        loop {
            let mut line = Line::connect(&self.socket).await?;
            match call(&mut line, sockets).await {
                Ok(Answer::Serving) => return Ok(Hold(line)),
                Ok(Answer::Leaving) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let end = timeout(left, line.ended()).await;
                    end.map_err(|_| NoHelper::Silent)?;
                }
                Ok(Answer::Stopping) => return Err(NoHelper::Stopping),
                Ok(Answer::Leases(_)) => return Err(NoHelper::Nonsense),
                // It may have ended in the moment in which it was called.
                Err(NoHelper::NoStart) if ended == 0 => ended += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes hold of the helper that is there already; nothing if it cannot be reached, or leaves.
    pub async fn meet(&self) -> Option<Hold> {
        let met = async {
            let mut line = Line::connect(&self.socket).await?;
            let answer = ask(&mut line, &Word::Stay, ANSWER).await?;
            Ok::<_, NoHelper>((answer == Answer::Serving).then_some(Hold(line)))
        };
        match met.await {
            Ok(hold) => hold,
            Err(error) => {
                tracing::warn!(%error, "the helper of the restart was not met");
                None
            }
        }
    }

    async fn leases(&self, target: &InstanceId) -> Result<u64, NoHelper> {
        let mut line = Line::connect(&self.socket).await?;
        match ask(&mut line, &Word::Leases(target.clone()), ANSWER).await? {
            Answer::Leases(count) => Ok(count),
            _ => Err(NoHelper::Nonsense),
        }
    }
}

impl Hold {
    /// Has the helper drain and end, and waits for its end.
    pub async fn release(mut self) {
        let begun = Instant::now();
        match ask(&mut self.0, &Word::Leave, ANSWER).await {
            // It is held again: the next restart has begun.
            Ok(Answer::Serving) => return,
            Ok(_) => self.0.ended().await,
            Err(error) => tracing::warn!(%error, "the helper of the restart was not told to leave"),
        }
        tracing::info!(
            seconds = begun.elapsed().as_secs_f32(),
            "the helper of the restart has ended"
        );
    }
}

/// Asks one to stay that may have to be started by this, and then serves on `sockets`.
async fn call(line: &mut Line, sockets: &Sockets) -> Result<Answer, NoHelper> {
    let called = async {
        line.pass(sockets).await?;
        line.next().await
    };
    answer(timeout(START, called).await)
}

async fn ask(line: &mut Line, word: &Word, patience: Duration) -> Result<Answer, NoHelper> {
    let asked = async {
        line.send(&word.text()).await?;
        line.next().await
    };
    answer(timeout(patience, asked).await)
}

fn answer(said: Result<io::Result<Option<String>>, Elapsed>) -> Result<Answer, NoHelper> {
    let answer = match said {
        Err(_) => return Err(NoHelper::Silent),
        Ok(Ok(Some(answer))) => answer,
        // Ended in the moment in which it was called.
        Ok(Ok(None)) => return Err(NoHelper::NoStart),
        Ok(Err(error)) if is_end(&error) => return Err(NoHelper::NoStart),
        Ok(Err(error)) => return Err(error.into()),
    };
    Answer::read(&answer).ok_or(NoHelper::Nonsense)
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Who may send requests to a target: this process, and the helper while there is one.
#[derive(Debug, Clone)]
pub struct Everybody {
    engine: Arc<Engine>,
    helper: Option<Helper>,
}

impl Everybody {
    /// This process's `engine`, and the helper if there can be one.
    pub fn new(engine: Arc<Engine>, helper: Option<Helper>) -> Self {
        Self { engine, helper }
    }

    /// Waits at most `patience` until no process has a request in flight to `target`.
    pub async fn drained(&self, target: &InstanceId, patience: Duration) -> Drain {
        let deadline = Instant::now() + patience;
        let mut drain = self.engine.drained(target, patience).await;
        loop {
            let elsewhere = self.elsewhere(target).await;
            let is_over = Instant::now() + AGAIN > deadline;
            if elsewhere == 0 || is_over {
                drain.leases += elsewhere;
                return drain;
            }
            sleep(AGAIN).await;
        }
    }

    /// Leases in the helper. One that lives and does not say counts as one.
    async fn elsewhere(&self, target: &InstanceId) -> u64 {
        let Some(helper) = &self.helper else {
            return 0;
        };
        // Not asked unless it lives: a call would start it.
        if !self.engine.is_helped().await {
            return 0;
        }
        match helper.leases(target).await {
            Ok(count) => count,
            Err(error) => {
                tracing::debug!(%error, "the helper does not say what it serves");
                u64::from(self.engine.is_helped().await)
            }
        }
    }
}
