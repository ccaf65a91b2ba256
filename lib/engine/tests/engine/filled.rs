//! Filled: what migrations fill in for rows from before them is what the projector writes after them.

use std::fs;

use anyhow::{Context, Result, ensure};
use engine::tables::account::{NAME_KEY_CHARACTERS_MAX, name_key};
use engine::tables::user_total::{COUNTERS_WITHOUT_TOTALS, Magnitude};
use ledger_core::value::credits::Credits;
use platform::pg::{self, PgPool};
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::database;

/// The first migration whose filling is looked at.
const FIRST: &str = "0008";

/// Makes the tables as they were before that migration.
async fn before(pool: &PgPool) -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/read_model");
    let mut files: Vec<_> = fs::read_dir(folder)?.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut tables = "drop schema read_model_1 cascade; create schema read_model_1;
                      set local search_path = read_model_1;"
        .to_owned();
    for file in files {
        let name = file.file_name().and_then(|name| name.to_str()).context("a file name")?;
        if name < FIRST {
            tables += &fs::read_to_string(&file)?;
        }
    }
    let forget =
        format!("delete from control.migration where schema = 'read_model_1' and name >= '{FIRST}';");
    let mut tx = pool.begin().await?;
    sqlx::raw_sql(AssertSqlSafe(tables + &forget)).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

#[tokio::test]
async fn names_from_before_the_migration_have_the_keys_that_a_rebuild_gives_them() -> Result<()> {
    let database = database().await?;
    // JSON in Postgres has no NUL.
    let every: Vec<char> = ('\u{1}'..=char::MAX).collect();
    let mut names: Vec<String> =
        every.chunks(NAME_KEY_CHARACTERS_MAX).map(|part| part.iter().collect()).collect();
    names.extend(["Acme GmbH".to_owned(), String::new(), "É".repeat(1_000)]);
    let mut cores: Vec<String> = names.iter().map(|name| json!({"name": name}).to_string()).collect();
    cores.extend([json!({"name": null}).to_string(), "{}".to_owned()]);
    before(&database.pool).await?;
    sqlx::query(
        r#"insert into read_model_1.account
                  (account_id, partition, "offset", events, ledger_time, clock, opened_at, core)
           select n::text, 0, 1, 1, now(), 'live', now(), core::jsonb
           from unnest($1::text[]) with ordinality as new (core, n)"#,
    )
    .bind(&cores)
    .execute(&database.pool)
    .await?;

    pg::migrate(&database.pool).await?;
    let keys: Vec<Option<String>> =
        sqlx::query_scalar("select name_key from read_model_1.account order by account_id::int")
            .fetch_all(&database.pool)
            .await?;
    ensure!(keys.len() == cores.len());
    for (at, key) in keys.iter().enumerate() {
        let expected = names.get(at).map(|name| name_key(name));
        ensure!(*key == expected, "{:?}: {key:?}, not {expected:?}", names.get(at));
    }
    Ok(())
}

#[tokio::test]
async fn totals_from_before_the_migration_are_the_sums_of_features() -> Result<()> {
    let database = database().await?;
    before(&database.pool).await?;
    // One counter more than what is read whole, and as many as are.
    for (account, counters) in [("large", COUNTERS_WITHOUT_TOTALS + 1), ("small", COUNTERS_WITHOUT_TOTALS)] {
        sqlx::query(
            "insert into read_model_1.user_usage
             select $1, 0, user_id, feature, used, events
             from (values ('ana', '', 1.5, 2), ('ana', 'chat', 0.38, 9), ('bo', 'chat', 0, 1), ('cy', 'chat', 123.4, 11))
                  as new (user_id, feature, used, events)
             union all
             select $1, 0, 'user' || n, 'chat', 7, 1 from generate_series(1, $2 - 4) as n",
        )
        .bind(account)
        .bind(counters)
        .execute(&database.pool)
        .await?;
    }
    pg::migrate(&database.pool).await?;
    let totals: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', account_id, period_index, user_id, trim_scale(used), events)
           from read_model_1.user_total
          where user_id in ('ana', 'bo', 'cy', 'user1')
          order by account_id, period_index, user_id",
    )
    .fetch_all(&database.pool)
    .await?;
    let expected = ["large 0 ana 1.88 11", "large 0 bo 0 1", "large 0 cy 123.4 11", "large 0 user1 7 1"];
    ensure!(totals == expected, "{totals:?}");
    let counts: Vec<i64> =
        sqlx::query_scalar("select counters from read_model_1.user_usage_count order by account_id")
            .fetch_all(&database.pool)
            .await?;
    ensure!(counts == [COUNTERS_WITHOUT_TOTALS + 1, COUNTERS_WITHOUT_TOTALS], "{counts:?}");
    Ok(())
}

#[tokio::test]
async fn days_from_before_the_migration_are_the_sums_of_users() -> Result<()> {
    let database = database().await?;
    before(&database.pool).await?;
    sqlx::query(
        r#"insert into read_model_1.usage_rollup
           select 'acme', 0, day::date, user_id, 'ai', '', model, '', '', credits, events, quantities::jsonb
           from (values ('2026-01-01', 'ana', 'a', 1.5, 2, '{"tokens": "7.5", "seconds": "3"}'),
                        ('2026-01-01', 'bo', 'a', 0.25, 1, '{"tokens": "2.5", "seconds": "-3"}'),
                        ('2026-01-01', '', 'b', 1, 1, '{}'),
                        ('2026-01-02', 'ana', 'a', 0, 0, '{}'))
                as new (day, user_id, model, credits, events, quantities)"#,
    )
    .execute(&database.pool)
    .await?;
    pg::migrate(&database.pool).await?;
    let days: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', day, model, trim_scale(credits), events, quantities)
           from read_model_1.daily_usage
          where (account_id, period_index, category, tier, feature, org_id) = ('acme', 0, 'ai', '', '', '')
          order by day, model",
    )
    .fetch_all(&database.pool)
    .await?;
    let expected = [r#"2026-01-01 a 1.75 3 {"tokens": "10"}"#, "2026-01-01 b 1 1 {}", "2026-01-02 a 0 0 {}"];
    ensure!(days == expected, "{days:?}");
    Ok(())
}

#[tokio::test]
async fn the_database_ranks_amounts_as_the_reader_does() -> Result<()> {
    let database = database().await?;
    let mut amounts: Vec<Credits> = Vec::new();
    for power in 0..38 {
        let unit = 10_i128.pow(power);
        amounts.extend([unit - 1, unit, unit + 1, unit / 10 * 12, unit / 10 * 99].map(Credits::from_units));
    }
    amounts.push(Credits::from_units(10_i128.pow(38) - 1));
    let texts: Vec<String> = amounts.iter().map(ToString::to_string).collect();
    let ranks: Vec<(i64, i64)> = sqlx::query_as(
        "with of as (
             insert into read_model_1.user_total (account_id, period_index, user_id, used, events)
             select 'acme', events, n, amount::numeric, events
             from unnest($1::text[]) with ordinality as new (amount, n), unnest(array[10, 11]) as events
             returning user_id::int as n, events, rank
         )
         select exact.rank, bounded.rank
         from of as exact join of as bounded using (n)
         where exact.events = 10 and bounded.events = 11
         order by n",
    )
    .bind(&texts)
    .fetch_all(&database.pool)
    .await?;
    ensure!(ranks.len() == amounts.len());
    for (amount, ranks) in amounts.iter().zip(ranks) {
        let magnitude = Magnitude::of(*amount);
        let expected = (magnitude.rank(), magnitude.bucket_end().rank());
        ensure!(ranks == expected, "{amount}: {ranks:?}, not {expected:?}");
    }
    Ok(())
}
