//! Redeliver: sends parked notifications again.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use clap::Args;
use contacts::redelivery::{self, Redelivery, Which};
use ledger_core::value::id::AccountId;
use platform::pg;
use serde_json::{Value, json};

use crate::connection::Connection;

/// Which notifications, and where the ledger is.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub struct Redeliver {
    /// Those that are parked for this account
    #[arg(long, group = "which", conflicts_with = "all_parked")]
    pub account: Option<AccountId>,
    /// This one, by its notification id, also where it was delivered before
    #[arg(long, group = "which", conflicts_with = "all_parked")]
    pub notification: Option<String>,
    /// All that are parked, of every account
    #[arg(long, group = "which")]
    pub all_parked: bool,
    /// Prints a line for each notification as JSON
    #[arg(long)]
    pub json: bool,
    /// The ledger's Postgres, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The local stack, where no Postgres is named.
    #[command(flatten)]
    pub connection: Connection,
}

/// Returns them to the alert worker's queue, and writes one line for each; returns whether all could be redelivered.
pub async fn run(arguments: &Redeliver, out: &mut impl Write) -> Result<bool> {
    let url = arguments.connection.database_url(arguments.database_url.as_deref())?;
    let pool = pg::connect(&url, "ledger redeliver", 1).await.context("the database can't be reached")?;
    pg::migrate_or_check(&pool).await?;
    let which =
        Which { account_id: arguments.account.clone(), notification_id: arguments.notification.clone() };
    let (mut sent, mut refused) = (0, 0);
    redelivery::redeliver(&pool, &which, |redelivery| {
        match &redelivery.refused {
            None => sent += 1,
            Some(_) => refused += 1,
        }
        match arguments.json {
            true => writeln!(out, "{}", json_line(redelivery)),
            false => writeln!(out, "{}", line(redelivery)),
        }
    })
    .await?;
    pool.close().await;
    ensure!(sent + refused > 0 || arguments.notification.is_none(), "there is no such notification");
    if arguments.json {
        return Ok(refused == 0);
    }
    let noun = if sent == 1 { "notification goes" } else { "notifications go" };
    writeln!(out, "{sent} {noun} out again, {refused} can't")?;
    Ok(refused == 0)
}

fn line(redelivery: &Redelivery) -> String {
    let Redelivery { account_id, notification_id, channel, recipient, refused } = redelivery;
    match refused {
        None => format!("{notification_id}: {channel} to {recipient} of {account_id} goes out again"),
        Some(why) => {
            format!("{notification_id}: {channel} to {recipient} of {account_id} does not go: {why}")
        }
    }
}

fn json_line(redelivery: &Redelivery) -> Value {
    let Redelivery { account_id, notification_id, channel, recipient, refused } = redelivery;
    json!({
        "notification_id": notification_id, "account_id": account_id, "channel": channel.to_string(),
        "recipient": recipient, "sent_again": refused.is_none(), "refused": refused.as_ref().map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        arguments: Redeliver,
    }

    #[test]
    fn it_must_be_said_what_is_to_go_out_again() {
        let check = |arguments: &str, expected: bool| {
            let words = std::iter::once("redeliver").chain(arguments.split_whitespace());
            assert_eq!(Arguments::try_parse_from(words).is_ok(), expected, "{arguments}");
        };
        check("", false);
        check("--all-parked", true);
        check("--account acme", true);
        check("--notification n-1", true);
        check("--account acme --notification n-1", true);
        check("--account acme --all-parked", false);
        check("--account a/b", false);
    }
}
