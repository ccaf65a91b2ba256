//! Serve: runs one service as a process of its own, as in production.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use console::SignInLinks;
use platform::kafka::KafkaOptions;
use platform::pg::PgConfig;
use platform::shutdown::CancellationToken;
use tokio::net::TcpListener;
use web::http::{Deps, HttpConfig, Running};

use crate::starting::{Starting, unready, waits_for_kafka};

/// Pause before another attempt to start.
const RETRY: Duration = Duration::from_secs(1);

/// The services.
#[derive(Debug, Clone, Subcommand)]
pub enum Service {
    /// The write side: HTTP writes and the Kafka ingress
    CommandApi(Process<command_api::Config>),
    /// Folds the journal into the read model
    Projector(Process<projector::Config>),
    /// Appends period resets, and delivers the alerts that fire
    AlertWorker(Process<alert_worker::Config>),
    /// The read side
    QueryApi(Process<Reads>),
}

/// Settings of the read side and of the console that it serves.
#[derive(Debug, Clone, Args)]
pub struct Reads {
    #[command(flatten)]
    pub reads: query_api::Config,
    #[command(flatten)]
    pub console: console::ConsoleConfig,
    /// Address of command-api, to which the console sends what its pages write; without it they only read
    #[arg(long, env = "LEDGER_COMMAND_URL")]
    pub command_url: Option<String>,
}

/// Settings of a service as a process of its own.
#[derive(Debug, Clone, Args)]
pub struct Process<C: Args> {
    #[command(flatten)]
    pub http: HttpConfig,
    #[command(flatten)]
    pub postgres: PgConfig,
    #[command(flatten)]
    pub kafka: KafkaOptions,
    #[command(flatten)]
    pub service: C,
}

impl<C: Args> Process<C> {
    fn split(self) -> (C, Deps, HttpConfig) {
        (self.service, Deps::new(self.postgres, self.kafka), self.http)
    }
}

impl Service {
    fn http(&self) -> &HttpConfig {
        match self {
            Service::CommandApi(process) => &process.http,
            Service::Projector(process) => &process.http,
            Service::AlertWorker(process) => &process.http,
            Service::QueryApi(process) => &process.http,
        }
    }
}

/// Runs one service until `shutdown`.
///
/// Until Kafka takes the connection, it says that it is not ready and why, and tries again.
pub async fn run(service: Service, shutdown: CancellationToken) -> Result<()> {
    let mut starting: Option<Starting> = None;
    loop {
        let attempt = shutdown.child_token();
        let error = match build(service.clone(), &attempt).await {
            Ok((built, http)) => {
                if let Some(starting) = starting {
                    starting.stop().await?;
                }
                return built.run(&http, attempt).await;
            }
            Err(error) => error,
        };
        // What the attempt has started ends.
        attempt.cancel();
        if shutdown.is_cancelled() {
            tracing::info!(error = format!("{error:#}"), "stopped before it had started");
            return Ok(());
        }
        if !waits_for_kafka(&error) {
            return Err(error);
        }
        let reason = unready(&error);
        tracing::error!(reason = reason.cause, "the service can't start yet, trying again");
        match &starting {
            Some(starting) => starting.say(reason),
            None => starting = Some(Starting::serve(service.http(), reason).await?),
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Starts one of several services in this process, each on a listener of its own, as if they were processes.
pub async fn start(service: Service, listener: TcpListener) -> Result<Running> {
    let shutdown = CancellationToken::new();
    let (service, http) = build(service, &shutdown).await?;
    Ok(service.start(listener, &http, shutdown)?)
}

async fn build(service: Service, shutdown: &CancellationToken) -> Result<(web::http::Service, HttpConfig)> {
    match service {
        Service::CommandApi(process) => {
            let (config, deps, http) = process.split();
            Ok((command_api::build(config, &deps, shutdown).await?, http))
        }
        Service::Projector(process) => {
            let (config, deps, http) = process.split();
            Ok((projector::build(config, &deps, shutdown).await?, http))
        }
        Service::AlertWorker(process) => {
            let (config, deps, http) = process.split();
            Ok((alert_worker::build(config, &deps, shutdown).await?, http))
        }
        Service::QueryApi(process) => {
            let (Reads { reads, console, command_url }, deps, http) = process.split();
            let operator_key = reads.auth.operator_key.clone();
            let mut service = query_api::build(reads, &deps, shutdown).await?;
            let (api, links) = (service.routes.clone(), SignInLinks::default());
            let (operator_key, command_url) = (operator_key.as_deref(), command_url.as_deref());
            let origins = &http.allowed_origins;
            let pages = console::build(api, &console, operator_key, command_url, links, origins)?;
            service.routes = service.routes.merge(pages);
            service.not_found_page = Some(console::not_found_page);
            Ok((service, http))
        }
    }
}
