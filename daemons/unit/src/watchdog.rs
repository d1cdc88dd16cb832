//! Proof of life for `WatchdogSec=`: a ping only while every engine task has moved.
//!
//! A timer that pings proves that the timer runs. So each engine task registers a heartbeat and
//! beats from its own loop; the ping is sent at half the interval, and only if all of them have
//! beaten since the ping before. A task that hangs, or whose heartbeat was dropped, stops the pings;
//! the manager then ends the process with SIGABRT and starts it again.

use crate::notify;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// While a heartbeat is late, it is looked for this many times per watchdog interval, so that a task
/// that was only slow is noticed well before the deadline.
const CHECKS_PER_INTERVAL: u32 = 16;

/// The set of heartbeats. Clones are one watchdog.
#[derive(Debug, Clone)]
pub struct Watchdog {
    /// `None`: the manager does not watch.
    interval: Option<Duration>,
    pulses: Arc<Mutex<Vec<Arc<Pulse>>>>,
}

#[derive(Debug)]
struct Pulse {
    name: &'static str,
    beaten: AtomicBool,
}

impl Watchdog {
    /// The watchdog this process was started with (`WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub fn from_env() -> Self {
        Self::new(sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero()))
    }

    /// A watchdog with a given interval; `None` never pings.
    pub fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            pulses: Arc::default(),
        }
    }

    /// Adds a task that must be alive. The heartbeat counts as beaten once, now.
    pub fn register(&self, name: &'static str) -> Heartbeat {
        let pulse = Arc::new(Pulse {
            name,
            beaten: AtomicBool::new(true),
        });
        self.lock().push(Arc::clone(&pulse));
        Heartbeat {
            watchdog: self.clone(),
            pulse,
        }
    }

    /// Pings until `stop` is cancelled.
    ///
    /// `stop` is not the shutdown token: a drain is watched too, so it is cancelled after it.
    pub async fn run(self, stop: CancellationToken) {
        self.run_with(stop, notify::watchdog).await;
    }

    async fn run_with(self, stop: CancellationToken, ping: impl Fn()) {
        let Some(full) = self.interval else {
            return stop.cancelled().await;
        };
        loop {
            if stop
                .run_until_cancelled(tokio::time::sleep(full / 2))
                .await
                .is_none()
            {
                return;
            }
            let mut reported = false;
            while let Err(stale) = self.take_beats() {
                if !reported {
                    tracing::warn!(
                        task = stale,
                        "a task does not move; the watchdog is not pinged"
                    );
                    reported = true;
                }
                let pause = tokio::time::sleep(full / CHECKS_PER_INTERVAL);
                if stop.run_until_cancelled(pause).await.is_none() {
                    return;
                }
            }
            ping();
        }
    }

    /// Consumes one beat of everybody, or names one who has not beaten and consumes none.
    fn take_beats(&self) -> Result<(), &'static str> {
        let pulses = self.lock();
        match pulses
            .iter()
            .find(|pulse| !pulse.beaten.load(Ordering::Acquire))
        {
            Some(stale) => Err(stale.name),
            None => {
                for pulse in pulses.iter() {
                    pulse.beaten.store(false, Ordering::Release);
                }
                Ok(())
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Pulse>>> {
        // The list is consistent between any two statements, so poison means nothing here.
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right and duty of one task to say that it is alive.
///
/// Dropping it without [`Heartbeat::retire`] is what a task does that dies: pings stop.
#[derive(Debug)]
pub struct Heartbeat {
    watchdog: Watchdog,
    pulse: Arc<Pulse>,
}

impl Heartbeat {
    /// The task has moved.
    pub fn beat(&self) {
        self.pulse.beaten.store(true, Ordering::Release);
    }

    /// The task ends as intended and is no longer watched.
    pub fn retire(self) {
        let mut pulses = self.watchdog.lock();
        pulses.retain(|pulse| !Arc::ptr_eq(pulse, &self.pulse));
    }

    /// A ticker for the engine's own `select!` loop that is often enough for the watchdog and never
    /// ticks where nobody watches, so that an idle daemon sleeps.
    pub fn ticker(self) -> Ticker {
        // A quarter: two chances between two pings.
        let interval = self.watchdog.interval.map(|full| every(full / 4));
        Ticker {
            heartbeat: self,
            interval,
        }
    }

    /// A ticker with a period of its own, for a loop that wakes up anyway.
    ///
    /// It must be shorter than half the watchdog interval. Panics if `period` is zero.
    pub fn every(self, period: Duration) -> Ticker {
        Ticker {
            heartbeat: self,
            interval: Some(every(period)),
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Beats whenever the loop it is polled in comes round.
#[derive(Debug)]
pub struct Ticker {
    heartbeat: Heartbeat,
    interval: Option<Interval>,
}

impl Ticker {
    /// Waits for the next tick and beats. Safe to cancel: belongs into the engine's `select!`.
    pub async fn tick(&mut self) {
        match &mut self.interval {
            Some(interval) => {
                interval.tick().await;
                self.heartbeat.beat();
            }
            None => std::future::pending().await,
        }
    }

    /// The heartbeat, to beat also on other occasions.
    pub fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }

    /// The task ends as intended and is no longer watched.
    pub fn retire(self) {
        self.heartbeat.retire();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use tokio::time::{Instant, sleep};

    const FULL: Duration = Duration::from_secs(30);

    struct Run {
        watchdog: Watchdog,
        pings: Arc<AtomicUsize>,
        stop: CancellationToken,
    }

    fn start() -> Run {
        let watchdog = Watchdog::new(Some(FULL));
        let pings = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let counter = Arc::clone(&pings);
        tokio::spawn(watchdog.clone().run_with(stop.clone(), move || {
            counter.fetch_add(1, Ordering::SeqCst);
        }));
        Run {
            watchdog,
            pings,
            stop,
        }
    }

    impl Run {
        fn pings(&self) -> usize {
            self.pings.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pings_come_at_half_the_interval_while_all_tasks_beat() {
        let run = start();
        for name in ["a", "b"] {
            let mut ticker = run.watchdog.register(name).ticker();
            tokio::spawn(async move {
                loop {
                    ticker.tick().await;
                }
            });
        }
        sleep(FULL * 10 + Duration::from_secs(1)).await;
        assert_eq!(run.pings(), 20);
        run.stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn one_task_that_hangs_stops_the_pings() {
        let run = start();
        let mut alive = run.watchdog.register("alive").ticker();
        tokio::spawn(async move {
            loop {
                alive.tick().await;
            }
        });
        let hanging = run.watchdog.register("hanging");
        sleep(FULL * 5).await;
        assert_eq!(run.pings(), 1, "registration counts once");
        hanging.beat();
        sleep(FULL / 8).await;
        assert_eq!(run.pings(), 2, "a late beat is noticed soon");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_heartbeat_is_a_dead_task_and_a_retired_one_is_not() {
        let run = start();
        run.watchdog.register("retired").retire();
        sleep(FULL * 2 + Duration::from_secs(1)).await;
        assert_eq!(run.pings(), 4);
        drop(run.watchdog.register("dropped"));
        sleep(FULL * 4).await;
        assert_eq!(run.pings(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watchdog_nothing_wakes_up() {
        let watchdog = Watchdog::new(None);
        let mut ticker = watchdog.register("x").ticker();
        let begin = Instant::now();
        let waited = tokio::time::timeout(Duration::from_secs(3600), ticker.tick()).await;
        assert!(waited.is_err());
        assert_eq!(begin.elapsed(), Duration::from_secs(3600));
    }
}
