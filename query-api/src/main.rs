//! The read side as a process of its own.

use clap::Parser;

#[derive(Parser)]
#[command(name = "query-api", version, about)]
struct Arguments {
    #[command(flatten)]
    config: query_api::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    platform::telemetry::init();
    let shutdown = platform::shutdown::on_signal()?;
    query_api::run(arguments.config, shutdown).await
}
