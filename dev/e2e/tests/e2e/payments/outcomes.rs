//! Outcomes of an attempt (paid, declined, unknown) and the limits that refuse one.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Account, count, until_count};
use e2e::Whole;

const QUICK: [&str; 2] = ["--top-up-first-backoff-ms", "50"];

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_at_the_threshold_is_topped_up_once_and_again_when_it_falls_there() -> Result<()> {
    let whole = Whole::start_with(&QUICK).await?;
    let ok = Account::open(&whole, "ok").await?;
    ok.set("pm_ok", json!({})).await?;
    ok.until("settled", "50").await?;
    ok.spend("u1", "39").await?;
    ensure!(ok.figure("settled").await? == "11");
    ok.spend("u2", "1").await?;
    ok.until("settled", "60").await?;
    ensure!(ok.figure("lifetime_added").await? == "100");
    let entries = ok.read("entries?type=topped_up").await?;
    ensure!(entries["items"][0]["amount"] == "50" && entries["items"][0]["balance_after"] == "60");
    let grants = ok.read("grants").await?;
    ensure!(grants["items"][0]["source"] == "top_up" && grants["items"][0]["category"] == "paid", "{grants}");
    let fired = ok.fired(3).await?;
    let topped_up = fired.iter().filter(|kind| *kind == "credit_auto_recharge_triggered").count();
    ensure!(topped_up == 2 && fired.iter().any(|kind| kind == "credit_balance_low"), "{fired:?}");

    // The provider charged and the answer was lost: a call with the same key finds the charge.
    let timeout = Account::open(&whole, "timeout").await?;
    timeout.set("pm_timeout", json!({})).await?;
    timeout.until("settled", "50").await?;
    ensure!(count(&whole, "control.sandbox_charge where account_id = 'timeout'").await? == 1);
    ensure!(count(&whole, "control.top_up where account_id = 'timeout' and asks >= 2").await? == 1);

    // The provider does not answer: the attempt stays open, under one key, and no other starts.
    let down = Account::open(&whole, "down").await?;
    down.set("pm_down", json!({})).await?;
    until_count(&whole, "control.top_up where account_id = 'down' and asks >= 3", 1).await?;
    down.spend("u1", "5").await?;
    down.set("pm_ok", json!({})).await?;
    whole.all_evaluated().await?;
    ensure!(count(&whole, "control.top_up where account_id = 'down'").await? == 1);
    ensure!(down.figure("settled").await? == "-5");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_fails_is_tried_again_later_and_after_the_fourth_time_left_alone() -> Result<()> {
    let whole = Whole::start_with(&QUICK).await?;
    let fails = Account::open(&whole, "fails").await?;
    fails.set("pm_fail", json!({})).await?;
    let ended = "control.top_up where account_id = 'fails' and state = 'ended'";
    for (failures, next) in [
        (1, "2026-01-05T01:00:00Z"),
        (2, "2026-01-05T05:00:00Z"),
        (3, "2026-01-06T05:00:00Z"),
        (4, "2026-01-20T00:00:00Z"),
    ] {
        until_count(&whole, ended, failures).await?;
        ensure!(fails.fired(failures.try_into()?).await?.len() == usize::try_from(failures)?);
        fails.spend(&format!("u{failures}"), "1").await?;
        fails.advance(next).await?;
    }
    whole.all_evaluated().await?;
    ensure!(count(&whole, "control.top_up where account_id = 'fails'").await? == 4);
    ensure!(fails.fired(4).await?.iter().all(|kind| kind == "credit_purchase_failed"));
    // Saving the settings starts it again.
    fails.set("pm_ok", json!({})).await?;
    fails.until("credit_balance", "46").await?;
    whole.replay_and_stop().await
}

/// The journal has the refusal of a limit as any other event.
async fn ensure_refused(whole: &Whole, account: &str) -> Result<()> {
    let refusal = "select event_id from control.top_up_refusal where account_id = $1";
    let event: String = sqlx::query_scalar(refusal).bind(account).fetch_one(&whole.pool).await?;
    until_count(whole, "control.outbox", 0).await?;
    whole.all_projected().await?;
    let found = whole.operator().get(&format!("/v1/accounts/{account}/events/{event}")).await?;
    let found = &found.expect(200)?.body;
    let said = (found["type"].as_str(), found["outcome"].as_str());
    ensure!(said == (Some("ledger.top_up.refused.v1"), Some("applied")), "{found}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn brakes_hold_and_say_so_once() -> Result<()> {
    let whole = Whole::start_with(&QUICK).await?;
    let counted = Account::open(&whole, "counted").await?;
    counted.set("pm_ok", json!({"max_per_period": 2})).await?;
    counted.until("settled", "50").await?;
    counted.spend("u1", "40").await?;
    counted.until("settled", "60").await?;
    counted.spend("u2", "50").await?;
    let refusals = "control.top_up_refusal where account_id = 'counted'";
    until_count(&whole, refusals, 1).await?;
    counted.spend("u3", "1").await?;
    counted.spend("u4", "1").await?;
    whole.all_evaluated().await?;
    ensure!(count(&whole, refusals).await? == 1 && counted.figure("settled").await? == "8");
    ensure_refused(&whole, "counted").await?;
    // The next period has its own count.
    counted.advance("2026-02-01T00:00:00Z").await?;
    counted.until("settled", "58").await?;

    let capped = Account::open(&whole, "capped").await?;
    capped.set("pm_ok", json!({"max_amount_per_period": "99.9"})).await?;
    capped.until("settled", "50").await?;
    capped.spend("u1", "45").await?;
    until_count(&whole, "control.top_up_refusal where account_id = 'capped'", 1).await?;
    ensure!(capped.figure("settled").await? == "5");
    ensure_refused(&whole, "capped").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_can_not_work_are_refused_with_every_bad_field() -> Result<()> {
    let whole = Whole::start().await?;
    Account::open(&whole, "acme").await?;
    let operator = whole.operator();
    let put = async |body| operator.put("/v1/accounts/acme/auto-top-up", body).await;
    put(json!({"enabled": true})).await?.expect_fields(&[
        "amount required",
        "payment_method required",
        "threshold required",
    ])?;
    put(json!({"enabled": true, "threshold": "51", "amount": "50", "payment_method": "pm_ok"}))
        .await?
        .expect_fields(&["threshold above_amount"])?;
    put(json!({"threshold": "-1", "amount": "100000.1", "max_per_period": 0, "max_amount_per_period": "0", "basis": "used"}))
        .await?
        .expect_fields(&[
            "amount out_of_range",
            "basis not_one_of",
            "max_amount_per_period not_positive",
            "max_per_period out_of_range",
            "threshold negative",
        ])?;
    let first = put(json!({"enabled": false})).await?;
    let second = put(json!({"enabled": false})).await?;
    ensure!(first.expect(200)?.body["event_id"] != second.expect(200)?.body["event_id"], "always saved");
    let admin = whole.keyed("admin", &["acme"], None).await?;
    admin.put("/v1/accounts/acme/auto-top-up", json!({"enabled": false})).await?.expect(200)?;
    let producer = whole.keyed("producer", &["acme"], None).await?;
    producer.put("/v1/accounts/acme/auto-top-up", json!({})).await?.expect_problem(403, "forbidden")?;
    whole.replay_and_stop().await
}
