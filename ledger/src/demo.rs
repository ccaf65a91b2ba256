//! Demo: starts a ledger like `ledger up`, feeds it a trace, and proves its figures right.

use std::io::{IsTerminal, Write};

use ::demo::Ledger;
use anyhow::{Result, bail};
use clap::Args;
use command_api::PromotionsConfig;
use payments::ProviderName;
use platform::shutdown::CancellationToken;

use crate::up::{self, Up, UpConfig};

/// The arguments of `ledger demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoConfig {
    /// Stops at the end, also in a terminal
    #[arg(long)]
    pub exit: bool,
    /// About how many calls of the trace are sent.
    #[arg(long, hide = true, default_value_t = usize::MAX)]
    pub events: usize,
    /// Where and how the ledger runs; without bonuses, whatever is set.
    #[command(flatten)]
    pub up: UpConfig,
}

const INTRODUCTION: &str = "\
1. Starts a real Kafka and PostgreSQL, where none are named, and all services of the ledger.
2. Sends it an hour of real LLM calls and more, stretched over three months of five accounts.
3. Reads back balances, users and months, and proves each figure. About half a minute in all.
";

/// Runs the demo; fails if the ledger's figures are not the expected ones.
pub async fn run(
    mut config: DemoConfig,
    stopping: CancellationToken,
    out: &mut impl Write,
    say: impl Fn(&str) + Send + Sync,
) -> Result<()> {
    // A bonus would change the ledger's figures and not the demo's own.
    config.up.promotions = PromotionsConfig::default();
    // The demo sends as fast as it can, all with one key.
    config.up.auth.rate_per_key = 0;
    // A key that the user configured must not be printed.
    let own_key = config.up.auth.operator_key.as_ref().is_some_and(|key| !key.is_empty());
    let stays = std::io::stdout().is_terminal() && !config.exit;
    let sandbox = config.up.payment.payment_provider == ProviderName::Sandbox;
    write!(out, "{INTRODUCTION}")?;
    out.flush()?;
    let mut up = tokio::select! {
        up = up::start(config.up, &say) => up?,
        () = stopping.cancelled() => return Ok(()),
    };
    let ledger = Ledger {
        url: up.url.clone(),
        key: up.operator_key.clone(),
        own_key,
        sandbox,
        brokers: up.kafka.brokers.clone(),
        kafka_client: up.kafka.client.pairs().map_err(anyhow::Error::msg)?,
        usage_topic: up.kafka.topics().usage,
    };
    let shown = tokio::select! {
        shown = ::demo::run(&ledger, config.events, stays, out) => shown,
        () = stopping.cancelled() => Err(anyhow::anyhow!("the demo was stopped before its end")),
        why = up.ended() => Err(anyhow::anyhow!(why)),
    };
    let ended = match shown {
        Ok(()) if stays => stay(&mut up, &stopping, out).await,
        other => other,
    };
    say("stopping");
    up.stop().await?;
    ended
}

async fn stay(up: &mut Up, stopping: &CancellationToken, out: &mut impl Write) -> Result<()> {
    writeln!(
        out,
        "\nSee it all in a browser; the link signs in once, within 5 minutes:\n\n  {}\n\n\
         The ledger stays up. Ctrl-C stops it; the data stays.",
        up.sign_in_link()
    )?;
    out.flush()?;
    tokio::select! {
        () = stopping.cancelled() => Ok(()),
        why = up.ended() => bail!(why),
    }
}
