//! App: the state that every handler of the read side shares.

use std::sync::Arc;

use axum::extract::FromRef;
use engine::progress::{WaitConfig, Waiter};
use platform::kafka::{self, Ends, KafkaOptions, LogIdentity};
use platform::pg::Model;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use web::auth::Auth;
use web::quota::Slots;

use crate::stream::holding::Holding;

/// Most concurrent readers of the journal: each holds a Kafka consumer and its prefetched records.
pub(crate) const AUDITS_MAX: usize = 8;
/// Most concurrent backtests: each reads the whole history of an account.
pub(crate) const BACKTESTS_MAX: usize = 2;
/// Most concurrent streams of one process.
pub(crate) const STREAMS_MAX: usize = 1_000;
#[derive(Clone)]
pub struct App {
    pub pool: PgPool,
    /// Knows the live generation of the read model and its progress.
    pub waiter: Arc<Waiter>,
    /// The same for the alerts.
    pub alerted: Arc<Waiter>,
    pub auth: Auth,
    pub kafka: KafkaOptions,
    pub identity: LogIdentity,
    /// Reads the journal's ends from the brokers.
    pub ends: Ends,
    /// Whether everybody may read the audit log's tiles and checkpoints.
    pub audit_public: bool,
    /// Stops requests that would not end by themselves.
    pub stopping: CancellationToken,
    pub(crate) slots: Arc<LongRequests>,
    holding: Arc<Holding>,
}

/// Bounds the concurrency of long requests, in all and of each key.
pub(crate) struct LongRequests {
    pub audits: Slots,
    pub backtests: Slots,
    pub streams: Slots,
}

/// The progress of the two folds.
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
    pub fn new(
        pool: PgPool,
        waiters: Waiters,
        auth: Auth,
        kafka: KafkaOptions,
        identity: LogIdentity,
        stopping: CancellationToken,
    ) -> Result<Self, kafka::Error> {
        let ends = Ends::new(&kafka, identity)?;
        let slots = LongRequests {
            audits: Slots::new(AUDITS_MAX),
            backtests: Slots::new(BACKTESTS_MAX),
            streams: Slots::new(STREAMS_MAX),
        };
        let Waiters { projected, alerted } = waiters;
        let slots = Arc::new(slots);
        let holding = Arc::default();
        Ok(Self {
            pool,
            waiter: projected,
            alerted,
            auth,
            kafka,
            identity,
            ends,
            audit_public: false,
            stopping,
            slots,
            holding,
        })
    }

    /// Detects changed holds.
    pub(crate) fn holding(&self) -> &Arc<Holding> {
        &self.holding
    }
}

impl FromRef<App> for Auth {
    fn from_ref(app: &App) -> Self {
        app.auth.clone()
    }
}
