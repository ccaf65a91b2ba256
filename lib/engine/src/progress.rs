//! Progress of the live generation: wakes requests that wait for a position, and knows which generation is live.
//!
//! One connection listens for `ledger_projected`; a slow poll of the checkpoints backs it up, so that a lost notification
//! or connection delays an answer and never loses it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use platform::pg::{self, GENERATION_CHANNEL, Model, Schema};
use platform::position::Position;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::ask::ask;
use crate::progress_channel::{PROJECTED_CHANNEL, read_payload};
use crate::tables::checkpoint;

/// How often the checkpoints are polled, with or without notifications.
const POLL: Duration = Duration::from_millis(250);
/// After this long without a notification, the server is asked whether it is still there.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// How long its answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Pause before listening again after a failure.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// How long answers wait.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct WaitConfig {
    /// Longest wait for the projection before an answer that depends on it, in milliseconds; then it is 202 or 503
    #[arg(long, env = "LEDGER_WAIT_MS", default_value_t = 2_000,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub wait_ms: u64,
}

impl Default for WaitConfig {
    fn default() -> Self {
        Self { wait_ms: 2_000 }
    }
}

/// Follows the progress of a model's live generation, and wakes waiters.
///
/// One per process, shared; dropping the last one ends its tasks.
pub struct Waiter {
    progress: Arc<Progress>,
    patience: Duration,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Waiter {
    /// Reads the live generation's checkpoints, then follows them until `shutdown`.
    ///
    /// Creates no generation: call [`pg::ensure_generation`] before, as every service does at its start.
    pub async fn listen(
        pool: PgPool,
        model: Model,
        config: WaitConfig,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, sqlx::Error> {
        let schema = pg::live_generation(&pool, model).await?.ok_or(sqlx::Error::RowNotFound)?;
        let progress = Arc::new(Progress::new(schema));
        refresh(&pool, &progress).await?;
        let listening = follow(pool.clone(), Arc::clone(&progress));
        let polling = poll(pool, Arc::clone(&progress));
        let tasks =
            [tokio::spawn(until(shutdown.clone(), listening)), tokio::spawn(until(shutdown, polling))];
        let patience = Duration::from_millis(config.wait_ms);
        Ok(Arc::new(Self { progress, patience, _tasks: tasks.map(AbortOnDropHandle::new) }))
    }

    /// Returns the deadline for a request that arrives now.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// Returns the live generation, at most a second old.
    pub fn schema(&self) -> Schema {
        self.progress.lock().schema
    }

    /// Returns the first offset of a partition that is not projected yet; 0 if none is projected.
    pub fn next_offset(&self, partition: i32) -> i64 {
        self.progress.lock().partitions.get(&partition).map_or(0, |partition| partition.next_offset)
    }

    /// Waits until the record at `position` is projected; returns false at the deadline.
    pub async fn wait_for(&self, position: Position, deadline: Instant) -> bool {
        self.progress.wait_for(position, deadline).await
    }
}

async fn until(shutdown: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work => {}
    }
}

/// Listens forever; after a lost connection, it reconnects and reads the missed progress from the tables.
async fn follow(pool: PgPool, progress: Arc<Progress>) {
    loop {
        if let Err(error) = listen_once(&pool, &progress).await {
            warn!(%error, "listening for projected batches failed, trying again");
        }
        sleep(LISTEN_AGAIN).await;
    }
}

async fn listen_once(pool: &PgPool, progress: &Progress) -> Result<(), sqlx::Error> {
    // A pool of its own: a listener whose connection has gone silent gives it back to nobody.
    let options = PgConnectOptions::clone(&pool.connect_options());
    let alone =
        PgPoolOptions::new().max_connections(1).acquire_timeout(ANSWER_MAX).connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&alone).await?;
    answered(listener.listen_all([PROJECTED_CHANNEL, GENERATION_CHANNEL])).await?;
    refresh(pool, progress).await?;
    loop {
        match timeout(QUIET_MAX, listener.try_recv()).await {
            Ok(received) => match received? {
                Some(notification) => apply(pool, progress, &notification).await?,
                None => refresh(pool, progress).await?,
            },
            // Nothing has happened, or no notification comes any more.
            Err(_) => {
                answered(sqlx::query("select 1").execute(&mut listener)).await?;
            }
        }
    }
}

/// Waits for an answer, as long as one may take.
async fn answered<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(ANSWER_MAX, asked).await.unwrap_or_else(|_| Err(pg::silence(ANSWER_MAX)))
}

async fn apply(pool: &PgPool, progress: &Progress, notification: &PgNotification) -> Result<(), sqlx::Error> {
    if notification.channel() == GENERATION_CHANNEL {
        return refresh(pool, progress).await;
    }
    if let Some((schema, next_offsets)) = read_payload(notification.payload()) {
        progress.advance(schema, &next_offsets);
    }
    Ok(())
}

async fn poll(pool: PgPool, progress: Arc<Progress>) {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reachable = true;
    loop {
        ticks.tick().await;
        let read = refresh(&pool, &progress).await;
        // Logged once per outage, not four times a second.
        match &read {
            Err(error) if reachable => warn!(%error, "checkpoints can't be read"),
            Ok(()) if !reachable => info!("checkpoints can be read again"),
            _ => {}
        }
        reachable = read.is_ok();
    }
}

/// Reads which generation is live and how far it is, in one statement each.
async fn refresh(pool: &PgPool, progress: &Progress) -> Result<(), sqlx::Error> {
    let known = progress.lock().schema;
    let (live, next_offsets) = ask(pool, move |connection| {
        Box::pin(async move {
            let live = pg::live_generation(&mut *connection, known.model).await?.unwrap_or(known);
            Ok((live, checkpoint::next_offsets(connection, live).await?))
        })
    })
    .await?;
    if live != known {
        info!(generation = %live, "another generation is live");
        progress.enter(live);
    }
    progress.advance(live, &next_offsets);
    Ok(())
}

/// Next offsets of the live generation, and the waiters.
struct Progress(Mutex<State>);

struct State {
    schema: Schema,
    partitions: BTreeMap<i32, Partition>,
    /// Distinguishes waiters for one offset.
    next_ticket: u64,
}

/// One partition: waiters in offset order, so that a batch touches only those it wakes.
#[derive(Default)]
struct Partition {
    next_offset: i64,
    waiting: BTreeMap<(i64, u64), oneshot::Sender<()>>,
}

impl Partition {
    fn wake(&mut self) {
        let still_waiting = self.waiting.split_off(&(self.next_offset, 0));
        for (_, waiter) in std::mem::replace(&mut self.waiting, still_waiting) {
            // The waiter may have reached its deadline and gone.
            let _ = waiter.send(());
        }
    }
}

impl Progress {
    fn new(schema: Schema) -> Self {
        Self(Mutex::new(State { schema, partitions: BTreeMap::new(), next_ticket: 0 }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches to another generation, which has its own offsets.
    fn enter(&self, schema: Schema) {
        let mut state = self.lock();
        state.schema = schema;
        for partition in state.partitions.values_mut() {
            partition.next_offset = 0;
        }
    }

    /// Records next offsets, in any order and repeated; ignores those of other generations.
    fn advance(&self, schema: Schema, next_offsets: &[Position]) {
        let mut state = self.lock();
        if state.schema != schema {
            return;
        }
        for next in next_offsets {
            let partition = state.partitions.entry(next.partition).or_default();
            if next.offset > partition.next_offset {
                partition.next_offset = next.offset;
                partition.wake();
            }
        }
    }

    async fn wait_for(&self, position: Position, deadline: Instant) -> bool {
        let Some((woken, _entry)) = self.queue(position) else {
            return true;
        };
        timeout_at(deadline, woken).await.is_ok_and(|woken| woken.is_ok())
    }

    /// Enters the queue; `None` if the position is projected already.
    fn queue(&self, position: Position) -> Option<(oneshot::Receiver<()>, QueueEntry<'_>)> {
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let partition = state.partitions.entry(position.partition).or_default();
        if partition.next_offset > position.offset {
            return None;
        }
        let (wake, woken) = oneshot::channel();
        partition.waiting.insert((position.offset, ticket), wake);
        Some((woken, QueueEntry { progress: self, position, ticket }))
    }
}

/// A waiter in the queue; removed on drop: woken, timed out, or disconnected.
struct QueueEntry<'a> {
    progress: &'a Progress,
    position: Position,
    ticket: u64,
}

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        let mut state = self.progress.lock();
        if let Some(partition) = state.partitions.get_mut(&self.position.partition) {
            partition.waiting.remove(&(self.position.offset, self.ticket));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Schema = Schema { model: Model::ReadModel, generation: 1 };
    const NEXT: Schema = Schema { model: Model::ReadModel, generation: 2 };

    fn at(text: &str) -> Position {
        text.parse().expect("a position")
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(30)
    }

    fn waiting(progress: &Progress) -> usize {
        progress.lock().partitions.values().map(|partition| partition.waiting.len()).sum()
    }

    #[tokio::test]
    async fn a_record_is_projected_once_the_next_offset_is_past_it() {
        let progress = Progress::new(LIVE);
        progress.advance(LIVE, &[at("3:10")]);
        assert!(progress.wait_for(at("3:9"), soon()).await);
        assert!(!progress.wait_for(at("3:10"), soon()).await);
        assert!(!progress.wait_for(at("4:0"), soon()).await);
        assert_eq!(waiting(&progress), 0, "those who gave up left the queue");
    }

    #[tokio::test]
    async fn thousands_wait_and_each_wakes_with_its_own_record() {
        let progress = Arc::new(Progress::new(LIVE));
        let far = Instant::now() + Duration::from_secs(30);
        let waiters: Vec<_> = (0..5_000)
            .map(|offset| {
                let progress = Arc::clone(&progress);
                tokio::spawn(async move { progress.wait_for(Position { partition: 1, offset }, far).await })
            })
            .collect();
        while waiting(&progress) < 5_000 {
            tokio::task::yield_now().await;
        }
        progress.advance(LIVE, &[at("1:4000")]);
        assert_eq!(waiting(&progress), 1_000);
        progress.advance(LIVE, &[at("1:5000")]);
        for waiter in waiters {
            assert!(waiter.await.expect("ended"));
        }
    }

    #[tokio::test]
    async fn a_waiter_who_hangs_up_leaves_the_queue() {
        let progress = Arc::new(Progress::new(LIVE));
        let theirs = Arc::clone(&progress);
        let waiter = tokio::spawn(async move { theirs.wait_for(at("1:0"), soon() + POLL).await });
        while waiting(&progress) == 0 {
            tokio::task::yield_now().await;
        }
        waiter.abort();
        assert!(waiter.await.is_err());
        assert_eq!(waiting(&progress), 0);
    }

    #[tokio::test]
    async fn a_rebuild_beside_the_live_generation_wakes_nobody_until_it_is_live() {
        let progress = Progress::new(LIVE);
        progress.advance(NEXT, &[at("1:10")]);
        assert!(!progress.wait_for(at("1:5"), soon()).await);
        progress.enter(NEXT);
        progress.advance(NEXT, &[at("1:10")]);
        assert!(progress.wait_for(at("1:5"), soon()).await);
    }

    #[test]
    fn progress_never_goes_back() {
        let progress = Progress::new(LIVE);
        progress.advance(LIVE, &[at("1:10")]);
        progress.advance(LIVE, &[at("1:7")]);
        assert_eq!(progress.lock().partitions[&1].next_offset, 10);
    }
}
