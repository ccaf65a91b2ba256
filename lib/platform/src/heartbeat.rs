//! Heartbeat: the sign of life of a long-running loop.
//!
//! A loop says when it begins to work, that it gets on, and when it rests. One that works without getting on makes its
//! process unready, and its supervisor starts it again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use metrics::{counter, gauge};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::error;

use crate::clock;
use crate::shutdown::CancellationToken;
use crate::unready::Unready;

/// A loop that works for this long without getting on is stalled.
pub const STALLED_AFTER: Duration = Duration::from_secs(30);
/// How often a supervisor looks, as a part of the limit.
const LOOKS_PER_LIMIT: u32 = 60;
/// Pause before a loop starts again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How often the metric of a loop that gets on is set.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// The sign of life of one loop; clones share it.
#[derive(Debug, Clone)]
pub struct Heartbeat(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: &'static str,
    stalled_after: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the loop last got on with its present work; `None` while it rests.
    working: Option<Instant>,
    /// Since when all its work has failed, and why.
    failing: Option<(Instant, String)>,
    published: Option<Instant>,
}

impl Heartbeat {
    /// Makes the heartbeat of a loop; the name stands in `/readyz` and in metrics.
    pub fn new(name: &'static str) -> Heartbeat {
        Heartbeat::with_limit(name, STALLED_AFTER)
    }

    /// Makes a heartbeat with a limit of its own.
    pub fn with_limit(name: &'static str, stalled_after: Duration) -> Heartbeat {
        Heartbeat(Arc::new(Shared { name, stalled_after, state: Mutex::default() }))
    }

    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// The loop begins a piece of work, or gets on with it.
    pub fn beat(&self) {
        let mut state = self.lock();
        state.working = Some(Instant::now());
        self.publish(&mut state);
    }

    /// The loop has done its work, and waits for more.
    pub fn rest(&self) {
        let mut state = self.lock();
        state.working = None;
        state.failing = None;
        self.publish(&mut state);
    }

    /// The loop's work has failed; it pauses and tries again.
    pub fn fail(&self, why: impl Into<String>) {
        let mut state = self.lock();
        state.working = None;
        let since = state.failing.take().map_or_else(Instant::now, |(since, _)| since);
        state.failing = Some((since, why.into()));
    }

    /// Returns what is wrong with the loop: it is stalled, or its work has failed for as long.
    pub fn problem(&self) -> Option<String> {
        let state = self.lock();
        let limit = self.0.stalled_after;
        if let Some(stalled) = state.working.map(|last| last.elapsed()).filter(|since| *since > limit) {
            return Some(format!("no progress for {} s", stalled.as_secs()));
        }
        let (since, why) = state.failing.as_ref()?;
        (since.elapsed() > limit).then(|| format!("fails for {} s: {why}", since.elapsed().as_secs()))
    }

    /// Returns a readiness check that fails while the loop is stalled or failing.
    pub fn check(&self) -> impl Fn() -> std::future::Ready<Result<(), Unready>> + Send + Sync + 'static {
        let heartbeat = self.clone();
        move || std::future::ready(heartbeat.judge())
    }

    /// Why work fails may quote the database or the broker, so it is for the log alone.
    pub fn judge(&self) -> Result<(), Unready> {
        match self.problem() {
            Some(stalled) if self.is_stalled() => Err(Unready::new("stalled", stalled)),
            Some(failing) => Err(Unready::because("failing", failing)),
            None => Ok(()),
        }
    }

    fn is_stalled(&self) -> bool {
        self.lock().working.is_some_and(|last| last.elapsed() > self.0.stalled_after)
    }

    /// Completes once the loop is stalled.
    pub async fn stalled(&self) {
        while !self.is_stalled() {
            sleep(self.0.stalled_after / LOOKS_PER_LIMIT).await;
        }
    }

    fn publish(&self, state: &mut State) {
        let now = Instant::now();
        if state.published.is_some_and(|last| now - last < PUBLISH_EVERY) {
            return;
        }
        state.published = Some(now);
        let seconds = clock::now().micros() as f64 / 1e6;
        gauge!("ledger_loop_progress_timestamp_seconds", "loop" => self.0.name).set(seconds);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a loop until it ends, and starts it again if it stalls or panics.
///
/// A stalled loop is dropped, so its transactions must run on tasks of their own.
pub async fn supervise<F, T>(
    heartbeat: Heartbeat,
    shutdown: CancellationToken,
    mut start: impl FnMut() -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = T> + Send + 'static,
    T: Into<Ended> + Send + 'static,
{
    loop {
        let mut running = AbortOnDropHandle::new(tokio::spawn(start().map(Into::into)));
        let why = tokio::select! {
            ended = &mut running => match ended {
                Ok(Ended(ended)) => return ended,
                Err(failure) if failure.is_panic() => "it panicked",
                // Only when the process is ending.
                Err(_) => return Ok(()),
            },
            () = heartbeat.stalled() => "it made no progress",
        };
        error!(name = heartbeat.name(), why, "a loop is started again");
        counter!("ledger_loop_restarts_total", "loop" => heartbeat.name()).increment(1);
        drop(running);
        heartbeat.fail(why);
        tokio::select! {
            () = sleep(RESTART_PAUSE) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// How a loop ended by itself: at a shutdown, or with an error that no retry helps.
pub struct Ended(anyhow::Result<()>);

impl From<()> for Ended {
    fn from((): ()) -> Ended {
        Ended(Ok(()))
    }
}

impl<E> From<Result<(), E>> for Ended
where
    anyhow::Error: From<E>,
{
    fn from(ended: Result<(), E>) -> Ended {
        Ended(ended.map_err(Into::into))
    }
}

tokio::task_local! {
    static CURRENT: Pulse;
}

/// The heartbeat of one transaction: also beats for the loop that runs it.
#[derive(Debug, Clone)]
pub struct Pulse {
    own: Heartbeat,
    of_loop: Option<Heartbeat>,
}

impl Pulse {
    /// Makes the pulse of work that is silent after this time.
    pub fn new(of_loop: Option<Heartbeat>, silent_after: Duration) -> Pulse {
        let own = Heartbeat::with_limit("transaction", silent_after);
        own.lock().working = Some(Instant::now());
        Pulse { own, of_loop }
    }

    /// Runs work that beats by [`beat`]; `None` if it falls silent, and is then dropped where it stands.
    pub async fn watch<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = CURRENT.scope(self.clone(), work) => Some(done),
            () = self.own.stalled() => None,
        }
    }

    fn beat(&self) {
        self.own.lock().working = Some(Instant::now());
        if let Some(of_loop) = &self.of_loop {
            of_loop.beat();
        }
    }
}

/// Says that the work of this task gets on, where somebody watches it.
pub fn beat() {
    let _ = CURRENT.try_with(Pulse::beat);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Long enough for a machine that is busy with other tests.
    const LIMIT: Duration = Duration::from_millis(400);
    const SHORT: Duration = Duration::from_millis(10);

    fn heartbeat() -> Heartbeat {
        Heartbeat::with_limit("folding", LIMIT)
    }

    #[tokio::test]
    async fn a_loop_is_stalled_only_while_it_works_without_getting_on() {
        let heartbeat = heartbeat();
        sleep(LIMIT + SHORT).await;
        assert_eq!(heartbeat.problem(), None, "it has not begun");
        heartbeat.beat();
        assert_eq!(heartbeat.problem(), None);
        sleep(LIMIT + SHORT).await;
        assert_eq!(heartbeat.problem().as_deref(), Some("no progress for 0 s"));
        heartbeat.beat();
        assert_eq!(heartbeat.problem(), None, "it got on");
        heartbeat.rest();
        sleep(LIMIT + SHORT).await;
        assert_eq!(heartbeat.problem(), None, "it has nothing to do");
    }

    #[tokio::test]
    async fn a_loop_whose_work_fails_for_long_says_why_until_it_succeeds() {
        let heartbeat = heartbeat();
        heartbeat.fail("away");
        assert_eq!(heartbeat.problem(), None);
        sleep(LIMIT + SHORT).await;
        heartbeat.beat();
        heartbeat.fail("still away");
        assert_eq!(heartbeat.problem().as_deref(), Some("fails for 0 s: still away"));
        heartbeat.rest();
        assert_eq!(heartbeat.problem(), None);
    }

    #[tokio::test]
    async fn a_stalled_or_panicking_loop_is_started_again_until_it_ends_by_itself() {
        let (heartbeat, starts) = (heartbeat(), Arc::new(AtomicUsize::new(0)));
        let (beats, counted) = (heartbeat.clone(), Arc::clone(&starts));
        supervise(heartbeat, CancellationToken::new(), move || {
            let (beats, start) = (beats.clone(), counted.fetch_add(1, Ordering::Relaxed));
            async move {
                beats.beat();
                match start {
                    0 => std::future::pending().await,
                    1 => panic!("a bug"),
                    _ => beats.rest(),
                }
            }
        })
        .await
        .expect("ended");
        assert_eq!(starts.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn work_that_beats_may_take_long_and_silent_work_is_dropped() {
        let pulse = Pulse::new(None, LIMIT);
        let slow = async {
            for _ in 0..20 {
                sleep(LIMIT / 10).await;
                beat();
            }
        };
        assert_eq!(pulse.watch(slow).await, Some(()));
        assert_eq!(pulse.watch(std::future::pending::<()>()).await, None);
    }
}
