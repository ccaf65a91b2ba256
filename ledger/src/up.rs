//! Up: runs the local stack and every service in one process, on one address.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alert_worker::delivery::DeliveryConfig;
use alert_worker::{SchedulerConfig, TopUpConfig, alerting};
use anyhow::{Context, Result};
use clap::Args;
use command_api::PromotionsConfig;
use console::SignInLinks;
use engine::progress::WaitConfig;
use payments::PaymentConfig;
use platform::kafka::KafkaOptions;
use platform::pg::PgConfig;
use platform::shutdown::CancellationToken;
use transparency_log::key_file::LogKey;
use web::auth::AuthConfig;
use web::http::{self, Deps, HttpConfig, Running, Service};

use local_stack::{Stack, StackOptions};

/// File in the data directory with the generated operator key.
const OPERATOR_KEY_FILE: &str = "operator.key";

/// File in the data directory with the generated key of the audit log.
const LOG_KEY_FILE: &str = "log.key";

/// File in the data directory with the name of its process in the consumer groups.
const INSTANCE_ID_FILE: &str = "instance.id";

/// The arguments of `ledger up`.
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
    pub projector: projector::Config,
    /// The scheduler of resets.
    #[command(flatten)]
    pub scheduler: SchedulerConfig,
    /// How alerts and notices are delivered.
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
    /// Who may read the audit log.
    #[command(flatten)]
    pub audit: query_api::AuditConfig,
    /// How people sign in.
    #[command(flatten)]
    pub console: console::ConsoleConfig,
}

pub struct Up {
    /// Where it serves, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// The key with all rights.
    pub operator_key: String,
    /// Signs browsers in.
    pub links: SignInLinks,
    pub kafka: KafkaOptions,
    /// The local stack, without services that were already running.
    pub stack: Stack,
    services: Running,
}

/// Starts the stack and the services; `say` receives each step.
pub async fn start(config: UpConfig, say: impl Fn(&str) + Send + Sync) -> Result<Up> {
    let options = StackOptions {
        kafka_client: config.kafka.client.pairs().map_err(anyhow::Error::msg)?,
        ..StackOptions::named(
            config.data_dir.clone(),
            Some(config.kafka.brokers.clone()),
            config.database_url.clone(),
        )
    };
    let stack = Stack::start(options, &say).await?;
    match start_services(&config, &stack).await {
        Ok(Started { operator_key, links, kafka, services }) => {
            let url = format!("http://{}", services.address);
            Ok(Up { url, operator_key, links, kafka, stack, services })
        }
        Err(error) => {
            // Whatever was started must stop after a failure.
            if let Err(stopping) = stack.stop().await {
                say(&format!("the stack did not stop cleanly: {stopping:#}"));
            }
            Err(error)
        }
    }
}

/// What is started on a stack.
struct Started {
    operator_key: String,
    links: SignInLinks,
    kafka: KafkaOptions,
    services: Running,
}

async fn start_services(config: &UpConfig, stack: &Stack) -> Result<Started> {
    let kafka = match config.kafka.brokers.is_empty() {
        true => config.kafka.of_local_stack(stack.kafka_brokers.clone()),
        false => config.kafka.clone(),
    };
    let kafka = KafkaOptions { instance_id: Some(instance_id(config)?), ..kafka };
    let postgres = PgConfig {
        database_url: stack.database_url.clone(),
        database_connections: config.database_connections,
    };
    let operator_key = operator_key(&config.auth, &config.data_dir)?;
    let deps = Deps::new(postgres, kafka.clone());
    let shutdown = CancellationToken::new();
    let mut service = build(config, &operator_key, &deps, &shutdown).await?;
    let links = SignInLinks::default();
    let api = service.routes.clone();
    let (console, origins) = (&config.console, &config.http.allowed_origins);
    let pages = console::build(api, console, Some(&operator_key), None, links.clone(), origins)?;
    service.routes = service.routes.merge(pages);
    service.not_found_page = Some(console::not_found_page);
    let listener = http::bind(config.http.listen).await?;
    let services = service.start(listener, &config.http, shutdown)?;
    Ok(Started { operator_key, links, kafka, services })
}

/// Builds all services as one. The read side comes last: it waits for what the others create.
async fn build(
    config: &UpConfig,
    operator_key: &str,
    deps: &Deps,
    shutdown: &CancellationToken,
) -> Result<Service> {
    let UpConfig { wait, promotions, holds, audit, .. } = *config;
    let auth = AuthConfig { operator_key: Some(operator_key.to_owned()), ..config.auth.clone() };
    let writes = command_api::Config {
        auth: auth.clone(),
        wait,
        holds,
        promotions,
        payment: config.payment.clone(),
        webhook: config.delivery.webhook,
    };
    let alerts = alert_worker::Config {
        scheduler: config.scheduler.clone(),
        alerts: config.alerts.clone(),
        delivery: config.delivery.clone(),
        top_ups: config.top_ups.clone(),
        payment: config.payment.clone(),
    };
    Ok(command_api::build(writes, deps, shutdown)
        .await?
        .merge(projector::build(projector_config(config)?, deps, shutdown).await?)
        .merge(alert_worker::build(alerts, deps, shutdown).await?)
        .merge(query_api::build(query_api::Config { auth, wait, audit }, deps, shutdown).await?))
}

/// Returns the projector's settings, with the key of the audit log in the data directory unless one is named. It is made at
/// the first start.
fn projector_config(config: &UpConfig) -> Result<projector::Config> {
    let mut projector = config.projector.clone();
    if projector.signing.key_files().next().is_none() {
        let path = config.data_dir.join(LOG_KEY_FILE);
        if !path.exists() {
            write_secret(&path, &LogKey::from_seed(rand::random()).to_pem())?;
        }
        projector.signing.log_key_file = vec![path];
    }
    Ok(projector)
}

/// Returns the given name in the consumer groups, or the data directory's own, made at the first start: one process has
/// the directory at a time.
fn instance_id(config: &UpConfig) -> Result<String> {
    if let Some(named) = config.kafka.instance_id.as_ref().filter(|named| !named.is_empty()) {
        return Ok(named.clone());
    }
    let path = config.data_dir.join(INSTANCE_ID_FILE);
    if let Ok(known) = std::fs::read_to_string(&path) {
        return Ok(known.trim().to_owned());
    }
    let made = format!("up-{}", hex::encode(rand::random::<[u8; 8]>()));
    std::fs::create_dir_all(&config.data_dir)?;
    std::fs::write(&path, format!("{made}\n"))
        .with_context(|| format!("{} can't be written", path.display()))?;
    Ok(made)
}

/// Returns the given key, or the one in the data directory, generated at the first start.
fn operator_key(config: &AuthConfig, data_dir: &Path) -> Result<String> {
    if let Some(key) = config.operator_key.as_ref().filter(|key| !key.is_empty()) {
        return Ok(key.clone());
    }
    if let Some(key) = operator_key_of(data_dir) {
        return Ok(key);
    }
    let path = data_dir.join(OPERATOR_KEY_FILE);
    let key = hex::encode(rand::random::<[u8; 32]>());
    write_secret(&path, &format!("{key}\n"))?;
    Ok(key)
}

/// Writes a new file that its owner alone may read.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("{} can't be written", path.display()))
}

/// Returns the operator's key that `ledger up` keeps in a data directory, if it keeps one.
pub fn operator_key_of(data_dir: &Path) -> Option<String> {
    let key = std::fs::read_to_string(data_dir.join(OPERATOR_KEY_FILE)).ok()?;
    Some(key.trim().to_owned())
}

impl Up {
    /// Returns a link that signs one browser in as the operator, once, within 5 minutes.
    pub fn sign_in_link(&self) -> String {
        format!("{}{}", self.url, self.links.make(&self.operator_key))
    }

    /// Completes when a service or the stack has ended by itself, with its name and the reason.
    pub async fn ended(&mut self) -> String {
        let watch = Duration::from_millis(500);
        loop {
            tokio::select! {
                ended = self.services.ended() => return match ended {
                    Ok(name) => format!("{name} ended"),
                    Err(error) => format!("{error:#}"),
                },
                () = tokio::time::sleep(watch) => {}
            }
            if let Some(name) = self.stack.ended() {
                return format!("{name} ended by itself: its log is in the data directory");
            }
        }
    }

    /// Drains the services, then stops the stack.
    pub async fn stop(self) -> Result<()> {
        // The log has the errors of services; the stack must stop regardless.
        let _ = self.services.stop().await;
        self.stack.stop().await
    }
}
