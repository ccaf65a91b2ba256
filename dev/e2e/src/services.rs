//! Services: all four in this process, merged as `ledger up` runs them or apart as `ledger serve` does.

use anyhow::{Context, Result, bail};
use clap::Args;
use ledger::serve::{self, Process, Reads, Service};
use ledger::up::{self, Up, UpConfig};
use platform::pg::{PgConfig, Role};
use reqwest::Method;
use tokio::net::TcpListener;
use transparency_log::key_file::LogKey;
use web::http::Running;

use crate::{described, logins};

/// How the services run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As one, on one address.
    Merged,
    /// Each as its own service, on an address of its own.
    Apart,
}

impl Form {
    /// Returns the form that `LEDGER_E2E_FORM` names, `merged` without it.
    pub(crate) fn of_environment() -> Result<Form> {
        match std::env::var("LEDGER_E2E_FORM").as_deref() {
            Err(_) | Ok("" | "merged") => Ok(Form::Merged),
            Ok("apart") => Ok(Form::Apart),
            Ok(other) => bail!("LEDGER_E2E_FORM is merged or apart, not {other}"),
        }
    }
}

/// The addresses of the APIs, as a proxy in front of them would route.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    writes: String,
    reads: String,
}

impl Addresses {
    /// Returns the address of the reads, where the console is.
    pub fn reads(&self) -> &str {
        &self.reads
    }

    /// Returns the address of the service whose OpenAPI document has the operation.
    pub fn of(&self, method: &Method, path: &str) -> &str {
        if described::is_read(method, path) { &self.reads } else { &self.writes }
    }
}

pub(crate) enum Services {
    Merged(Box<Up>),
    /// In the order in which they stop: readers come first.
    Apart(Vec<Running>, Addresses),
}

impl Services {
    pub async fn start(form: Form, config: UpConfig) -> Result<Services> {
        match form {
            Form::Merged => Ok(Services::Merged(Box::new(up::start(config, |_| {}).await?))),
            Form::Apart => apart(config).await,
        }
    }

    pub fn addresses(&self) -> Addresses {
        match self {
            Services::Merged(up) => Addresses { writes: up.url.clone(), reads: up.url.clone() },
            Services::Apart(_, addresses) => addresses.clone(),
        }
    }

    pub fn urls(&self) -> Vec<String> {
        match self {
            Services::Merged(up) => vec![up.url.clone()],
            Services::Apart(services, _) => services.iter().map(url_of).collect(),
        }
    }

    pub async fn stop(self) -> Result<()> {
        match self {
            Services::Merged(up) => up.stop().await,
            Services::Apart(services, _) => {
                // As with `ledger up`, the log has the error that ended a service.
                for service in services {
                    let _ = service.stop().await;
                }
                Ok(())
            }
        }
    }
}

fn url_of(service: &Running) -> String {
    format!("http://{}", service.address)
}

/// Writes the private key of the audit log, which `ledger up` makes and `ledger serve` demands.
fn with_log_key(mut config: UpConfig) -> Result<UpConfig> {
    let file = config.data_dir.join("log.key");
    std::fs::write(&file, LogKey::from_seed([7; 32]).to_pem().as_bytes())?;
    config.projector.signing.log_key_file = vec![file];
    Ok(config)
}

async fn apart(config: UpConfig) -> Result<Services> {
    let config = with_log_key(config)?;
    let UpConfig { wait, promotions, holds, audit, .. } = config;
    let (auth, payment) = (config.auth.clone(), config.payment.clone());
    let writes = command_api::Config {
        auth: auth.clone(),
        wait,
        holds,
        promotions,
        payment: payment.clone(),
        webhook: config.delivery.webhook,
    };
    let alerts = alert_worker::Config {
        scheduler: config.scheduler.clone(),
        alerts: config.alerts.clone(),
        delivery: config.delivery.clone(),
        top_ups: config.top_ups.clone(),
        payment,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let command_url = Some(format!("http://{}", listener.local_addr()?));
    let reads = Reads {
        reads: query_api::Config { auth, wait, audit },
        console: config.console.clone(),
        command_url,
    };
    logins::make(database_url(&config)?).await?;
    // The readers wait for what the others create, so all start at once, as processes would.
    let (writes, projector, alerts, reads) = tokio::try_join!(
        serve::start(Service::CommandApi(process(&config, Role::CommandApi, writes)?), listener),
        start(Service::Projector(process(&config, Role::Projector, config.projector.clone())?)),
        start(Service::AlertWorker(process(&config, Role::AlertWorker, alerts)?)),
        start(Service::QueryApi(process(&config, Role::QueryApi, reads)?)),
    )?;
    let addresses = Addresses { writes: url_of(&writes), reads: url_of(&reads) };
    Ok(Services::Apart(vec![reads, writes, alerts, projector], addresses))
}

fn database_url(config: &UpConfig) -> Result<&str> {
    config.database_url.as_deref().context("a database")
}

/// Returns the settings of a service that has a login of its own.
fn process<C: Args>(config: &UpConfig, role: Role, service: C) -> Result<Process<C>> {
    let postgres = PgConfig {
        database_url: logins::url(database_url(config)?, role)?,
        database_connections: config.database_connections,
    };
    Ok(Process { http: config.http.clone(), postgres, kafka: config.kafka.clone(), service })
}

async fn start(service: Service) -> Result<Running> {
    serve::start(service, TcpListener::bind("127.0.0.1:0").await?).await
}
