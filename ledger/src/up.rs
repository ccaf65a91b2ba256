//! Up: the local stack and every service in one process, on one address.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alert_worker::SchedulerConfig;
use alert_worker::alerting;
use alert_worker::delivery::{self, DeliveryConfig};
use alert_worker::top_ups::{self, TopUpConfig};
use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;
use clap::Args;
use command_api::PromotionsConfig;
use engine::consume::{Source, Status};
use engine::progress::WaitConfig;
use local_stack::{Stack, StackOptions};
use payments::PaymentConfig;
use platform::kafka::{self, Appender, Journal, KafkaOptions};
use platform::pg::{self, Model};
use platform::shutdown::CancellationToken;
use query_api::Waiters;
use tokio::task::JoinSet;
use web::auth::{Auth, AuthConfig};
use web::http::ops::{self, Readiness};
use web::http::{self, HttpConfig};

use crate::openapi;

/// How long the services may take to drain once told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// File in the data directory that keeps the operator key that was made up.
const OPERATOR_KEY_FILE: &str = "operator.key";

/// Everything that `ledger up` can be told.
#[derive(Debug, Clone, Args)]
pub struct UpConfig {
    /// Where the local stack keeps its data
    #[arg(long, env = "LEDGER_DATA_DIR", default_value = ".data")]
    pub data_dir: PathBuf,
    /// A Postgres that runs already, as postgres://user:password@host:port/database; without it one is started
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Most connections of each service to Postgres
    #[arg(long, env = "LEDGER_DATABASE_CONNECTIONS", default_value_t = 16)]
    pub database_connections: u32,
    /// Kafka; without brokers one is started.
    #[command(flatten)]
    pub kafka: KafkaOptions,
    /// Where to serve.
    #[command(flatten)]
    pub http: HttpConfig,
    /// The operator's key; without one it is made up and kept in the data directory.
    #[command(flatten)]
    pub auth: AuthConfig,
    /// How long answers wait.
    #[command(flatten)]
    pub wait: WaitConfig,
    /// The projector.
    #[command(flatten)]
    pub projector: projector::Options,
    /// The scheduler of resets.
    #[command(flatten)]
    pub scheduler: SchedulerConfig,
    /// How alerts and notices are told.
    #[command(flatten)]
    pub delivery: DeliveryConfig,
    /// How the alert worker evaluates.
    #[command(flatten)]
    pub alerts: alerting::Options,
    /// How top-ups run.
    #[command(flatten)]
    pub top_ups: TopUpConfig,
    /// Who moves the money.
    #[command(flatten)]
    pub payment: PaymentConfig,
    /// What new accounts and their referrers get.
    #[command(flatten)]
    pub promotions: PromotionsConfig,
    /// What is kept of decisions.
    #[command(flatten)]
    pub holds: command_api::HoldsConfig,
}

/// The running whole.
pub struct Up {
    /// Where it serves, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// The key that may do everything.
    pub operator_key: String,
    /// Kafka as the services use it.
    pub kafka: KafkaOptions,
    /// The local stack; services that were there already are not in it.
    pub stack: Stack,
    shutdown: CancellationToken,
    services: JoinSet<(&'static str, Result<()>)>,
}

/// Starts the stack and the services; `say` hears of each step.
pub async fn start(config: UpConfig, say: impl Fn(&str) + Send + Sync) -> Result<Up> {
    let (data_dir, brokers) = (config.data_dir.clone(), Some(config.kafka.brokers.clone()));
    let options = StackOptions::named(data_dir, brokers, config.database_url.clone());
    let stack = Stack::start(options, &say).await?;
    match start_services(&config, &stack).await {
        Ok((url, operator_key, kafka, shutdown, services)) => {
            Ok(Up { url, operator_key, kafka, stack, shutdown, services })
        }
        Err(error) => {
            // What was started for us must not outlive our failure.
            if let Err(stopping) = stack.stop().await {
                say(&format!("the stack did not stop cleanly: {stopping:#}"));
            }
            Err(error)
        }
    }
}

type Started = (String, String, KafkaOptions, CancellationToken, JoinSet<(&'static str, Result<()>)>);

async fn start_services(config: &UpConfig, stack: &Stack) -> Result<Started> {
    let kafka = KafkaOptions { brokers: stack.kafka_brokers.clone(), ..config.kafka.clone() };
    let url = &stack.database_url;
    let pool = |name: &'static str| pg::connect(url, name, config.database_connections);
    let command_pool = pool("command-api").await.context("Postgres can't be reached")?;
    pg::migrate(&command_pool).await?;
    let identity = kafka::prepare(&kafka, &command_pool).await?;
    pg::ensure_generation(&command_pool, Model::ReadModel).await?;

    let shutdown = CancellationToken::new();
    let mut services = JoinSet::new();
    let source = Source { kafka: kafka.clone(), identity, pool: pool("projector").await? };
    let status = Status::default();
    let (projector, token, projecting) = (config.projector.clone(), shutdown.clone(), status.clone());
    services
        .spawn(async move { ("projector", projector::project(projector, source, projecting, token).await) });

    let source = Source { kafka: kafka.clone(), identity, pool: pool("alert-worker").await? };
    let scheduler_pool = source.pool.clone();
    let telling = alerting::begin(&source).await?;
    let alerts_status = Status::default();
    let (alerts, token, evaluating) = (config.alerts.clone(), shutdown.clone(), alerts_status.clone());
    services
        .spawn(async move { ("alerts", alerting::watch(alerts, source, telling, evaluating, token).await) });

    let journal = Journal::new(&kafka, identity)?;
    let (scheduler, token) = (config.scheduler.clone(), shutdown.clone());
    let scheduler_journal = journal.clone();
    services.spawn(async move {
        alert_worker::scheduler::run(scheduler, scheduler_journal, scheduler_pool, token).await;
        ("alert-worker", Ok(()))
    });
    let alerts = Appender::new(&kafka, &kafka.topics().alerts, identity.partitions)?;
    let (settings, payer) = (config.delivery.clone(), config.payment.payment_provider);
    let delivering = delivery::run(settings, payer, pool("delivery").await?, alerts, shutdown.clone());
    services.spawn(async move { ("delivery", delivering.await) });

    let top_up_pool = pool("top-ups").await?;
    let provider = payments::provider(&config.payment, &top_up_pool)?;
    let topping_up =
        top_ups::run(config.top_ups.clone(), top_up_pool, journal.clone(), provider, shutdown.clone());
    services.spawn(async move { ("top-ups", topping_up.await) });

    let operator_key = operator_key(&config.auth, &config.data_dir)?;
    let auth_config = AuthConfig { operator_key: Some(operator_key.clone()) };
    let waiters = Waiters::listen(&command_pool, config.wait, &shutdown).await?;
    let waiter = waiters.projected.clone();
    let auth = Auth::new(command_pool.clone(), &auth_config)?;
    let sales = command_api::Sales::new(config.promotions, &config.payment, &command_pool)?;
    let app = command_api::App::new(
        command_pool.clone(),
        journal.clone(),
        waiter,
        auth.clone(),
        config.holds,
        sales,
    );
    let working = command_api::work(app.clone(), kafka.clone(), config.holds, shutdown.clone());
    services.spawn(async move { ("command-api", working.await) });

    let query_pool = pg::connect_read_only(url, "query-api", config.database_connections).await?;
    let reads = query_api::State::new(query_pool, waiters, auth, kafka.clone(), identity, shutdown.clone())?;
    let readiness = Readiness::new()
        .with_database(&command_pool)
        .with_log(&kafka, &command_pool)
        .with("projector", status.check())
        .with("alert-worker", alerts_status.check());
    let routes = command_api::router(app)
        .merge(query_api::router(reads))
        .route("/openapi.json", get(|| async { axum::Json(openapi::merged()) }))
        .merge(ops::router(readiness));
    let address = serve(routes, &config.http, &shutdown, &mut services).await?;
    Ok((format!("http://{address}"), operator_key, kafka, shutdown, services))
}

async fn serve(
    routes: Router,
    config: &HttpConfig,
    shutdown: &CancellationToken,
    services: &mut JoinSet<(&'static str, Result<()>)>,
) -> Result<SocketAddr> {
    let listener = http::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let (token, connections) = (shutdown.clone(), config.connections);
    services.spawn(async move {
        let served = http::serve(http::finish(routes), listener, connections, token).await;
        ("http", served.map_err(Into::into))
    });
    Ok(address)
}

/// Returns the key that was given, or the one kept in the data directory, made up at the first start.
fn operator_key(config: &AuthConfig, data_dir: &Path) -> Result<String> {
    if let Some(key) = config.operator_key.as_ref().filter(|key| !key.is_empty()) {
        return Ok(key.clone());
    }
    let path = data_dir.join(OPERATOR_KEY_FILE);
    if let Ok(key) = std::fs::read_to_string(&path) {
        return Ok(key.trim().to_owned());
    }
    let key = hex::encode(rand::random::<[u8; 32]>());
    std::fs::create_dir_all(data_dir)?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("{} can't be written", path.display()))?;
    writeln!(file, "{key}")?;
    Ok(key)
}

impl Up {
    /// Completes when a service or the stack has ended by itself, with its name and why.
    pub async fn ended(&mut self) -> String {
        let watch = Duration::from_millis(500);
        loop {
            tokio::select! {
                Some(service) = self.services.join_next() => return match service {
                    Ok((name, Ok(()))) => format!("{name} ended"),
                    Ok((name, Err(error))) => format!("{name} failed: {error:#}"),
                    Err(error) => format!("a service panicked: {error}"),
                },
                () = tokio::time::sleep(watch) => {}
            }
            if let Some(name) = self.stack.ended() {
                return format!("{name} ended by itself: its log is in the data directory");
            }
        }
    }

    /// Drains the services, then stops what was started.
    pub async fn stop(mut self) -> Result<()> {
        self.shutdown.cancel();
        let drained = tokio::time::timeout(DRAIN_MAX, async {
            while let Some(service) = self.services.join_next().await {
                if let Ok((name, Err(error))) = service {
                    tracing::warn!(service = name, error = format!("{error:#}"), "ended badly");
                }
            }
        })
        .await;
        if drained.is_err() {
            tracing::warn!("services did not drain in time");
            self.services.abort_all();
        }
        self.stack.stop().await
    }
}
