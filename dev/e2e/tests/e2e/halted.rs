//! Halted: one account that can't be folded, seen from outside, and what its operator does.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::{Caller, Whole};
use ledger::resume::{self, Resume};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::alerts::Account;

const JANUARY: &str = "2026-01-06T12:00:00Z";

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    resume: Resume,
}

/// Runs `ledger resume`, and returns whether all go on, and what it wrote.
async fn ledger_resume(whole: &Whole, arguments: &[&str]) -> Result<(bool, String)> {
    let words =
        ["resume", "--database-url", &whole.database_url].into_iter().chain(arguments.iter().copied());
    let mut out = Vec::new();
    let all = resume::run(&Arguments::try_parse_from(words)?.resume, &mut out).await?;
    Ok((all, String::from_utf8(out)?))
}

async fn execute(whole: &Whole, statement: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&whole.pool).await?;
    Ok(())
}

/// Returns the offset of the next record of an account's partition.
async fn next_offset(whole: &Whole, account: &str) -> Result<i64> {
    let partition: i32 =
        sqlx::query_scalar("select partition from read_model_1.account where account_id = $1")
            .bind(account)
            .fetch_one(&whole.pool)
            .await?;
    let ends = whole.ends().await?;
    Ok(ends.iter().find(|end| end.partition == partition).context("an end")?.offset)
}

fn usage(id: &str) -> Value {
    json!({"id": id, "occurred_at": JANUARY, "user_id": "ana", "credits": "1"})
}

async fn halted(caller: &Caller, path: &str) -> Result<Value> {
    let answer = caller.get(path).await?;
    answer.expect_problem(503, "account_halted")?;
    Ok(answer.body.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_event_fails_says_so_and_goes_on_once_its_operator_resumes_it() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    for account in ["acme", "beta", "gamma", "delta"] {
        Account::open(&whole, account, json!({"plan": {"allowance": "100"}})).await?;
    }
    let offset = next_offset(&whole, "acme").await?;
    execute(
        &whole,
        &format!(
            r#"insert into read_model_1.event
               select (jsonb_populate_record(event, jsonb_build_object('offset', {offset}, 'event_id', 'planted'))).*
               from read_model_1.event
               where account_id = 'acme'"#
        ),
    )
    .await?;
    let at = operator.at(JANUARY);
    at.post("/v1/accounts/acme/usage?wait=false", usage("u1")).await?.expect(202)?;
    whole.all_projected().await?;
    let problem = halted(&operator, "/v1/accounts/acme").await?;
    ensure!(problem["halted_by"] == "projector" && problem["position"]["offset"] == offset, "{problem}");
    ensure!(problem["reason"].as_str().is_some_and(|why| why.contains("event_pkey")), "{problem}");
    ensure!(problem["since"].is_string(), "{problem}");
    for what in ["/balance", "/entries", "/firings", "/users"] {
        halted(&operator, &format!("/v1/accounts/acme{what}")).await?;
    }
    let hold = json!({"reservation_id": "r1", "user_id": "ana", "amount": "5"});
    let held = at.post("/v1/accounts/acme/reservations", hold.clone()).await?;
    held.expect_problem(503, "account_halted")?;
    at.post("/v1/accounts/acme/usage?wait=true", usage("u2")).await?.expect(202)?;
    for account in ["beta", "gamma", "delta"] {
        at.post(&format!("/v1/accounts/{account}/usage?wait=true"), usage("u1")).await?.expect(200)?;
        at.post(&format!("/v1/accounts/{account}/reservations"), hold.clone()).await?.expect(201)?;
    }
    let metrics = operator.get("/metrics").await?;
    ensure!(metrics.text.contains(r#"ledger_halted_accounts{worker="projector"} "#), "{}", metrics.text);

    // Before the mend it is halted again, after it goes on; no process is started anew.
    let (all, said) = ledger_resume(&whole, &["acme"]).await?;
    ensure!(!all && said.contains("is halted again"), "{said}");
    execute(&whole, "delete from read_model_1.event where event_id = 'planted'").await?;
    let (all, said) = ledger_resume(&whole, &["acme", "--worker", "projector"]).await?;
    ensure!(all && said.contains("goes on"), "{said}");
    let balance = operator.get("/v1/accounts/acme/balance").await?;
    ensure!(balance.expect(200)?.body["used"] == "2", "{}", balance.text);
    at.post("/v1/accounts/acme/reservations", hold).await?.expect(201)?;
    ensure!(ledger_resume(&whole, &["acme"]).await.is_err(), "it is not halted any more");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_halted_by_the_alert_worker_alone_keeps_its_balance() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "100"}})).await?;
    let beta = Account::open(&whole, "beta", json!({"plan": {"allowance": "100"}})).await?;
    let alert =
        json!({"basis": "absolute_used", "threshold": "5", "recipients": ["carl"], "channels": ["in_app"]});
    for account in [&acme, &beta] {
        account.put(JANUARY, "alerts/a5", alert.clone()).await?;
    }
    whole.all_evaluated().await?;
    let offset = next_offset(&whole, "acme").await?;
    execute(
        &whole,
        &format!(
            r#"insert into alerting_1.firing
               values ('acme', {offset}, 0, gen_random_uuid(), 'org_alert', 'a5', 'acme', 1, 1, 0, 1, now(), 'planted')"#
        ),
    )
    .await?;
    for account in [&acme, &beta] {
        account.uses(JANUARY, "ana", "9").await?;
    }
    whole.all_evaluated().await?;
    for what in ["alerts", "firings", "notifications"] {
        let problem = halted(&operator, &format!("/v1/accounts/acme/{what}")).await?;
        ensure!(
            problem["halted_by"] == "alert-worker" && problem["position"]["offset"] == offset,
            "{problem}"
        );
    }
    let read = operator.get("/v1/accounts/acme").await?;
    ensure!(read.expect(200)?.body["alerts_halted"]["halted_by"] == "alert-worker", "{}", read.text);
    ensure!(acme.get("balance").await?["used"] == "9");
    ensure!(beta.fired().await?.len() == 1, "others' alerts fire");
    ensure!(operator.get("/v1/accounts/beta").await?.body["alerts_halted"].is_null());

    execute(&whole, "delete from alerting_1.firing where event_id = 'planted'").await?;
    let (all, said) = ledger_resume(&whole, &["--all"]).await?;
    ensure!(all && said.starts_with("alert-worker: acme"), "{said}");
    let fired = acme.fired().await?;
    ensure!(fired.len() == 1 && fired[0].starts_with("org_alert a5 acme 9/5"), "{fired:?}");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firing_that_is_there_already_is_no_error_and_notifies_nobody_again() -> Result<()> {
    let whole = Whole::start().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "100"}})).await?;
    let alert =
        json!({"basis": "absolute_used", "threshold": "5", "recipients": ["carl"], "channels": ["in_app"]});
    acme.put(JANUARY, "alerts/a5", alert).await?;
    whole.all_evaluated().await?;
    let before: String =
        sqlx::query_scalar("select watch::text from alerting_1.account").fetch_one(&whole.pool).await?;
    acme.uses(JANUARY, "ana", "9").await?;
    whole.all_evaluated().await?;
    let fired = acme.fired().await?;
    ensure!(fired.len() == 1, "{fired:?}");
    // As if the rule had forgotten that it fired, long after the notice was delivered and dropped.
    sqlx::query("update alerting_1.account set watch = $1::jsonb").bind(before).execute(&whole.pool).await?;
    execute(&whole, "delete from delivery.outbox").await?;
    let whole = whole.restart().await?;
    let used = whole.operator().at(JANUARY).post("/v1/accounts/acme/usage?wait=true", usage("later")).await?;
    used.expect(200)?;
    whole.all_evaluated().await?;
    let firings = whole.operator().get("/v1/accounts/acme/firings").await?;
    ensure!(
        firings.expect(200)?.body["items"].as_array().is_some_and(|items| items.len() == 1),
        "{}",
        firings.text
    );
    let notices: i64 =
        sqlx::query_scalar("select count(*) from delivery.outbox").fetch_one(&whole.pool).await?;
    ensure!(notices == 0, "it was sent before");
    let metrics = whole.operator().get("/metrics").await?;
    ensure!(metrics.text.contains(r#"ledger_derived_ids_repeated_total{kind="firing"}"#), "{}", metrics.text);
    whole.replay_and_stop().await
}
