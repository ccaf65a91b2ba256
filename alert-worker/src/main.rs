//! The alert worker as a process of its own.

use clap::Parser;

#[derive(Parser)]
#[command(name = "alert-worker", version, about)]
struct Arguments {
    #[command(flatten)]
    config: alert_worker::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    platform::telemetry::init();
    let shutdown = platform::shutdown::on_signal()?;
    alert_worker::run(arguments.config, shutdown).await
}
