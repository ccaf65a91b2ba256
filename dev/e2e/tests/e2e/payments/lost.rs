//! Lost, late and old attempts: attempts that this database has lost, starts that come too late, and the past.

use std::time::Duration;

use anyhow::{Result, ensure};
use command_api::top_up_resolution::{DecideError, Decision, decide};
use ledger_core::account::top_up::Attempt;
use ledger_core::event::{derive, wire};
use ledger_core::policy::top_up;
use ledger_core::value::id::{AccountId, PaymentId, PaymentMethodId, Text};
use platform::kafka::Appender;
use serde_json::json;
use tokio::time::sleep;

use super::{Account, count, until_count};
use e2e::Whole;

/// Time in which the worker checks twice for what the database has lost.
const TWO_LOOKS: Duration = Duration::from_secs(11);

async fn sql(whole: &Whole, statement: &'static str) -> Result<()> {
    sqlx::query(statement).execute(&whole.pool).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_the_database_has_lost_is_looked_up_and_not_charged_again() -> Result<()> {
    // The provider charges, does not answer, and is not called again before the loss.
    let whole = Whole::start_with(&["--top-up-first-backoff-ms", "3600000"]).await?;
    let acme = Account::open(&whole, "acme").await?;
    acme.set("pm_timeout", json!({})).await?;
    until_count(&whole, "control.top_up where asks = 1 and leased_until is null", 1).await?;
    sql(&whole, "delete from control.top_up").await?;

    let whole = whole.restart().await?;
    until_count(&whole, "control.top_up where state = 'started' and look_up", 1).await?;
    sql(&whole, "update control.top_up set next_ask_at = clock_timestamp()").await?;
    // The look-up finds the charge, although another charge by this method would not be answered at first.
    until_count(&whole, "control.top_up where state = 'ended' and asks = 1", 1).await?;
    let acme = Account::again(&whole, "acme");
    acme.until("settled", "50").await?;
    ensure!(count(&whole, "control.sandbox_charge").await? == 1);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_for_twenty_hours_is_left_to_a_person_and_nothing_else_starts() -> Result<()> {
    let whole = Whole::start_with(&["--top-up-first-backoff-ms", "50"]).await?;
    let acme = Account::open(&whole, "acme").await?;
    acme.set("pm_down", json!({})).await?;
    until_count(&whole, "control.top_up where asks >= 1", 1).await?;
    sql(&whole, "update control.top_up set started_at = started_at - interval '21 hours'").await?;
    until_count(&whole, "control.top_up where state = 'parked'", 1).await?;
    acme.set("pm_ok", json!({})).await?;
    acme.spend("u1", "5").await?;
    whole.all_evaluated().await?;
    ensure!(count(&whole, "control.top_up").await? == 1 && acme.figure("settled").await? == "-5");
    // An operator who has checked with the provider records the outcome, once.
    let (account, payment) = (AccountId::new("acme")?, PaymentId::new("pi_found")?);
    let decided = decide(&whole.pool, &account, None, Decision::Paid(payment.clone()), None).await?;
    ensure!(decided == derive::attempt_id(&account, 1));
    let again = decide(&whole.pool, &account, None, Decision::Paid(payment), None).await;
    ensure!(matches!(again, Err(DecideError::NoneParked(_))), "{again:?}");
    acme.until("settled", "45").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_attempts_are_taken_in_once_the_past_is_folded() -> Result<()> {
    let whole = Whole::start_with(&["--top-up-first-backoff-ms", "3600000"]).await?;
    let acme = Account::open(&whole, "acme").await?;
    acme.set("pm_timeout", json!({})).await?;
    until_count(&whole, "control.top_up where asks = 1 and leased_until is null", 1).await?;
    // As in a new database that folds a long journal: its end is far ahead, and the outcome may be there.
    sql(&whole, "update delivery.told_from set next_offset = next_offset + 1000000").await?;
    sql(&whole, "delete from control.top_up").await?;
    let whole = whole.restart().await?;
    sleep(TWO_LOOKS).await;
    ensure!(count(&whole, "control.top_up").await? == 0, "taken in before the past is folded");
    sql(&whole, "update delivery.told_from set next_offset = next_offset - 1000000").await?;
    until_count(&whole, "control.top_up where state = 'started' and look_up", 1).await?;
    sql(&whole, "update control.top_up set next_ask_at = clock_timestamp()").await?;
    Account::again(&whole, "acme").until("settled", "50").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_idle_account_wants_is_ordered_once_the_alerts_know_the_journal_again() -> Result<()> {
    let whole = Whole::start().await?;
    // As while a long past is folded: what it wants starts nothing.
    sql(&whole, "update delivery.told_from set next_offset = next_offset + 1000000").await?;
    let whole = whole.restart().await?;
    let (idle, sated) = (Account::open(&whole, "idle").await?, Account::open(&whole, "sated").await?);
    idle.set("pm_ok", json!({})).await?;
    sated.set("pm_ok", json!({})).await?;
    let purchase = json!({"payment_id": "p1", "amount": "100"});
    whole.operator().post("/v1/accounts/sated/purchases", purchase).await?.expect(200)?;
    whole.all_evaluated().await?;
    ensure!(count(&whole, "control.top_up").await? == 0);
    // The alerts start anew at the journal's end. No event comes after it.
    sql(&whole, "delete from delivery.told_from").await?;
    let whole = whole.restart().await?;
    let (idle, sated) = (Account::again(&whole, "idle"), Account::again(&whole, "sated"));
    idle.until("settled", "50").await?;
    until_count(&whole, "control.top_up where state = 'ended' and number = 1", 1).await?;
    ensure!(sated.figure("settled").await? == "100");
    // A further look finds nothing left to order.
    let whole = whole.restart().await?;
    sleep(TWO_LOOKS / 2).await;
    ensure!(
        count(&whole, "control.top_up").await? == 1 && count(&whole, "control.sandbox_charge").await? == 1
    );
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_payment_was_recorded_by_hand_is_left_to_a_person_and_credited_once() -> Result<()> {
    let whole = Whole::start_with(&["--top-up-first-backoff-ms", "3600000"]).await?;
    let acme = Account::open(&whole, "acme").await?;
    acme.set("pm_timeout", json!({})).await?;
    until_count(&whole, "control.top_up where asks = 1 and leased_until is null", 1).await?;
    let account = AccountId::new("acme")?;
    let payment = PaymentId::new(&format!("sandbox_pi_{}", derive::attempt_id(&account, 1)))?;
    let purchase = json!({"payment_id": payment, "amount": "50"});
    whole.operator().post("/v1/accounts/acme/purchases", purchase).await?.expect(200)?;
    // The provider answers in the end, with a payment that is credited already.
    sql(&whole, "update control.top_up set next_ask_at = clock_timestamp()").await?;
    until_count(&whole, "control.top_up where state = 'parked'", 1).await?;
    let paid = decide(&whole.pool, &account, None, Decision::Paid(PaymentId::new("pi_other")?), None).await;
    ensure!(matches!(paid, Err(DecideError::Refused(_))), "{paid:?}");
    let failed = Decision::Failed(Text::new("recorded as a purchase")?);
    decide(&whole.pool, &account, None, failed, None).await?;
    until_count(&whole, "control.top_up where state = 'ended'", 1).await?;
    acme.until("settled", "50").await?;
    let said = acme
        .read(&format!("events/{}", derive::top_up_failed_id(&account, &derive::attempt_id(&account, 1))))
        .await?;
    ensure!(said["outcome"] == "applied", "{said}");
    // The next attempt starts again.
    acme.set("pm_ok", json!({})).await?;
    acme.spend("u1", "45").await?;
    acme.until("settled", "55").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_comes_too_late_uses_up_its_number_and_the_past_reads_as_it_was() -> Result<()> {
    let whole = Whole::start_with(&["--top-up-first-backoff-ms", "50"]).await?;
    let acme = Account::open(&whole, "acme").await?;
    let account = AccountId::new("acme")?;
    let late = Attempt {
        attempt_id: derive::attempt_id(&account, 1),
        number: 1,
        amount: "50".parse()?,
        payment_method: PaymentMethodId::new("pm_ok")?,
    };
    let event = top_up::started(&account, &late, "2026-01-05T00:00:00Z".parse()?);
    let appender = Appender::new(&whole.kafka, &whole.kafka.topics().events, whole.kafka.partitions)?;
    appender.append(b"acme", &wire::encode(&event)).await?;
    whole.all_projected().await?;
    let refused = acme.read(&format!("events/{}", late.attempt_id)).await?;
    ensure!(refused["outcome"] == "rejected" && refused["reason"] == "top_up_not_due", "{refused}");

    acme.set("pm_ok", json!({})).await?;
    acme.until("settled", "50").await?;
    acme.spend("u1", "42").await?;
    acme.until("settled", "58").await?;
    ensure!(count(&whole, "control.top_up where number = 1").await? == 0);
    // Folded again from the opening, the past has the same figures.
    acme.advance("2026-01-06T00:00:00Z").await?;
    acme.spend("u2", "1").await?;
    let then = acme.read("balance?as_of=2026-01-05T00:00:00Z").await?;
    ensure!(then["settled"] == "58" && then["lifetime_added"] == "100", "{then}");
    let shown = whole.operator().get("/v1/accounts/acme").await?;
    let settings = &shown.expect(200)?.body["auto_top_up"];
    ensure!(settings["enabled"] == true && settings["max_per_period"] == 10, "{settings}");
    whole.replay_and_stop().await
}
