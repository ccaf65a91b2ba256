//! Resume: lets the workers fold halted accounts on, once what halted them is mended.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use engine::tables::halted::{self, Halt, Kind};
use ledger_core::value::id::AccountId;
use platform::pg::{self, Model, PgPool, Schema};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::connection::Connection;

/// How often the outcome is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// The workers that fold accounts, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Worker {
    Projector,
    AlertWorker,
}

impl Worker {
    const ALL: [Worker; 2] = [Worker::Projector, Worker::AlertWorker];

    const fn name(self) -> &'static str {
        match self {
            Worker::Projector => "projector",
            Worker::AlertWorker => "alert-worker",
        }
    }

    const fn model(self) -> Model {
        match self {
            Worker::Projector => Model::ReadModel,
            Worker::AlertWorker => Model::Alerting,
        }
    }
}

/// Which accounts, and where the ledger is.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct Resume {
    /// The halted account
    #[arg(group = "which")]
    pub account: Option<AccountId>,
    /// All accounts with an event whose folding failed
    #[arg(long, group = "which")]
    pub all: bool,
    /// The worker that is to fold on; both by default
    #[arg(long)]
    pub worker: Option<Worker>,
    /// Seconds to wait for the outcome
    #[arg(long, default_value_t = 15)]
    pub wait_seconds: u64,
    /// Prints a line for each account as JSON
    #[arg(long)]
    pub json: bool,
    /// The ledger's Postgres, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The local stack, where no Postgres is named.
    #[command(flatten)]
    pub connection: Connection,
}

/// Marks the accounts, waits for the workers, and writes one line for each; returns whether all go on.
pub async fn run(arguments: &Resume, out: &mut impl Write) -> Result<bool> {
    let url = arguments.connection.database_url(arguments.database_url.as_deref())?;
    let pool = pg::connect(&url, "ledger resume", 1).await.context("the database can't be reached")?;
    pg::migrate_or_check(&pool).await?;
    let deadline = Instant::now() + Duration::from_secs(arguments.wait_seconds);
    let (mut found, mut goes_on) = (0, true);
    for worker in Worker::ALL.into_iter().filter(|worker| arguments.worker.is_none_or(|only| only == *worker))
    {
        let Some(schema) = pg::live_generation(&pool, worker.model()).await? else { continue };
        for halt in mark(&pool, schema, arguments.account.clone()).await? {
            found += 1;
            let outcome = outcome(&pool, schema, &halt.account_id, deadline).await?;
            goes_on &= outcome == Outcome::GoesOn;
            match arguments.json {
                true => writeln!(out, "{}", json_line(worker, &halt, &outcome))?,
                false => writeln!(out, "{}", line(worker, &halt, &outcome))?,
            }
        }
    }
    pool.close().await;
    ensure!(found > 0 || arguments.all, "it is not halted");
    Ok(goes_on)
}

async fn mark(pool: &PgPool, schema: Schema, account: Option<AccountId>) -> Result<Vec<Halt>, sqlx::Error> {
    pg::write(pool, move |connection| {
        Box::pin(async move { halted::resume(connection, schema, account.as_ref()).await })
    })
    .await
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    GoesOn,
    HaltedAgain(String),
    /// No worker has tried yet.
    Waiting,
}

async fn outcome(pool: &PgPool, schema: Schema, account: &AccountId, deadline: Instant) -> Result<Outcome> {
    loop {
        let account = account.clone();
        let halt: Result<Option<Halt>, sqlx::Error> = pg::read(pool, schema, move |connection| {
            Box::pin(async move { halted::of(connection, schema, &account).await })
        })
        .await;
        match halt? {
            None => return Ok(Outcome::GoesOn),
            Some(halt) if !halt.resume => return Ok(Outcome::HaltedAgain(reason(&halt))),
            Some(_) if Instant::now() >= deadline => return Ok(Outcome::Waiting),
            Some(_) => sleep(LOOK).await,
        }
    }
}

fn reason(halt: &Halt) -> String {
    match halt.kind {
        Kind::UnknownType => format!("unknown type {}", halt.reason),
        Kind::Failed => halt.reason.clone(),
    }
}

fn line(worker: Worker, halt: &Halt, outcome: &Outcome) -> String {
    let Halt { account_id, position, since, .. } = halt;
    let was =
        format!("{}: {account_id}, halted at {position} since {since} ({})", worker.name(), reason(halt));
    match outcome {
        Outcome::GoesOn => format!("{was}, goes on"),
        Outcome::HaltedAgain(why) => format!("{was}, is halted again: {why}"),
        Outcome::Waiting => format!("{was}, is marked; no worker has tried it yet"),
    }
}

fn json_line(worker: Worker, halt: &Halt, outcome: &Outcome) -> Value {
    let (outcome, detail) = match outcome {
        Outcome::GoesOn => ("goes_on", None),
        Outcome::HaltedAgain(why) => ("halted", Some(why.as_str())),
        Outcome::Waiting => ("waiting", None),
    };
    json!({
        "worker": worker.name(), "account_id": halt.account_id, "position": halt.position.to_string(),
        "since": halt.since, "reason": reason(halt), "outcome": outcome, "detail": detail,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        arguments: Resume,
    }

    #[test]
    fn it_must_be_said_which_accounts_go_on() {
        let check = |arguments: &str, expected: bool| {
            let words = std::iter::once("resume").chain(arguments.split_whitespace());
            assert_eq!(Arguments::try_parse_from(words).is_ok(), expected, "{arguments}");
        };
        check("", false);
        check("acme", true);
        check("acme --worker alert-worker", true);
        check("--all --worker projector", true);
        check("acme --all", false);
        check("acme --worker query-api", false);
    }
}
