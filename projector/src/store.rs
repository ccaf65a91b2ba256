//! Store: writes a batch's rows with one statement per table, over arrays in key order.

use std::collections::HashSet;

use chrono::{DateTime, NaiveDate, Utc};
use engine::consume::WorkerError;
use engine::fold::{Account, write_reversals};
use engine::tables::account::name_key;
use engine::tables::user_total::COUNTERS_WITHOUT_TOTALS;
use ledger_core::account::Core;
use ledger_core::value::id::RateCardId;
use platform::heartbeat;
use platform::pg::{Amount, column, timestamp};
use serde::Serialize;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{FromRow, PgConnection, Postgres};

use crate::changes::{Changes, clock_name};
use crate::counters::{CategoryKey, Rollup, RollupKey, Sum, UserKey};

#[derive(Debug)]
pub struct AccountRow<'a> {
    pub core: &'a Core,
    pub partition: i32,
    pub offset: i64,
}

impl<'a> AccountRow<'a> {
    /// Returns an account's row, if the batch folded an event of it and it is open.
    pub fn of(account: &'a Account<()>) -> Option<AccountRow<'a>> {
        let (core, offset) = (account.core.as_ref()?, account.folded?);
        Some(AccountRow { core, partition: account.partition, offset })
    }
}

const INSERT_EVENTS: &str = r#"
    insert into event (account_id, "offset", event_id, source, type, outcome, reason, content, occurred_at, recordedat,
                       appended_at, ledger_time, actor, data, period_index, user_id, message_id, credits, lots,
                       line_start, line_end, balance_after, credit_balance_after, entry_seq, call_id, duplicate_of,
                       duplicate_of_source)
    select *
    from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[],
                $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::text[],
                $14::json[], $15::bigint[], $16::text[], $17::text[], $18::numeric[], $19::json[], $20::numeric[],
                $21::numeric[], $22::numeric[], $23::numeric[], $24::int[], $25::text[], $26::text[], $27::text[])"#;

const INSERT_REFUSED: &str = r#"
    insert into refused (account_id, "offset", event_id, source, type, outcome, reason, recorded_at, data)
    select *
    from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                $8::timestamptz[], $9::json[])"#;

const INSERT_ENTRIES: &str = r#"
    insert into entry (account_id, "offset", seq, type, amount, balance_after, credit_balance_after, event_id,
                       recorded_at, occurred_at, lots, overdraft)
    select *
    from unnest($1::text[], $2::bigint[], $3::int[], $4::text[], $5::numeric[], $6::numeric[], $7::numeric[],
                $8::text[], $9::timestamptz[], $10::timestamptz[], $11::json[], $12::numeric[])"#;

const INSERT_PERIODS: &str = "
    insert into period (account_id, index, starts_at, ends_at, used, granted, expired, rolled_over, maximum)
    select *
    from unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::numeric[], $6::numeric[],
                $7::numeric[], $8::numeric[], $9::numeric[])";

const INSERT_SNAPSHOTS: &str = r#"
    insert into snapshot (account_id, "offset", ledger_time, core)
    select *
    from unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::jsonb[])"#;

// Usage that names a hold which other usage has ended is still charged; the first usage stays recorded for the hold.
const INSERT_ENDED_HOLDS: &str = "
    insert into ended_hold (account_id, reservation_id, event_id)
    select *
    from unnest($1::text[], $2::text[], $3::text[])
    on conflict (account_id, reservation_id) do nothing";

// A record is named by its place in the log: one that is stored already is the same.
const INSERT_DEAD_LETTERS: &str = r#"
    insert into dead_letter (partition, "offset", appended_at, reason, key, value)
    select *
    from unnest($1::int[], $2::bigint[], $3::timestamptz[], $4::text[], $5::bytea[], $6::bytea[])
    on conflict (partition, "offset") do nothing"#;

pub async fn write(
    tx: &mut PgConnection,
    changes: Changes,
    accounts: &[AccountRow<'_>],
) -> Result<(), WorkerError> {
    for (rows, statement) in [
        (&changes.events, INSERT_EVENTS),
        (&changes.refused, INSERT_REFUSED),
        (&changes.entries, INSERT_ENTRIES),
        (&changes.periods, INSERT_PERIODS),
        (&changes.snapshots, INSERT_SNAPSHOTS),
        (&changes.ended_holds, INSERT_ENDED_HOLDS),
        (&changes.dead_letters, INSERT_DEAD_LETTERS),
    ] {
        rows.send(&mut *tx, statement).await?;
    }
    write_accounts(&mut *tx, accounts).await?;
    changes.own_limits.write(&mut *tx).await?;
    heartbeat::beat();
    // Written after the events: a batch may record usage and reverse it.
    write_reversals(&mut *tx, &changes.reversed).await?;
    let counters = changes.counters;
    let users: Vec<(UserKey, Sum)> = counters.users.into_iter().collect();
    write_users(&mut *tx, &users).await?;
    heartbeat::beat();
    write_categories(&mut *tx, counters.categories.into_iter().collect()).await?;
    write_days(&mut *tx, counters.days.into_iter().collect()).await?;
    write_rollups(&mut *tx, counters.rollups.into_iter().collect()).await
}

const UPSERT_ACCOUNTS: &str = include_str!("upsert_accounts.sql");

async fn write_accounts(tx: &mut PgConnection, rows: &[AccountRow<'_>]) -> Result<(), WorkerError> {
    if rows.is_empty() {
        return Ok(());
    }
    let cores: Vec<String> = rows.iter().map(|row| json(row.core)).collect();
    let next_dues: Vec<Option<DateTime<Utc>>> =
        rows.iter().map(|row| ledger_core::policy::due::next_due(row.core).map(timestamp)).collect();
    let cards: Vec<Option<&str>> =
        rows.iter().map(|row| row.core.plan.rate_card.as_ref().map(RateCardId::as_str)).collect();
    let name_keys: Vec<Option<String>> =
        rows.iter().map(|row| row.core.name.as_ref().map(|name| name_key(name.as_str()))).collect();
    sqlx::query(UPSERT_ACCOUNTS)
        .bind(column(rows, |row| row.core.account.as_str()))
        .bind(column(rows, |row| row.partition))
        .bind(column(rows, |row| row.offset))
        .bind(column(rows, |row| row.core.events.cast_signed()))
        .bind(column(rows, |row| timestamp(row.core.ledger_time)))
        .bind(next_dues)
        .bind(column(rows, |row| clock_name(row.core.clock)))
        .bind(cards)
        .bind(column(rows, |row| timestamp(row.core.opened_at)))
        .bind(cores)
        .bind(column(rows, |row| row.core.closed.as_ref().map(|closing| timestamp(closing.at))))
        .bind(name_keys)
        .execute(tx)
        .await?;
    Ok(())
}

const UPSERT_USERS: &str = include_str!("upsert_users.sql");

/// A period of an account that has totals of its users.
#[derive(Debug, FromRow)]
struct Totalled {
    account_id: String,
    period_index: i64,
    /// Whether this batch made it so large.
    is_filled_now: bool,
}

async fn write_users(tx: &mut PgConnection, rows: &[(UserKey, Sum)]) -> Result<(), WorkerError> {
    if rows.is_empty() {
        return Ok(());
    }
    let totalled: Vec<Totalled> = sqlx::query_as(UPSERT_USERS)
        .bind(column(rows, |(key, _)| key.account.as_str()))
        .bind(column(rows, |(key, _)| key.period_index))
        .bind(column(rows, |(key, _)| key.user.as_str()))
        .bind(column(rows, |(key, _)| absent_as_empty(&key.feature)))
        .bind(column(rows, |(_, sum)| Amount(sum.credits)))
        .bind(column(rows, |(_, sum)| sum.events))
        .bind(COUNTERS_WITHOUT_TOTALS)
        .fetch_all(&mut *tx)
        .await?;
    let (filled, kept): (Vec<Totalled>, Vec<Totalled>) =
        totalled.into_iter().partition(|period| period.is_filled_now);
    fill_totals(&mut *tx, &filled).await?;
    let kept: HashSet<(&str, i64)> =
        kept.iter().map(|period| (period.account_id.as_str(), period.period_index)).collect();
    let totals =
        totals(rows.iter().filter(|(key, _)| kept.contains(&(key.account.as_str(), key.period_index))));
    add_to_totals(tx, &totals).await
}

/// Returns the sums of users over all features; rows come in the order of their keys.
fn totals<'a>(rows: impl Iterator<Item = &'a (UserKey, Sum)>) -> Vec<(&'a UserKey, Sum)> {
    let mut totals: Vec<(&UserKey, Sum)> = Vec::new();
    for (key, sum) in rows {
        match totals.last_mut() {
            Some((of, total)) if of.is_of_same_user(key) => total.add(*sum),
            _ => totals.push((key, *sum)),
        }
    }
    totals
}

async fn add_to_totals(tx: &mut PgConnection, rows: &[(&UserKey, Sum)]) -> Result<(), WorkerError> {
    if rows.is_empty() {
        return Ok(());
    }
    // Adds the batch's sums, not totals: any split of the log leaves the same rows.
    sqlx::query(
        "insert into user_total (account_id, period_index, user_id, used, events)
         select *
         from unnest($1::text[], $2::bigint[], $3::text[], $4::numeric[], $5::bigint[])
         on conflict (account_id, period_index, user_id) do update
         set used   = user_total.used   + excluded.used,
             events = user_total.events + excluded.events",
    )
    .bind(column(rows, |(key, _)| key.account.as_str()))
    .bind(column(rows, |(key, _)| key.period_index))
    .bind(column(rows, |(key, _)| key.user.as_str()))
    .bind(column(rows, |(_, sum)| Amount(sum.credits)))
    .bind(column(rows, |(_, sum)| sum.events))
    .execute(tx)
    .await?;
    Ok(())
}

/// Sums up periods that are large from this batch on, with what it has added.
async fn fill_totals(tx: &mut PgConnection, periods: &[Totalled]) -> Result<(), WorkerError> {
    if periods.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into user_total (account_id, period_index, user_id, used, events)
         select account_id, period_index, user_id, sum(used), sum(events)
         from unnest($1::text[], $2::bigint[]) as large (account_id, period_index)
         join user_usage using (account_id, period_index)
         group by account_id, period_index, user_id",
    )
    .bind(column(periods, |period| period.account_id.as_str()))
    .bind(column(periods, |period| period.period_index))
    .execute(tx)
    .await?;
    Ok(())
}

async fn write_categories(tx: &mut PgConnection, rows: Vec<(CategoryKey, Sum)>) -> Result<(), WorkerError> {
    if rows.is_empty() {
        return Ok(());
    }
    // Adds the batch's sums, not totals: any split of the log leaves the same rows.
    sqlx::query(
        "insert into category_usage (account_id, period_index, category, credits, events)
         select *
         from unnest($1::text[], $2::bigint[], $3::text[], $4::numeric[], $5::bigint[])
         on conflict (account_id, period_index, category) do update
         set credits = category_usage.credits + excluded.credits,
             events  = category_usage.events  + excluded.events",
    )
    .bind(column(&rows, |(key, _)| key.account.as_str()))
    .bind(column(&rows, |(key, _)| key.period_index))
    .bind(column(&rows, |(key, _)| absent_as_empty(&key.category)))
    .bind(column(&rows, |(_, sum)| Amount(sum.credits)))
    .bind(column(&rows, |(_, sum)| sum.events))
    .execute(tx)
    .await?;
    Ok(())
}

// Both add the batch's sums, not totals: any split of the log leaves the same rows.
const ADD_DAYS: &str = "
    insert into daily_usage (account_id, period_index, day, category, tier, model, feature, org_id, credits, events,
                             quantities)
    select account_id, period_index, day, category, tier, model, feature, org_id, credits, events,
           quantities::jsonb
    from unnest($1::text[], $2::bigint[], $3::date[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::numeric[], $10::bigint[], $11::text[])
         as new (account_id, period_index, day, category, tier, model, feature, org_id, credits, events, quantities)
    on conflict (account_id, period_index, day, category, tier, model, feature, org_id) do update
    set credits    = daily_usage.credits + excluded.credits,
        events     = daily_usage.events  + excluded.events,
        quantities = add_quantities(daily_usage.quantities, excluded.quantities)";

const ADD_ROLLUPS: &str = "
    insert into usage_rollup (account_id, period_index, day, user_id, category, tier, model, feature, org_id, credits,
                              events, quantities)
    select account_id, period_index, day, user_id, category, tier, model, feature, org_id, credits, events,
           quantities::jsonb
    from unnest($1::text[], $2::bigint[], $3::date[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::numeric[], $10::bigint[], $11::text[], $12::text[])
         as new (account_id, period_index, day, category, tier, model, feature, org_id, credits, events, quantities,
                 user_id)
    on conflict (account_id, period_index, user_id, day, category, tier, model, feature, org_id) do update
    set credits    = usage_rollup.credits + excluded.credits,
        events     = usage_rollup.events  + excluded.events,
        quantities = add_quantities(usage_rollup.quantities, excluded.quantities)";

async fn write_days(tx: &mut PgConnection, rows: Vec<(RollupKey, Rollup)>) -> Result<(), WorkerError> {
    if !rows.is_empty() {
        bind_sums(sqlx::query(ADD_DAYS), &rows).execute(tx).await?;
    }
    Ok(())
}

async fn write_rollups(tx: &mut PgConnection, rows: Vec<(RollupKey, Rollup)>) -> Result<(), WorkerError> {
    if !rows.is_empty() {
        let users = column(&rows, |(key, _)| absent_as_empty(&key.user));
        bind_sums(sqlx::query(ADD_ROLLUPS), &rows).bind(users).execute(tx).await?;
    }
    Ok(())
}

/// Binds the sums with all of their dimensions but the user.
fn bind_sums<'q>(
    query: Query<'q, Postgres, PgArguments>,
    rows: &'q [(RollupKey, Rollup)],
) -> Query<'q, Postgres, PgArguments> {
    let days: Vec<Option<NaiveDate>> = rows.iter().map(|(key, _)| key.day.to_chrono()).collect();
    query
        .bind(column(rows, |(key, _)| key.account.as_str()))
        .bind(column(rows, |(key, _)| key.period_index))
        .bind(days)
        .bind(column(rows, |(key, _)| absent_as_empty(&key.category)))
        .bind(column(rows, |(key, _)| absent_as_empty(&key.tier)))
        .bind(column(rows, |(key, _)| absent_as_empty(&key.model)))
        .bind(column(rows, |(key, _)| absent_as_empty(&key.feature)))
        .bind(column(rows, |(key, _)| absent_as_empty(&key.org)))
        .bind(column(rows, |(_, rollup)| Amount(rollup.sum.credits)))
        .bind(column(rows, |(_, rollup)| rollup.sum.events))
        .bind(column(rows, |(_, rollup)| json(&rollup.quantities)))
}

/// Maps an absent dimension to the empty string: nulls are never equal in a primary key.
fn absent_as_empty(name: &Option<impl AsRef<str>>) -> &str {
    name.as_ref().map_or("", AsRef::as_ref)
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("the ledger's own types are plain JSON with string keys")
}
