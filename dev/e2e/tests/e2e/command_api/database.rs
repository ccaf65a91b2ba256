//! Database: what a lock, a silence or a database without writes does to requests, and what is deleted by age.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use local_stack::TestSpace;
use local_stack::testing::Swallow;
use platform::heartbeat::Heartbeat;
use platform::kafka::{self, Journal};
use platform::shutdown::CancellationToken;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep, timeout};

use super::{OPENED, open};
use e2e::{Answer, Caller, Form, Whole};

/// Redemptions and invitations at the same time; together more than a service has connections.
const REDEMPTIONS: usize = 8;
const INVITATIONS: usize = 16;
/// A request that waits for a lock is answered within this time; twice the limits, for a slow machine.
const REFUSED_MAX: Duration = Duration::from_secs(12);
/// Longest wait until everything works again by itself.
const RESUMED_MAX: Duration = Duration::from_secs(120);

fn usage(id: &str) -> Value {
    json!({"id": id, "occurred_at": OPENED, "credits": "1"})
}

async fn redeem(operator: &Caller) -> Result<Answer> {
    operator.post("/v1/accounts/acme/redemptions", json!({"code": "WELCOME"})).await
}

async fn invite(operator: &Caller, number: usize) -> Result<Answer> {
    operator.post("/v1/accounts/acme/referrals", json!({"email": format!("ana{number}@example.com")})).await
}

/// One account's lock is held by a process that has stopped: that account's requests are refused soon, and nobody else
/// notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_lock_stops_its_own_account_alone() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "100").await?;
    open(&operator, "other", "100").await?;
    let code = json!({"code": "WELCOME", "amount": "5"});
    operator.post("/v1/promo-codes", code).await?.expect(201)?;
    let mut stopped = whole.pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('growth/acme', 0))")
        .execute(&mut *stopped)
        .await?;

    let began = Instant::now();
    let redeeming = join_all((0..REDEMPTIONS).map(|_| redeem(&operator)));
    let inviting = join_all((0..INVITATIONS).map(|number| invite(&operator, number)));
    let others = async {
        let mut slowest = Duration::ZERO;
        let mut count = 0;
        while began.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            let path = "/v1/accounts/other/usage?wait=true";
            operator.post(path, usage(&format!("u{count}"))).await?.expect(200)?;
            let grant = json!({"grant_id": format!("g{count}"), "source": "promo", "amount": "1"});
            operator.post("/v1/accounts/other/grants?wait=true", grant).await?.expect(200)?;
            slowest = slowest.max(asked.elapsed());
            count += 1;
        }
        anyhow::Ok(slowest)
    };
    let (redeemed, invited, slowest) = tokio::join!(redeeming, inviting, others);
    let took = began.elapsed();
    for answer in redeemed.into_iter().chain(invited) {
        let answer = answer?;
        answer.expect_problem(503, "unavailable")?;
        ensure!(answer.retry_after.parse::<u32>()? >= 1, "Retry-After: {}", answer.retry_after);
    }
    ensure!(took < REFUSED_MAX, "refused only after {took:?}");
    // Each is a write, its projection and another write; waiting for a connection would take two seconds and more.
    let slowest = slowest?;
    ensure!(slowest < Duration::from_secs(2), "another account waited {slowest:?}");

    stopped.rollback().await?;
    redeem(&operator).await?.expect(200)?;
    whole.replay_and_stop().await
}

/// A database that takes packets and answers nothing is noticed by requests and by readiness, and needs no restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_database_is_noticed_and_everything_resumes_by_itself() -> Result<()> {
    let mut space = TestSpace::new().await?;
    let (proxy, through) = Swallow::postgres(&space.database_url).await?;
    let name = space.database_url.rsplit('/').next().context("a database")?.to_owned();
    space.database_url = through;
    let whole = Whole::start_on(space).await?;
    let operator = whole.operator();
    open(&operator, "acme", "100").await?;
    operator.get("/v1/accounts/acme/balance").await?.expect(200)?;
    whole.ready().await?;

    proxy.swallow(true);
    let (unready, answers) = tokio::join!(unready(&whole, ""), ask_all(&operator, "silent"));
    let unready = unready?;
    ensure!(!unready.text.contains(&name) && !unready.text.contains("127.0.0.1"), "{}", unready.text);
    for answer in answers? {
        // Usage of a known account needs no database.
        ensure!([503, 202].contains(&answer.status), "{} {}", answer.status, answer.text);
    }

    proxy.swallow(false);
    let resuming = async {
        let mut round = 0;
        loop {
            round += 1;
            let answers = ask_all(&operator, &format!("again{round}")).await?;
            if answers.iter().all(|answer| answer.status < 300) {
                return anyhow::Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(RESUMED_MAX, resuming).await.context("does not resume")??;
    whole.stop().await
}

/// Waits until the service says that it is not ready, a minute at most.
async fn unready(whole: &Whole, why: &str) -> Result<Answer> {
    let anybody = whole.caller(None);
    let asking = async {
        loop {
            let answer = anybody.get("/readyz").await?;
            if answer.status == 503 && answer.text.contains(why) {
                return anyhow::Ok(answer);
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_secs(60), asking).await.context("still ready")?
}

/// Sends one request of each way to the database; each must be answered within a minute.
async fn ask_all(operator: &Caller, id: &str) -> Result<Vec<Answer>> {
    let hold = json!({"reservation_id": id, "amount": "1"});
    let grant = json!({"grant_id": id, "source": "promo", "amount": "1"});
    let key = json!({"role": "auditor", "name": id});
    let keyed = operator.with("Idempotency-Key", id);
    let asking = async {
        let (usage, hold, grant, key, contacts) = tokio::join!(
            operator.post("/v1/accounts/acme/usage?wait=false", usage(id)),
            operator.post("/v1/accounts/acme/reservations", hold),
            operator.post("/v1/accounts/acme/grants?wait=false", grant),
            keyed.post("/v1/keys", key),
            operator.get("/v1/accounts/acme/contacts"),
        );
        anyhow::Ok(vec![usage?, hold?, grant?, key?, contacts?])
    };
    timeout(Duration::from_secs(60), asking).await.context("not answered")?
}

/// Makes the database read only, or lets it take writes again, for every session.
async fn set_read_only(whole: &Whole, on: bool) -> Result<()> {
    let name = whole.database_url.rsplit('/').next().context("a database")?;
    let mode = if on { "on" } else { "off" };
    let mut connection = whole.pool.acquire().await?.detach();
    let set = format!(
        "begin read write; alter database {name} set default_transaction_read_only = {mode}; commit;
         select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid()"
    );
    sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut connection).await?;
    Ok(())
}

/// As a full disk, a failover to a standby or an operator makes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_refuses_them_and_everything_resumes() -> Result<()> {
    // The reading service is ready all the while, so those that write have to be asked too.
    let whole = Whole::start_as(Form::Merged, &[]).await?;
    let operator = whole.operator();
    open(&operator, "acme", "100").await?;
    set_read_only(&whole, true).await?;
    unready(&whole, "read_only").await?;
    let grant = || json!({"grant_id": "g", "source": "promo", "amount": "10"});
    let hold = || json!({"reservation_id": "r", "amount": "1"});
    let refused = try_join_all([
        operator.post("/v1/accounts/acme/grants", grant()),
        operator.post("/v1/accounts/acme/reservations", hold()),
    ]);
    for answer in refused.await? {
        answer.expect_problem(503, "unavailable")?;
        ensure!(!answer.retry_after.is_empty(), "when to come again");
    }
    // Usage is recorded in the journal, and counts once the projector may write again.
    operator.post("/v1/accounts/acme/usage?wait=false", usage("u1")).await?.expect(202)?;
    set_read_only(&whole, false).await?;
    let resuming = async {
        let path = "/v1/accounts/acme/grants?wait=true";
        while operator.post(path, grant()).await?.status != 200 {
            sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    timeout(RESUMED_MAX, resuming).await.context("does not resume")??;
    operator.post("/v1/accounts/acme/reservations", hold()).await?.expect(201)?;
    whole.ready().await?;
    super::expect_balance(&operator, "acme", "settled=109 used=1").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn first_answers_are_forgotten_by_age() -> Result<()> {
    let whole = Whole::start().await?;
    let old = "insert into control.idempotency (account_id, kind, key, content, created_at, answered_at)
               values ('a', 'grant', 'old',          '', now() - interval '401 days', now()),
                      ('a', 'grant', 'young',        '', now() - interval '399 days', now()),
                      ('a', 'grant', 'unanswered',   '', now() - interval '401 days', null),
                      ('a', 'account.open', 'opens', '', now() - interval '401 days', now())";
    sqlx::query(old).execute(&whole.pool).await?;
    let token = CancellationToken::new();
    command_api::drop_old(&whole.pool, command_api::HoldsConfig::default(), &token).await?;
    let kept: Vec<String> =
        sqlx::query_scalar("select key from control.idempotency order by key").fetch_all(&whole.pool).await?;
    ensure!(kept == ["opens", "unanswered", "young"], "{kept:?}");
    whole.stop().await
}

/// A scheduler on a machine whose clock is a year ahead finds every account's period over, and must not say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_a_year_ahead_appends_nothing() -> Result<()> {
    let whole = Whole::start().await?;
    super::open_live(&whole.operator(), "live", "10").await?;
    whole.all_projected().await?;
    let before = whole.ends().await?;
    let journal = Journal::new(&whole.kafka, kafka::existing(&whole.kafka).await?)?;
    let shutdown = CancellationToken::new();
    let config = alert_worker::SchedulerConfig { scheduler_interval_ms: 10 };
    let ahead = || platform::clock::now().plus_seconds(365 * 86_400);
    let scheduling = alert_worker::scheduler::run_by(
        ahead,
        config,
        journal,
        whole.pool.clone(),
        Heartbeat::new("scheduler"),
        shutdown.clone(),
    );
    let scheduling = tokio::spawn(scheduling);
    sleep(Duration::from_secs(1)).await;
    shutdown.cancel();
    scheduling.await?;
    ensure!(whole.ends().await? == before, "something was appended");
    whole.replay_and_stop().await
}
