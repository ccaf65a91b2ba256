//! Service: what the reads need, their routes, and the process around them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::FromRef;
use axum::routing::{MethodRouter, get, post};
use platform::kafka::{self, Ends, KafkaOptions, LogIdentity};
use platform::pg::{self, Model, PgConfig};
use engine::progress::{WaitConfig, Waiter};
use web::auth::{Auth, AuthConfig};
use web::http::{self, HttpConfig, ops};
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::holding::Holding;
use crate::{
    accounts, alerts, audit, backtest, balance, decisions, entries, events, grants, messages, notifications,
    openapi, periods, referrals, reservations, stream, usage, users,
};

/// Between two looks for a read model at the start.
const BEGUN_POLL: Duration = Duration::from_millis(500);

/// Settings of the process.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The read models.
    #[command(flatten)]
    pub postgres: PgConfig,
    /// The journal, for auditors.
    #[command(flatten)]
    pub kafka: KafkaOptions,
    /// Where to serve.
    #[command(flatten)]
    pub http: HttpConfig,
    /// Who may come in.
    #[command(flatten)]
    pub auth: AuthConfig,
    /// How long answers wait.
    #[command(flatten)]
    pub wait: WaitConfig,
}

/// What the handlers share; cheap to clone.
#[derive(Clone)]
pub struct State {
    /// Read-only connections.
    pub pool: PgPool,
    /// Knows the live generation of the read model and how far it is.
    pub waiter: Arc<Waiter>,
    /// The same of the alerts.
    pub alerted: Arc<Waiter>,
    /// Knows the keys.
    pub auth: Auth,
    /// Where the journal is.
    pub kafka: KafkaOptions,
    /// Which journal it is.
    pub identity: LogIdentity,
    /// Asks the brokers where the journal ends.
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

/// Where the two folds stand.
#[derive(Clone)]
pub struct Waiters {
    /// The read model.
    pub projected: Arc<Waiter>,
    /// The alerts.
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

impl State {
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
        let slots = Slots {
            audits: slots(audit::STREAMS_MAX),
            backtests: slots(backtest::BACKTESTS_MAX),
            streams: slots(stream::STREAMS_MAX),
        };
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

    /// Returns what tells of changed holds.
    pub(crate) fn holding(&self) -> &Arc<Holding> {
        &self.holding
    }

    /// Returns the slots for followers of an account.
    pub(crate) fn streams(&self) -> Arc<Semaphore> {
        Arc::clone(&self.slots.streams)
    }
}

impl FromRef<State> for Auth {
    fn from_ref(state: &State) -> Self {
        state.auth.clone()
    }
}

/// Returns the reads under `/v1`; what every service has besides (`/healthz`, `/openapi.json`) is the process's.
pub fn router(state: State) -> Router {
    let mut router = Router::new();
    for (path, handler) in routes() {
        router = router.route(path, handler);
    }
    router.with_state(state)
}

/// The document in `openapi.json` describes these and no others.
fn routes() -> [(&'static str, MethodRouter<State>); 20] {
    [
        ("/v1/accounts", get(accounts::list)),
        ("/v1/accounts/{account}", get(accounts::one)),
        ("/v1/accounts/{account}/balance", get(balance::balance)),
        ("/v1/accounts/{account}/usage", get(usage::usage)),
        ("/v1/accounts/{account}/users", get(users::list)),
        ("/v1/accounts/{account}/grants", get(grants::list)),
        ("/v1/accounts/{account}/periods", get(periods::list)),
        ("/v1/accounts/{account}/referrals", get(referrals::read)),
        ("/v1/accounts/{account}/entries", get(entries::list)),
        ("/v1/accounts/{account}/events/{event_id}", get(events::one)),
        ("/v1/accounts/{account}/messages/{message_id}", get(messages::one)),
        ("/v1/accounts/{account}/alerts", get(alerts::list)),
        ("/v1/accounts/{account}/alerts/backtest", post(backtest::run)),
        ("/v1/accounts/{account}/firings", get(alerts::firings)),
        ("/v1/accounts/{account}/notifications", get(notifications::list)),
        ("/v1/accounts/{account}/reservations", get(reservations::list)),
        ("/v1/accounts/{account}/reservations/{reservation}", get(reservations::one)),
        ("/v1/accounts/{account}/decisions", get(decisions::list)),
        ("/v1/accounts/{account}/stream", get(stream::stream)),
        ("/v1/audit/events", get(audit::events)),
    ]
}

/// Serves the reads until `shutdown`, once there is a read model.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let database = &config.postgres;
    let pool = pg::connect_read_only(&database.database_url, "query-api", database.database_connections)
        .await
        .context("the database can't be reached")?;
    let Some(identity) = begun(&pool, &shutdown).await? else { return Ok(()) };
    let waiters = Waiters::listen(&pool, config.wait, &shutdown).await?;
    let auth = Auth::new(pool.clone(), &config.auth)?;
    let state = State::new(pool, waiters, auth, config.kafka, identity, shutdown.clone())?;
    let routes = router(state.clone())
        .route("/openapi.json", get(|| async { axum::Json(openapi::openapi()) }))
        .merge(ops::router(readiness(&state)));
    let listener = http::bind(config.http.listen).await?;
    http::serve(http::finish(routes), listener, config.http.connections, shutdown).await?;
    Ok(())
}

/// Waits for a journal and live models, which the services that write make; none on shutdown.
async fn begun(pool: &PgPool, shutdown: &CancellationToken) -> anyhow::Result<Option<LogIdentity>> {
    while !shutdown.is_cancelled() {
        if let Some(identity) = log_identity(pool).await? {
            return Ok(Some(identity));
        }
        info!("no models are live yet: the projector and the alert worker make them");
        tokio::select! {
            () = sleep(BEGUN_POLL) => {}
            () = shutdown.cancelled() => {}
        }
    }
    Ok(None)
}

async fn log_identity(pool: &PgPool) -> anyhow::Result<Option<LogIdentity>> {
    let migrated: bool = sqlx::query_scalar("select to_regclass('control.log_identity') is not null")
        .fetch_one(pool)
        .await
        .context("the database can't be read")?;
    if !migrated {
        return Ok(None);
    }
    for model in [Model::ReadModel, Model::Alerting] {
        if pg::live_generation(pool, model).await?.is_none() {
            return Ok(None);
        }
    }
    let row: Option<(uuid::Uuid, i32)> =
        sqlx::query_as("select log_id, partitions from control.log_identity").fetch_optional(pool).await?;
    Ok(row.map(|(log_id, partitions)| LogIdentity { log_id, partitions }))
}

fn readiness(state: &State) -> ops::Readiness {
    let ends = state.ends.clone();
    ops::Readiness::new().with_database(&state.pool).with("journal", move || {
        let ends = ends.clone();
        async move { ends.of(0).await.map(drop).map_err(|error| format!("the journal does not answer: {error}")) }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Served by the process around the routes.
    const OPERATIONS: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/openapi.json"];

    #[test]
    fn the_openapi_document_describes_what_is_served_and_nothing_else() {
        let document = openapi::openapi();
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
        let served: BTreeSet<&str> = routes().iter().map(|(path, _)| *path).chain(OPERATIONS).collect();
        assert_eq!(described, served);
    }
}
