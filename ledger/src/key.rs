//! Key: creates API keys from the command line, including the first one.

use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use ledger_core::request;
use ledger_core::value::id::UserId;
use ledger_core::value::time::Time;
use platform::{clock, pg};
use serde_json::json;
use web::auth::{self, CreatedKey, NewKey, Role};

use crate::connection::Connection;
use crate::help;

/// The creator of keys made without an API key.
const MADE_BY: &str = "cli";

/// What to do with keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// Makes a key and prints it: the only time that its secret is seen
    #[command(after_help = help::KEY_CREATE)]
    Create(CreateKey),
}

/// The key to make.
#[derive(Debug, Clone, Args)]
pub struct CreateKey {
    /// operator, admin, producer, member or auditor
    #[arg(long, value_parser = role)]
    pub role: Role,
    /// An account it holds in; again for several, '*' for all
    #[arg(long = "account")]
    pub accounts: Vec<String>,
    /// The user of a member's key
    #[arg(long = "user")]
    pub user_id: Option<UserId>,
    /// When it stops working, as 2027-01-31T00:00:00Z; without it, never
    #[arg(long)]
    pub expires_at: Option<Time>,
    /// What people call it
    #[arg(long, default_value = "")]
    pub name: String,
    /// Prints the key as JSON
    #[arg(long)]
    pub json: bool,
    /// The ledger's Postgres, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The local stack, where no Postgres is named.
    #[command(flatten)]
    pub connection: Connection,
}

fn role(name: &str) -> Result<Role, String> {
    Role::by_name(name).ok_or_else(|| "must be operator, admin, producer, member or auditor".to_owned())
}

/// Runs the command; writes machine-readable output to `out`, and explanations to `err`.
pub async fn run(command: &KeyCommand, out: &mut impl Write, err: &mut impl Write) -> Result<()> {
    let KeyCommand::Create(arguments) = command;
    let made = create(arguments).await?;
    if arguments.json {
        let key = json!({"key_id": made.key.key_id, "role": made.key.role.name(), "secret": made.secret});
        writeln!(out, "{key}")?;
        return Ok(());
    }
    writeln!(err, "key {} for the {}; it is shown only now:", made.key.key_id, made.key.role.name())?;
    writeln!(out, "{}", made.secret)?;
    Ok(())
}

/// Creates the key by the rules of `POST /v1/keys`.
async fn create(arguments: &CreateKey) -> Result<CreatedKey> {
    let now = clock::now();
    let new = checked(arguments, now)?;
    let url = arguments.connection.database_url(arguments.database_url.as_deref())?;
    let pool = pg::connect(&url, "ledger key", 1).await.context("the database can't be reached")?;
    pg::migrate_or_check(&pool).await?;
    let made = pg::write(&pool, move |connection| {
        Box::pin(async move { auth::create_key(connection, &new, MADE_BY, now).await })
    })
    .await?;
    pool.close().await;
    Ok(made)
}

fn checked(arguments: &CreateKey, now: Time) -> Result<NewKey> {
    let new = NewKey {
        role: arguments.role,
        accounts: arguments.accounts.clone(),
        user_id: arguments.user_id.clone(),
        expires_at: arguments.expires_at,
        name: arguments.name.clone(),
    };
    let mut errors = Vec::new();
    request::Body::check(&new, &mut errors);
    errors.extend(new.check_expiry(now).err());
    if !errors.is_empty() {
        let refusals: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.field, error.detail)).collect();
        bail!(refusals.join("; "));
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        arguments: CreateKey,
    }

    fn check(arguments: &str, expected: Result<(), &str>) {
        let words = std::iter::once("create").chain(arguments.split_whitespace());
        let command = Arguments::try_parse_from(words).expect("arguments").arguments;
        let now = "2026-02-03T10:00:00Z".parse().expect("a time");
        let found = checked(&command, now).map(|_| ()).map_err(|error| error.to_string());
        match expected {
            Ok(()) => assert_eq!(found, Ok(()), "{arguments}"),
            Err(why) => assert!(found.expect_err(arguments).contains(why), "{arguments}"),
        }
    }

    #[test]
    fn a_key_of_the_command_line_obeys_the_rules_of_the_api() {
        check("--role operator", Ok(()));
        check("--role auditor --name audits", Ok(()));
        check("--role admin --account acme --account beta", Ok(()));
        check("--role producer --account *", Ok(()));
        check("--role member --account acme --user ana", Ok(()));
        check("--role producer", Err("accounts"));
        check("--role member --account acme", Err("user_id"));
        check("--role operator --expires-at 2026-02-03T10:00:00Z", Err("expires_at"));
    }
}
