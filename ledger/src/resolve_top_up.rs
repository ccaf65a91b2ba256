//! Resolve top-up: an operator reports the outcome of an attempt that the payment provider has left open for 20 hours.

use std::io::Write;

use anyhow::{Context, Result};
use clap::Args;
use command_api::top_up_resolution::{Decision, decide};
use ledger_core::value::id::{AccountId, PaymentId, Text};
use platform::pg;

use crate::connection::Connection;

/// Which account, and what has become of its attempt.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("outcome").required(true))]
pub struct ResolveTopUp {
    /// The account whose attempt is parked
    pub account: AccountId,
    /// It was paid, by this payment of the provider
    #[arg(long, group = "outcome")]
    pub paid: Option<PaymentId>,
    /// It was not paid, for this reason
    #[arg(long, group = "outcome", value_parser = reason)]
    pub failed: Option<Text>,
    /// The ledger's Postgres, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The local stack, where no Postgres is named.
    #[command(flatten)]
    pub connection: Connection,
}

fn reason(text: &str) -> Result<Text, String> {
    let reason = Text::new(text).map_err(|error| error.to_string())?;
    if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(reason) }
}

/// Puts the outcome into the outbox; the alert worker appends it to the journal.
pub async fn run(arguments: &ResolveTopUp, out: &mut impl Write) -> Result<()> {
    let url = arguments.connection.database_url(arguments.database_url.as_deref())?;
    let pool =
        pg::connect(&url, "ledger resolve-top-up", 1).await.context("the database can't be reached")?;
    pg::migrate_or_check(&pool).await?;
    let decision = match (&arguments.paid, &arguments.failed) {
        (Some(payment), _) => Decision::Paid(payment.clone()),
        (None, Some(reason)) => Decision::Failed(reason.clone()),
        (None, None) => anyhow::bail!("say --paid or --failed"),
    };
    let attempt = decide(&pool, &arguments.account, None, decision, None).await;
    pool.close().await;
    writeln!(out, "{} of {} is resolved, and its outcome goes to the journal", attempt?, arguments.account)?;
    Ok(())
}
