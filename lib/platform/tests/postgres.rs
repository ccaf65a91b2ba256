//! Postgres: migrations, generations, snapshots and torn transactions.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::{join_all, try_join_all};
use ledger_core::value::credits::Credits;
use ledger_core::value::time::Time;
use local_stack::TestSpace;
use platform::pg::{self, Model, PgPool, Schema};
use rand::RngExt;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

local_stack::shared_test_stack!();

const CONNECTIONS: u32 = 4;
const FIRST: Schema = Schema { model: Model::ReadModel, generation: 1 };
const SECOND: Schema = Schema { model: Model::ReadModel, generation: 2 };

/// A migrated database with its first generation; dropped with the space.
struct Database {
    pool: PgPool,
    space: TestSpace,
}

async fn database() -> Result<Database> {
    let space = TestSpace::new().await?;
    let pool = pg::connect(&space.database_url, "test", CONNECTIONS).await?;
    pg::migrate(&pool).await?;
    ensure!(pg::ensure_generation(&pool, Model::ReadModel).await? == FIRST);
    Ok(Database { pool, space })
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_start_together_make_one_set_of_tables() -> Result<()> {
    let space = TestSpace::new().await?;
    let pools = try_join_all((0..4).map(|_| pg::connect(&space.database_url, "test", 2))).await?;
    let starts = pools.iter().map(|pool| async {
        pg::migrate(pool).await?;
        pg::ensure_generation(pool, Model::ReadModel).await
    });
    for started in join_all(starts).await {
        assert_eq!(started?, FIRST);
    }
    pg::migrate(&pools[0]).await?;
    let live = pg::live_generation(&pools[0], Model::ReadModel).await?;
    assert_eq!(live, Some(FIRST));
    Ok(())
}

#[tokio::test]
async fn a_database_with_another_history_is_refused() -> Result<()> {
    let database = database().await?;
    let refusal = async || match pg::migrate(&database.pool).await {
        Ok(()) => "none".to_owned(),
        Err(error) => error.to_string(),
    };
    assert_eq!(refusal().await, "none");
    sqlx::query("insert into control.migration values ('control', '9999_later', '\\x00', now())")
        .execute(&database.pool)
        .await?;
    assert!(refusal().await.contains("9999_later is unknown: this program is older"));
    sqlx::query("delete from control.migration where name = '9999_later'").execute(&database.pool).await?;
    sqlx::query("update control.migration set sha256 = '\\x00' where schema = 'read_model_1'")
        .execute(&database.pool)
        .await?;
    assert!(refusal().await.contains("read_model_1/0001_read_model was changed"));
    Ok(())
}

#[tokio::test]
async fn one_row_says_which_generation_is_live() -> Result<()> {
    let database = database().await?;
    let pool = &database.pool;
    pg::create_generation(pool, SECOND).await?;
    assert_eq!(pg::live_generation(pool, Model::ReadModel).await?, Some(FIRST));
    assert!(pg::create_generation(pool, SECOND).await.is_err(), "made twice");
    assert!(pg::drop_generation(pool, FIRST).await.is_err(), "dropped while live");

    let mut flip = pool.begin().await?;
    pg::flip(&mut flip, SECOND).await?;
    flip.rollback().await?;
    assert_eq!(pg::live_generation(pool, Model::ReadModel).await?, Some(FIRST));

    let mut flip = pool.begin().await?;
    pg::flip(&mut flip, SECOND).await?;
    flip.commit().await?;
    assert_eq!(pg::live_generation(pool, Model::ReadModel).await?, Some(SECOND));

    pg::drop_generation(pool, FIRST).await?;
    let mut connection = pool.acquire().await?;
    assert_eq!(pg::generations(&mut connection, Model::ReadModel).await?, [SECOND]);
    let mut flip = pool.begin().await?;
    assert!(pg::flip(&mut flip, FIRST).await.is_err(), "flipped to what is gone");
    Ok(())
}

#[tokio::test]
async fn a_read_is_one_snapshot_of_one_generation_and_writes_nothing() -> Result<()> {
    let database = database().await?;
    let pool = database.pool.clone();
    pg::create_generation(&pool, SECOND).await?;
    put_checkpoint(&pool, FIRST, 3, 7).await?;
    let other = pool.clone();
    let seen: Vec<i64> = pg::read(&pool, FIRST, move |connection| {
        Box::pin(async move {
            let count = "select next_offset from checkpoint where partition = 3";
            let before = sqlx::query_scalar(count).fetch_one(&mut *connection).await?;
            put_checkpoint(&other, FIRST, 3, 8).await.map_err(|error| sqlx::Error::Decode(error.into()))?;
            let after = sqlx::query_scalar(count).fetch_one(connection).await?;
            Ok::<_, sqlx::Error>(vec![before, after])
        })
    })
    .await?;
    assert_eq!(seen, [7, 7]);
    let rows: i64 = pg::read(&pool, SECOND, |connection| {
        Box::pin(sqlx::query_scalar("select count(*) from checkpoint").fetch_one(connection))
    })
    .await?;
    assert_eq!(rows, 0, "the other generation is its own");
    let written: Result<_, sqlx::Error> = pg::read(&pool, FIRST, |connection| {
        Box::pin(sqlx::query("delete from checkpoint").execute(connection))
    })
    .await;
    assert!(written.is_err_and(|error| error.to_string().contains("read-only")));
    Ok(())
}

#[tokio::test]
async fn a_pool_for_reads_writes_nothing_by_whatever_login() -> Result<()> {
    let database = database().await?;
    let reader = pg::connect_for(pg::Purpose::Reads, &database.space.database_url, "test", 2).await?;
    sqlx::query("select count(*) from read_model_1.checkpoint").execute(&reader).await?;
    assert!(sqlx::query("delete from read_model_1.checkpoint").execute(&reader).await.is_err());
    Ok(())
}

/// Fault 17: requests are dropped at any moment, and no connection goes back in the middle of a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_tears_no_transaction() -> Result<()> {
    let database = database().await?;
    let pool = &database.pool;
    for round in 0..300 {
        let mut callers = Vec::new();
        for at in 0..CONNECTIONS / 2 {
            callers.push(tokio::spawn(read_something(pool.clone())));
            callers.push(tokio::spawn(write_two_rows(pool.clone(), format!("{round}-{at}"))));
        }
        // Up to the length of a transaction; a timer is too coarse to hit the middle of a `begin`, and a count of yields
        // is over before a worker of a busy machine has polled any caller.
        let dropped_at = Instant::now() + Duration::from_micros(rand::rng().random_range(0..2_000));
        while Instant::now() < dropped_at {
            tokio::task::yield_now().await;
        }
        callers.iter().for_each(|caller| caller.abort());
        join_all(callers).await;
        none_is_in_a_transaction(pool).await?;
    }
    let (written, torn): (i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where rows <> 2)
           from (select key, count(*) as rows from control.idempotency group by key) as writes",
    )
    .fetch_one(pool)
    .await?;
    assert!(written > 0, "nothing was under test");
    assert_eq!(torn, 0, "half of a write stayed");
    Ok(())
}

/// Checks all connections of the pool at the same time; what was dropped ends by itself before.
async fn none_is_in_a_transaction(pool: &PgPool) -> Result<()> {
    let mut connections = try_join_all((0..CONNECTIONS).map(|_| pool.acquire())).await?;
    for connection in &mut connections {
        // Sent as plain text: with a prepared statement the two times differ by the steps of the protocol.
        let idle = sqlx::raw_sql(
            "select now() = statement_timestamp() as is_idle, current_setting('search_path') as search_path",
        )
        .fetch_one(&mut **connection)
        .await?;
        ensure!(idle.try_get::<bool, _>("is_idle")?, "a transaction was open");
        let path: String = idle.try_get("search_path")?;
        ensure!(!path.contains("read_model"), "{path}");
    }
    Ok(())
}

async fn read_something(pool: PgPool) -> Result<(), sqlx::Error> {
    pg::read(&pool, FIRST, |connection| {
        Box::pin(async { sqlx::query("select * from checkpoint").execute(connection).await.map(drop) })
    })
    .await
}

/// Two rows that belong together.
async fn write_two_rows(pool: PgPool, key: String) -> Result<(), sqlx::Error> {
    pg::write(&pool, move |connection| {
        Box::pin(async move {
            for kind in ["one", "two"] {
                sqlx::query(
                    "insert into control.idempotency (account_id, kind, key, content, created_at)
                     values ('', $1, $2, '\\x00', now())",
                )
                .bind(kind)
                .bind(&key)
                .execute(&mut *connection)
                .await?;
            }
            Ok(())
        })
    })
    .await
}

#[tokio::test]
async fn amounts_and_times_pass_through_postgres_unchanged() -> Result<()> {
    let database = database().await?;
    let pool = database.pool.clone();
    let amounts = ["0", "-0.000000001", "12.5", "999999999999999999.999999999"];
    for text in amounts {
        let amount: Credits = text.parse()?;
        let back: String = sqlx::query_scalar("select ($1::text::numeric(38,9))::text")
            .bind(pg::numeric_text(amount))
            .fetch_one(&pool)
            .await?;
        assert_eq!(pg::credits_of(&back)?, amount);
    }
    for text in ["0001-01-01T00:00:00Z", "2026-02-03T10:00:00.000001Z", "9999-12-31T23:59:59.999999Z"] {
        let time: Time = text.parse()?;
        let back =
            sqlx::query_scalar("select $1::timestamptz").bind(pg::timestamp(time)).fetch_one(&pool).await?;
        assert_eq!(pg::time_of(back), time);
    }
    Ok(())
}

#[tokio::test]
async fn a_published_rate_card_never_changes() -> Result<()> {
    let database = database().await?;
    let pool = database.pool.clone();
    sqlx::query("insert into control.rate_card values ('standard', 1, '{}', '\\x00', now(), 'operator')")
        .execute(&pool)
        .await?;
    let changed = sqlx::query("update control.rate_card set body = '{\"meters\":[]}'").execute(&pool).await;
    assert!(changed.is_err());
    assert!(sqlx::query("delete from control.rate_card").execute(&pool).await.is_err());
    Ok(())
}

async fn put_checkpoint(pool: &PgPool, schema: Schema, partition: i32, next_offset: i64) -> Result<()> {
    let sql = format!(
        "insert into {schema}.checkpoint (partition, next_offset, fold_version, log_id)
         values ($1, $2, 1, $3)
         on conflict (partition) do update set next_offset = excluded.next_offset"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(partition).bind(next_offset).bind(Uuid::nil()).execute(pool).await?;
    Ok(())
}
