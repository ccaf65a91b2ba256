//! Project: folding the journal into Postgres, compared with a plain batched insert into the same server.

use std::time::Instant;

use anyhow::Result;
use engine::consume::{self, BATCH_RECORDS_MAX, ConsumeOptions, Source, Status};
use futures::future::try_join_all;
use ledger_core::fold::FOLD_VERSION;
use platform::kafka::Journal;
use platform::pg::{self, Model, PgPool};
use platform::shutdown::CancellationToken;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::environment::Environment;
use crate::load;
use crate::measured::Measured;

/// Accounts that the events are spread over.
pub const ACCOUNTS: usize = 1_000;
const USERS: usize = 97;
/// Usage events in the journal.
const EVENTS: usize = 200_000;
/// Plain inserts run before the fold and after it, each time on one connection and then on one for each lane.
const QUARTER: usize = EVENTS / 4;

/// Measures both on one server.
pub async fn run() -> Result<Measured> {
    let environment = Environment::new().await?;
    let measured = measure(&environment).await;
    environment.leave().await?;
    measured
}

async fn measure(environment: &Environment) -> Result<Measured> {
    let (pool, identity) = environment.prepare().await?;
    let schema = pg::ensure_generation(&pool, Model::ReadModel).await?;
    let journal = Journal::new(&environment.kafka, identity)?;
    let opened = (0..ACCOUNTS).map(|number| (load::account(number), load::opened(number)));
    append(&journal, opened.collect()).await?;
    append(&journal, (0..EVENTS).map(record).collect()).await?;

    plain_tables(&pool).await?;
    let lanes = usize::from(projector::LANES);
    let mut plain = plain_inserts(&pool, 0..QUARTER, 1).await?;
    let mut plain_in_lanes = plain_inserts(&pool, QUARTER..2 * QUARTER, lanes).await?;
    let source = Source { kafka: environment.kafka.clone(), identity, pool: pool.clone() };
    let workers = projector::lanes(identity, projector::LANES)?;
    let options = ConsumeOptions::new("bench", schema, FOLD_VERSION);
    let ends = journal.ends().await?;
    let start = Instant::now();
    consume::run_until(workers, source, options, Status::default(), &ends, CancellationToken::new()).await?;
    let ours = start.elapsed().as_secs_f64();
    plain += plain_inserts(&pool, 2 * QUARTER..3 * QUARTER, 1).await?;
    plain_in_lanes += plain_inserts(&pool, 3 * QUARTER..EVENTS, lanes).await?;
    let half = (2 * QUARTER) as f64;
    Ok(Measured {
        more: json!({"events": EVENTS, "accounts": ACCOUNTS, "users": ACCOUNTS * USERS,
                     "events_per_transaction": BATCH_RECORDS_MAX, "lanes": lanes,
                     "ceiling_on_as_many_connections": (half / plain_in_lanes).round()}),
        ..Measured::new(
            "project",
            "events/s",
            EVENTS as f64 / ours,
            (
                "UNNEST inserts of one journal row, one balance and one user-usage upsert per event, one connection",
                half / plain,
            ),
            "ratio 0.5",
        )
    })
}

pub fn record(number: usize) -> (ledger_core::value::id::AccountId, Vec<u8>) {
    let account = number % ACCOUNTS;
    (load::account(account), load::recorded(account, number / ACCOUNTS % USERS, number))
}

pub async fn append(
    journal: &Journal,
    records: Vec<(ledger_core::value::id::AccountId, Vec<u8>)>,
) -> Result<()> {
    for part in records.chunks(BATCH_RECORDS_MAX) {
        for appended in journal.append_all(part).await {
            appended?;
        }
    }
    Ok(())
}

async fn plain_tables(pool: &PgPool) -> Result<()> {
    sqlx::raw_sql(
        r#"create schema plain;
           create table plain.event (account_id text collate "C", event_id text collate "C", data json not null,
                                     primary key (account_id, event_id));
           create table plain.balance (account_id text collate "C" primary key, used numeric(38,9) not null);
           create table plain.user_usage (account_id text collate "C", user_id text collate "C",
                                          used numeric(38,9) not null, primary key (account_id, user_id));"#,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The columns of one plain transaction.
#[derive(Default)]
struct Columns {
    accounts: Vec<String>,
    users: Vec<String>,
    ids: Vec<String>,
    data: Vec<String>,
    amounts: Vec<&'static str>,
}

impl Columns {
    fn push(&mut self, number: usize) -> Result<()> {
        self.accounts.push(format!("account-{}", number % ACCOUNTS));
        self.users.push(format!("user-{}", number / ACCOUNTS % USERS));
        self.ids.push(format!("msg-{number}"));
        self.data.push(String::from_utf8(record(number).1)?);
        self.amounts.push("0.38");
        Ok(())
    }

    async fn insert(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let mut tx = connection.begin().await?;
        sqlx::query(
            "insert into plain.event
             select * from unnest($1::text[], $2::text[], $3::json[]) on conflict do nothing",
        )
        .bind(&self.accounts)
        .bind(&self.ids)
        .bind(&self.data)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "insert into plain.balance
             select account_id, sum(amount::numeric) from unnest($1::text[], $2::text[]) as e(account_id, amount)
             group by account_id
             on conflict (account_id) do update set used = balance.used + excluded.used",
        )
        .bind(&self.accounts)
        .bind(&self.amounts)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "insert into plain.user_usage
             select account_id, user_id, sum(amount::numeric)
             from unnest($1::text[], $2::text[], $3::text[]) as e(account_id, user_id, amount)
             group by account_id, user_id
             on conflict (account_id, user_id) do update set used = user_usage.used + excluded.used",
        )
        .bind(&self.accounts)
        .bind(&self.users)
        .bind(&self.amounts)
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }
}

/// Inserts the same events the plain way, with accounts spread over connections, and returns the seconds it took,
/// without the time to build the columns.
async fn plain_inserts(pool: &PgPool, events: std::ops::Range<usize>, connections: usize) -> Result<f64> {
    let mut writing = Vec::new();
    for lane in 0..connections {
        let numbers: Vec<usize> = events.clone().filter(|n| n % ACCOUNTS % connections == lane).collect();
        let mut batches = Vec::new();
        for part in numbers.chunks(BATCH_RECORDS_MAX / connections) {
            let mut columns = Columns::default();
            part.iter().try_for_each(|number| columns.push(*number))?;
            batches.push(columns);
        }
        let mut connection = pool.acquire().await?;
        writing.push(async move {
            for columns in &batches {
                columns.insert(&mut connection).await?;
            }
            anyhow::Ok(())
        });
    }
    let start = Instant::now();
    try_join_all(writing).await?;
    Ok(start.elapsed().as_secs_f64())
}
