//! The write side as a process of its own.

use clap::Parser;

#[derive(Parser)]
#[command(version, about = "The credit ledger's write side: HTTP writes and the Kafka ingress")]
struct Cli {
    #[command(flatten)]
    config: command_api::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Cli::parse().config;
    platform::telemetry::init();
    let shutdown = platform::shutdown::on_signal()?;
    command_api::run(config, shutdown).await
}
