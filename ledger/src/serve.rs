//! Serve: one service as a process of its own, as in production.

use anyhow::Result;
use clap::Subcommand;
use platform::shutdown::CancellationToken;

/// The services.
#[derive(Debug, Clone, Subcommand)]
pub enum Service {
    /// The write side: HTTP writes and the Kafka ingress
    CommandApi(command_api::Config),
    /// Folds the journal into the read model
    Projector(projector::Config),
    /// Appends period resets, and tells what fires
    AlertWorker(alert_worker::Config),
    /// The read side
    QueryApi(query_api::Config),
}

/// Runs one service until `shutdown`.
pub async fn run(service: Service, shutdown: CancellationToken) -> Result<()> {
    match service {
        Service::CommandApi(config) => command_api::run(config, shutdown).await,
        Service::Projector(config) => projector::run(config, shutdown).await,
        Service::AlertWorker(config) => alert_worker::run(config, shutdown).await,
        Service::QueryApi(config) => query_api::run(config, shutdown).await,
    }
}
