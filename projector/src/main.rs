//! The projector as a process of its own.

use clap::Parser;

#[derive(Parser)]
#[command(version, about = "The credit ledger's projector: folds the journal into the read model")]
struct Cli {
    #[command(flatten)]
    config: projector::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Cli::parse().config;
    platform::telemetry::init();
    let shutdown = platform::shutdown::on_signal()?;
    projector::run(config, shutdown).await
}
