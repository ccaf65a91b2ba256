//! App: what every handler of the read side works with.

use std::sync::Arc;

use axum::extract::FromRef;
use engine::progress::{WaitConfig, Waiter};
use platform::kafka::{self, Ends, KafkaOptions, LogIdentity};
use platform::pg::Model;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use web::auth::Auth;

use crate::stream::holding::Holding;

/// Most readers of the journal at once: each holds a Kafka consumer and its prefetched records.
pub(crate) const AUDITS_MAX: usize = 8;
/// Backtests at the same time: each reads the whole history of an account.
pub(crate) const BACKTESTS_MAX: usize = 2;
/// Streams of one process at the same time.
pub(crate) const STREAMS_MAX: usize = 1_000;
/// What the handlers share; cheap to clone.
#[derive(Clone)]
pub struct App {
    pub pool: PgPool,
    /// Knows the live generation of the read model and how far it is.
    pub waiter: Arc<Waiter>,
    /// The same of the alerts.
    pub alerted: Arc<Waiter>,
    pub auth: Auth,
    pub kafka: KafkaOptions,
    pub identity: LogIdentity,
    /// Requests the ends of the journal from the brokers.
    pub ends: Ends,
    /// Ends what would not end by itself.
    pub stopping: CancellationToken,
    slots: Arc<Slots>,
    holding: Arc<Holding>,
}

/// Slots for what takes long.
struct Slots {
    /// Readers of the journal.
    audits: Arc<Semaphore>,
    /// Rules being tried.
    backtests: Arc<Semaphore>,
    /// Followers of an account.
    streams: Arc<Semaphore>,
}

/// The positions of the two folds.
#[derive(Clone)]
pub struct Waiters {
    pub projected: Arc<Waiter>,
    pub alerted: Arc<Waiter>,
}

impl Waiters {
    /// Follows the live generation of both until `shutdown`.
    pub async fn listen(
        pool: &PgPool,
        config: WaitConfig,
        shutdown: &CancellationToken,
    ) -> Result<Self, sqlx::Error> {
        let listen = |model| Waiter::listen(pool.clone(), model, config, shutdown.clone());
        Ok(Self { projected: listen(Model::ReadModel).await?, alerted: listen(Model::Alerting).await? })
    }
}

impl App {
    /// Puts together what the handlers need.
    pub fn new(
        pool: PgPool,
        waiters: Waiters,
        auth: Auth,
        kafka: KafkaOptions,
        identity: LogIdentity,
        stopping: CancellationToken,
    ) -> Result<Self, kafka::Error> {
        let ends = Ends::new(&kafka, identity)?;
        let slots = |count| Arc::new(Semaphore::new(count));
        let slots =
            Slots { audits: slots(AUDITS_MAX), backtests: slots(BACKTESTS_MAX), streams: slots(STREAMS_MAX) };
        let Waiters { projected, alerted } = waiters;
        let slots = Arc::new(slots);
        let holding = Arc::default();
        Ok(Self { pool, waiter: projected, alerted, auth, kafka, identity, ends, stopping, slots, holding })
    }

    /// Returns the slots for readers of the journal.
    pub(crate) fn audits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.slots.audits)
    }

    /// Returns the slots for rules being tried.
    pub(crate) fn backtests(&self) -> Arc<Semaphore> {
        Arc::clone(&self.slots.backtests)
    }

    /// Returns what notices changed holds.
    pub(crate) fn holding(&self) -> &Arc<Holding> {
        &self.holding
    }

    /// Returns the slots for followers of an account.
    pub(crate) fn streams(&self) -> Arc<Semaphore> {
        Arc::clone(&self.slots.streams)
    }
}

impl FromRef<App> for Auth {
    fn from_ref(app: &App) -> Self {
        app.auth.clone()
    }
}
