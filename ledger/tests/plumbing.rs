//! The plumbing on a real Postgres: tables, generations, torn transactions, keys and waiting.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::HeaderMap;
use futures::future::{join_all, try_join_all};
use ledger::stack::TestSpace;
use ledger_core::value::credits::Credits;
use ledger_core::event::{Data, Event};
use ledger_core::value::id::{EventId, Id, Label, Source};
use ledger_core::value::time::Time;
use rand::RngExt;
use platform::clock;
use platform::pg::{self, Model, PgPool, Schema};
use platform::position::Position;
use platform::shutdown::CancellationToken;
use engine::outbox;
use engine::progress::{WaitConfig, Waiter};
use engine::progress_channel::payload;
use web::auth::{Auth, AuthConfig, NewKey, Principal, create_key, list_keys, revoke_key};
use web::http::ops::Readiness;
use serde_json::json;
use sqlx::{AssertSqlSafe, Row};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

const CONNECTIONS: u32 = 4;
const FIRST: Schema = Schema { model: Model::ReadModel, generation: 1 };
const SECOND: Schema = Schema { model: Model::ReadModel, generation: 2 };

/// A migrated database with its first generation; dropped with the space.
struct Place {
    pool: PgPool,
    space: TestSpace,
}

async fn place() -> Result<Place> {
    let space = TestSpace::new().await?;
    let pool = pg::connect(&space.database_url, "test", CONNECTIONS).await?;
    pg::migrate(&pool).await?;
    ensure!(pg::ensure_generation(&pool, Model::ReadModel).await? == FIRST);
    Ok(Place { pool, space })
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

/// A usage event of an account, by its id.
fn usage(account: &str, id: &str) -> Result<Event> {
    let (now, usage) = (clock::now(), json!({"credits": "1"}));
    Ok(Event {
        id: EventId::new(id)?,
        source: Source::new("/app")?,
        account: Id::new(account)?,
        occurred_at: now,
        recorded_at: now,
        actor: Label::new("k")?,
        data: Data::UsageRecorded(serde_json::from_value(usage)?),
    })
}

/// Takes what is due, and says whose it is: `acme/u1`.
async fn taken(pool: &PgPool) -> Result<Vec<outbox::Waiting>> {
    Ok(outbox::take_due(pool).await?)
}

fn named(waiting: &[outbox::Waiting]) -> Vec<String> {
    waiting.iter().map(|one| format!("{}/{}", one.account, one.event_id)).collect()
}

#[tokio::test]
async fn records_of_an_account_leave_the_outbox_in_their_order() -> Result<()> {
    let place = place().await?;
    ensure!(outbox::oldest_seconds(&place.pool).await? == 0.0, "nothing waits");
    let mut connection = place.pool.acquire().await?;
    let mut places = Vec::new();
    for (account, id) in [("acme", "u1"), ("acme", "u2"), ("beta", "u3"), ("acme", "u4")] {
        places.push(outbox::put(&mut connection, &usage(account, id)?, 0.0).await?);
    }
    // One that settles a hold waits for nobody.
    sqlx::query("update control.outbox set reservation_id = 'r' where outbox_id = $1")
        .bind(places[3])
        .execute(&mut *connection)
        .await?;
    ensure!(outbox::oldest_seconds(&place.pool).await? > 0.0);
    let acme = Id::new("acme")?;
    ensure!(outbox::is_first(&place.pool, &acme, places[0]).await?);
    ensure!(!outbox::is_first(&place.pool, &acme, places[1]).await?);
    let first = taken(&place.pool).await?;
    ensure!(named(&first) == ["acme/u1", "beta/u3", "acme/u4"], "{first:?}");
    // Whoever has the first is at it, or has failed: the second is nobody's.
    ensure!(taken(&place.pool).await?.is_empty());
    outbox::done(&place.pool, vec![places[0], places[3]]).await?;
    ensure!(outbox::is_first(&place.pool, &acme, places[1]).await?);
    let second = taken(&place.pool).await?;
    ensure!(named(&second) == ["acme/u2"], "{second:?}");
    Ok(())
}

#[tokio::test]
async fn a_database_with_another_history_is_refused() -> Result<()> {
    let place = place().await?;
    let refusal = async || match pg::migrate(&place.pool).await {
        Ok(()) => "none".to_owned(),
        Err(error) => error.to_string(),
    };
    assert_eq!(refusal().await, "none");
    sqlx::query("insert into control.migration values ('control', '9999_later', '\\x00', now())")
        .execute(&place.pool)
        .await?;
    assert!(refusal().await.contains("9999_later is unknown: this program is older"));
    sqlx::query("delete from control.migration where name = '9999_later'").execute(&place.pool).await?;
    sqlx::query("update control.migration set sha256 = '\\x00' where schema = 'read_model_1'")
        .execute(&place.pool)
        .await?;
    assert!(refusal().await.contains("read_model_1/0001_read_model was changed"));
    Ok(())
}

#[tokio::test]
async fn one_row_says_which_generation_is_live() -> Result<()> {
    let place = place().await?;
    let pool = &place.pool;
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
    let place = place().await?;
    let pool = place.pool.clone();
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
async fn the_reading_service_can_not_write_nor_see_what_is_for_writing() -> Result<()> {
    let place = place().await?;
    let reader = pg::connect_read_only(&place.space.database_url, "test", 2).await?;
    sqlx::query("select count(*) from control.generation").execute(&reader).await?;
    sqlx::query("select count(*) from read_model_1.checkpoint").execute(&reader).await?;
    let refused = async |sql: &'static str| sqlx::query(sql).execute(&reader).await.err();
    assert!(refused("delete from read_model_1.checkpoint").await.is_some());
    assert!(refused("delete from control.api_key").await.is_some());
    assert!(refused("select count(*) from control.idempotency").await.is_some());
    assert!(refused("select webhook_secret from control.contacts").await.is_some());
    assert!(refused("select address from delivery.notification").await.is_some());
    sqlx::query("select recipient, status, text from delivery.notification").execute(&reader).await?;
    // Also with the session's own brake taken off, the role holds.
    sqlx::query("set default_transaction_read_only = off").execute(&reader).await?;
    assert!(refused("delete from read_model_1.checkpoint").await.is_some());
    Ok(())
}

/// Fault 17: requests are dropped at any moment, and no connection goes back in the middle of a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_tears_no_transaction() -> Result<()> {
    let place = place().await?;
    let pool = &place.pool;
    for round in 0..300 {
        let mut callers = Vec::new();
        for at in 0..CONNECTIONS / 2 {
            callers.push(tokio::spawn(read_something(pool.clone())));
            callers.push(tokio::spawn(write_two_rows(pool.clone(), format!("{round}-{at}"))));
        }
        // Some microseconds: timers are too coarse to hit the middle of a `begin`.
        for _ in 0..rand::rng().random_range(0..300) {
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

/// Looks at all connections of the pool at the same time; what was dropped ends by itself before.
async fn none_is_in_a_transaction(pool: &PgPool) -> Result<()> {
    let mut connections = try_join_all((0..CONNECTIONS).map(|_| pool.acquire())).await?;
    for connection in &mut connections {
        // Sent as plain text: with a prepared statement the two times differ by the steps of the protocol.
        let idle = sqlx::raw_sql("select now() = statement_timestamp(), current_setting('search_path')")
            .fetch_one(&mut **connection)
            .await?;
        ensure!(idle.try_get::<bool, _>(0)?, "a transaction was open");
        let path: String = idle.try_get(1)?;
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

/// Two rows that only make sense together.
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
    let place = place().await?;
    let pool = place.pool.clone();
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
    let place = place().await?;
    let pool = place.pool.clone();
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

async fn notify(pool: &PgPool, channel: &str, text: &str) -> Result<()> {
    sqlx::query("select pg_notify($1, $2)").bind(channel).bind(text).execute(pool).await?;
    Ok(())
}

fn at(partition: i32, offset: i64) -> Position {
    Position { partition, offset }
}

fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_waiter_hears_of_a_batch_and_the_poll_stands_behind() -> Result<()> {
    let place = place().await?;
    let pool = place.pool.clone();
    put_checkpoint(&pool, FIRST, 3, 5).await?;
    let waiter =
        Waiter::listen(pool.clone(), Model::ReadModel, WaitConfig::default(), CancellationToken::new())
            .await?;
    assert!(waiter.wait_for(at(3, 4), Instant::now()).await, "projected before it came");
    assert!(!waiter.wait_for(at(3, 5), Instant::now() + Duration::from_millis(600)).await);

    // Told, though no table says so: only the notification can have woken.
    let text = payload(FIRST, &[at(3, 6)]).context("short")?;
    eventually(async || {
        notify(&pool, engine::progress_channel::PROJECTED_CHANNEL, &text).await?;
        Ok(waiter.wait_for(at(3, 5), Instant::now() + Duration::from_millis(100)).await)
    })
    .await?;

    // In the table, though nobody was told.
    put_checkpoint(&pool, FIRST, 4, 10).await?;
    assert!(waiter.wait_for(at(4, 9), within(30)).await);
    assert_eq!(waiter.next_offset(4), 10);
    Ok(())
}

#[tokio::test]
async fn a_waiter_goes_on_after_its_connection_is_cut() -> Result<()> {
    let place = place().await?;
    let pool = place.pool.clone();
    let waiter =
        Waiter::listen(pool.clone(), Model::ReadModel, WaitConfig::default(), CancellationToken::new())
            .await?;
    let listening = "select count(*) from pg_stat_activity
                      where datname = current_database() and query like 'LISTEN%'";
    eventually(async || Ok(sqlx::query_scalar::<_, i64>(listening).fetch_one(&pool).await? == 1)).await?;
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and query like 'LISTEN%'",
    )
    .execute(&pool)
    .await?;
    let text = payload(FIRST, &[at(1, 1)]).context("short")?;
    eventually(async || {
        notify(&pool, engine::progress_channel::PROJECTED_CHANNEL, &text).await?;
        Ok(waiter.wait_for(at(1, 0), Instant::now() + Duration::from_millis(100)).await)
    })
    .await
}

#[tokio::test]
async fn a_waiter_follows_a_flip() -> Result<()> {
    let place = place().await?;
    let pool = place.pool.clone();
    let waiter =
        Waiter::listen(pool.clone(), Model::ReadModel, WaitConfig::default(), CancellationToken::new())
            .await?;
    assert_eq!(waiter.schema(), FIRST);
    pg::create_generation(&pool, SECOND).await?;
    put_checkpoint(&pool, SECOND, 3, 9).await?;
    assert!(!waiter.wait_for(at(3, 8), Instant::now() + Duration::from_millis(400)).await, "not live yet");
    let mut flip = pool.begin().await?;
    pg::flip(&mut flip, SECOND).await?;
    flip.commit().await?;
    assert!(waiter.wait_for(at(3, 8), within(30)).await);
    assert_eq!(waiter.schema(), SECOND);
    Ok(())
}

/// Tries until it holds; the longest a reconnect may take is the limit.
async fn eventually(check: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let end = within(60);
    while !check().await? {
        ensure!(Instant::now() < end, "not within 60 s");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn principal_of(auth: &Auth, secret: &str) -> Result<Principal, u16> {
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {secret}").parse().map_err(|_| 0_u16)?;
    headers.insert("authorization", bearer);
    auth.principal(&headers).await.map_err(|problem| problem.status.as_u16())
}

fn asked(body: &str) -> Result<NewKey> {
    Ok(serde_json::from_str(body)?)
}

#[tokio::test]
async fn a_key_lets_in_until_it_is_revoked() -> Result<()> {
    let place = place().await?;
    let pool = place.pool.clone();
    let auth = Auth::new(pool.clone(), &AuthConfig::default())?;
    let wanted = asked(r#"{"role":"member","accounts":["acme"],"user_id":"ana","name":"Ana"}"#)?;
    let mut connection = pool.acquire().await?;
    let made = create_key(&mut connection, &wanted, "cli", clock::now()).await?;

    let member = principal_of(&auth, &made.secret).await.map_err(|status| anyhow::anyhow!("{status}"))?;
    assert_eq!(&*member.key_id, made.key.key_id.as_str());
    assert_eq!(member.only_user(), Some("ana"));
    let mut wrong = made.secret.clone();
    wrong.pop();
    wrong.push(if made.secret.ends_with('A') { 'B' } else { 'A' });
    assert_eq!(principal_of(&auth, &wrong).await.err(), Some(401));

    let listed = list_keys(&pool, None, 10).await?;
    assert_eq!(listed.as_slice(), std::slice::from_ref(&made.key));
    let kept: String = sqlx::query_scalar("select encode(hash, 'escape') || name from control.api_key")
        .fetch_one(&pool)
        .await?;
    assert!(!made.secret.contains(&kept) && !kept.contains(&made.secret), "the secret was kept");

    let revoked = revoke_key(&mut connection, &made.key.key_id, clock::now()).await?.context("known")?;
    let again = revoke_key(&mut connection, &made.key.key_id, clock::now()).await?.context("known")?;
    assert_eq!(revoked.revoked_at, again.revoked_at);
    assert!(revoke_key(&mut connection, "unknown", clock::now()).await?.is_none());
    sleep(Duration::from_millis(1_050)).await;
    assert_eq!(principal_of(&auth, &made.secret).await.err(), Some(401));
    Ok(())
}

#[tokio::test]
async fn a_key_stops_at_its_expiry_without_being_read_again() -> Result<()> {
    let place = place().await?;
    let pool = place.pool.clone();
    let auth = Auth::new(pool.clone(), &AuthConfig::default())?;
    let mut wanted = asked(r#"{"role":"auditor"}"#)?;
    let mut connection = pool.acquire().await?;
    // A machine that stalls may find it ended before it was read once: then a longer one.
    for lives in [400, 1_000, 3_000, 10_000] {
        wanted.expires_at = Some(clock::now().plus_micros(lives * 1_000));
        let made = create_key(&mut connection, &wanted, "cli", clock::now()).await?;
        if principal_of(&auth, &made.secret).await.is_ok() {
            sleep(Duration::from_millis(u64::try_from(lives)? + 50)).await;
            assert_eq!(principal_of(&auth, &made.secret).await.err(), Some(401));
            return Ok(());
        }
    }
    anyhow::bail!("no key was taken before its end")
}

/// Fault 41, the part of it that one database can be given.
#[tokio::test]
async fn a_database_that_may_lose_what_it_acknowledged_is_not_ready() -> Result<()> {
    let place = place().await?;
    let failed = async |pool: &PgPool| -> Vec<String> {
        let findings = Readiness::new().with_database(pool).findings().await;
        findings.into_iter().filter_map(|(name, found)| Some(format!("{name}: {}", found.err()?))).collect()
    };
    assert_eq!(failed(&place.pool).await, Vec::<String>::new());
    let database: String = sqlx::query_scalar("select current_database()").fetch_one(&place.pool).await?;
    let unsafe_now = format!("alter database {database} set synchronous_commit = off");
    sqlx::query(AssertSqlSafe(unsafe_now)).execute(&place.pool).await?;
    let later = pg::connect(&place.space.database_url, "test", 2).await?;
    assert_eq!(failed(&later).await, ["database_settings: unsafe: synchronous_commit is off"]);
    Ok(())
}
