//! Resets: how long ten thousand idle accounts take to roll after their common boundary.

use std::time::{Duration, Instant};

use alert_worker::{SchedulerConfig, scheduler};
use anyhow::{Context, Result, ensure};
use engine::consume::{Source, Status};
use ledger_core::value::time::Time;
use platform::clock;
use platform::heartbeat::Heartbeat;
use platform::kafka::{Journal, LogIdentity};
use platform::pg::{self, Model, PgPool};
use platform::shutdown::CancellationToken;
use serde_json::json;
use tokio::time::sleep;

use crate::environment::Environment;
use crate::load;
use crate::measured::Measured;
use crate::raw::RawProducer;

/// Accounts whose period ends at one instant.
const ACCOUNTS: usize = 10_000;
/// From now to the boundary: all accounts must be open by then.
const AHEAD: Duration = Duration::from_secs(20);
/// The longest that rolling may take at all.
const ROLLED_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Measures a scheduler and a projector on an otherwise idle stack.
pub async fn run() -> Result<Measured> {
    let environment = Environment::new().await?;
    let measured = measure(&environment).await;
    environment.leave().await?;
    measured
}

async fn measure(environment: &Environment) -> Result<Measured> {
    let (pool, identity) = environment.prepare().await?;
    let shutdown = CancellationToken::new();
    start(environment, &pool, identity, &shutdown).await?;
    let floor = floor(environment, &pool).await?;

    let boundary = clock::now().micros() + i64::try_from(AHEAD.as_micros())?;
    open_accounts(environment, identity, Time::from_micros(boundary)).await?;
    while count(&pool, "account").await? < ACCOUNTS {
        ensure!(clock::now().micros() < boundary, "opening took longer than {AHEAD:?}");
        sleep(POLL).await;
    }
    sleep(Duration::from_micros(u64::try_from(boundary - clock::now().micros())?)).await;
    let since = Instant::now();
    while count(&pool, "period").await? < ACCOUNTS {
        ensure!(since.elapsed() < ROLLED_MAX, "not rolled at all");
        sleep(POLL).await;
    }
    let took = since.elapsed();
    shutdown.cancel();
    Ok(Measured {
        more: json!({"accounts": ACCOUNTS, "scheduler_interval_ms": SchedulerConfig::default().scheduler_interval_ms}),
        ..Measured::new(
            "resets",
            "ms from the boundary to the last account rolled",
            took.as_secs_f64() * 1e3,
            ("as many records from a bare producer, and two rows each by one UNNEST insert", floor * 1e3),
            "under 5,000 ms",
        )
    })
}

async fn start(
    environment: &Environment,
    pool: &PgPool,
    identity: LogIdentity,
    shutdown: &CancellationToken,
) -> Result<()> {
    pg::ensure_generation(pool, Model::ReadModel).await?;
    let source = Source { kafka: environment.kafka.clone(), identity, pool: pool.clone() };
    let options = projector::Config::default();
    tokio::spawn(projector::project(options, source, Status::default(), shutdown.child_token()));
    let journal = Journal::new(&environment.kafka, identity)?;
    let config = SchedulerConfig::default();
    tokio::spawn(scheduler::run(
        config,
        journal,
        pool.clone(),
        Heartbeat::new("scheduler"),
        shutdown.child_token(),
    ));
    Ok(())
}

/// Returns the seconds that the minimal work takes.
async fn floor(environment: &Environment, pool: &PgPool) -> Result<f64> {
    sqlx::query(
        "create table public.floor (account_id text, kind int, body json, primary key (account_id, kind))",
    )
    .execute(pool)
    .await?;
    let records: Vec<(String, Vec<u8>)> =
        (0..ACCOUNTS).map(|n| (load::account(n).to_string(), load::opened(n))).collect();
    let raw = RawProducer::new(&environment.kafka.brokers, &environment.kafka.topics().usage)?;
    let start = Instant::now();
    tokio::task::block_in_place(|| raw.send_all(records.iter().map(|(k, v)| (k.as_str(), v.as_slice()))))?;
    let accounts: Vec<&str> = records.iter().map(|(account, _)| account.as_str()).collect();
    let bodies: Vec<String> =
        records.iter().map(|(_, body)| String::from_utf8(body.clone())).collect::<Result<_, _>>()?;
    sqlx::query(
        "insert into public.floor
         select account_id, kind, body from unnest($1::text[], $2::json[]) as one (account_id, body), generate_series(1, 2) as kind",
    )
    .bind(accounts)
    .bind(bodies)
    .execute(pool)
    .await?;
    Ok(start.elapsed().as_secs_f64())
}

async fn open_accounts(environment: &Environment, identity: LogIdentity, boundary: Time) -> Result<()> {
    let now = clock::now().to_string();
    let records = (0..ACCOUNTS).map(|number| {
        let account = load::account(number);
        let event = json!({
            "specversion": "1.0", "id": "open", "source": "/bench", "type": "ledger.account.opened.v1",
            "subject": account, "time": now, "recordedat": now, "actor": "bench",
            "datacontenttype": "application/json", "dataschema": "schemas/account.opened.v1.json",
            "data": {"clock": "live", "plan": {"cycle": "daily", "anchor": boundary, "allowance": "10"}},
        });
        (account, event.to_string().into_bytes())
    });
    let journal = Journal::new(&environment.kafka, identity)?;
    for appended in journal.append_all(&records.collect::<Vec<_>>()).await {
        appended?;
    }
    Ok(())
}

async fn count(pool: &PgPool, table: &'static str) -> Result<usize> {
    let schema = pg::live_generation(pool, Model::ReadModel).await?.context("a live read model")?;
    let sql = format!("select count(*) from {schema}.{table}");
    let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await?;
    Ok(usize::try_from(rows)?)
}
