//! Resolve payment: an operator decides about payments that were made and came to nothing in the journal.

use std::io::Write;

use anyhow::{Context, Result};
use clap::Args;
use command_api::manual_resolution::{Decision, ParkedEffect, Signed, parked_effects, resolve};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{PaymentId, Text};
use platform::pg::{self, PgPool};
use serde_json::{Value, json};

use crate::connection::Connection;

/// Which payment, and what becomes of it.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct ResolvePayment {
    /// The provider's payment that waits
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    pub payment: Option<PaymentId>,
    /// Lists what waits, and decides nothing
    #[arg(long, group = "what")]
    pub list: bool,
    /// Credits this much for it, in the account's unit
    #[arg(long, group = "what", value_parser = positive)]
    pub credit: Option<Credits>,
    /// The id that the payment has in the journal, where its own is taken
    #[arg(long, requires = "credit")]
    pub credit_as: Option<PaymentId>,
    /// The money was given back at the provider
    #[arg(long, group = "what")]
    pub refunded: bool,
    /// Nothing is to be done, or it was done by hand
    #[arg(long, group = "what")]
    pub dismiss: bool,
    /// Why; kept with the decision
    #[arg(long, value_parser = text, required_unless_present = "list")]
    pub reason: Option<Text>,
    /// Who decides; kept with the decision
    #[arg(long, env = "USER", value_parser = text, default_value = "unknown")]
    pub by: Text,
    /// Prints a line for each payment that waits as JSON
    #[arg(long)]
    pub json: bool,
    /// The ledger's Postgres, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The local stack, where no Postgres is named.
    #[command(flatten)]
    pub connection: Connection,
}

fn text(said: &str) -> Result<Text, String> {
    let text = Text::new(said).map_err(|error| error.to_string())?;
    if said.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(text) }
}

fn positive(said: &str) -> Result<Credits, String> {
    let amount: Credits = said.parse().map_err(|error| format!("{error}"))?;
    if amount.is_positive() { Ok(amount) } else { Err("must be above 0".to_owned()) }
}

/// Lists, or puts what follows into the outbox, from where the write side appends it to the journal.
pub async fn run(arguments: &ResolvePayment, out: &mut impl Write) -> Result<()> {
    let url = arguments.connection.database_url(arguments.database_url.as_deref())?;
    let pool =
        pg::connect(&url, "ledger resolve-payment", 1).await.context("the database can't be reached")?;
    pg::migrate(&pool).await?;
    let done = match &arguments.payment {
        Some(payment) => decide(&pool, payment, arguments, out).await,
        None => list(&pool, arguments.json, out).await,
    };
    pool.close().await;
    done
}

async fn decide(
    pool: &PgPool,
    payment: &PaymentId,
    arguments: &ResolvePayment,
    out: &mut impl Write,
) -> Result<()> {
    let note = arguments.reason.clone().context("say --reason")?;
    let decision = match arguments.credit {
        Some(amount) => Decision::Credit { amount, journal_id: arguments.credit_as.clone() },
        None if arguments.refunded => Decision::Refunded,
        None if arguments.dismiss => Decision::Dismissed,
        None => anyhow::bail!("say --credit, --refunded or --dismiss"),
    };
    let credits = matches!(decision, Decision::Credit { .. });
    let account =
        resolve(pool, payment, decision, Signed { by: arguments.by.clone(), note, actor: None }).await?;
    let follows = if credits { "its credit goes to the journal" } else { "nothing is credited" };
    writeln!(out, "{payment} of {account} is resolved, and {follows}")?;
    Ok(())
}

async fn list(pool: &PgPool, as_json: bool, out: &mut impl Write) -> Result<()> {
    let parked = parked_effects(pool, None).await?;
    if as_json {
        for effect in &parked {
            writeln!(out, "{}", json_line(effect))?;
        }
        return Ok(());
    }
    if parked.is_empty() {
        writeln!(out, "no payment waits for a person")?;
    }
    for effect in &parked {
        let ParkedEffect { payment_id, account, kind, amount, reason, since, .. } = effect;
        writeln!(
            out,
            "{payment_id} of {account}: {kind} {amount}, {reason}, {} since {since}",
            money(effect)
        )?;
    }
    Ok(())
}

fn json_line(effect: &ParkedEffect) -> Value {
    json!({
        "payment_id": effect.payment_id, "account_id": effect.account, "kind": effect.kind, "amount": effect.amount,
        "reason": effect.reason, "charged": effect.charged, "currency": effect.currency, "since": effect.since,
    })
}

/// Returns what the provider reported, in the currency's smallest unit.
fn money(effect: &ParkedEffect) -> String {
    match (effect.charged, &effect.currency) {
        (Some(charged), Some(currency)) => format!("{charged} {currency} (smallest units),"),
        (Some(charged), None) => format!("{charged} (smallest units),"),
        (None, _) => "no money reported,".to_owned(),
    }
}
