//! Credits that are refused although they were paid: an operator decides, whatever first reported the payment.

use anyhow::{Result, ensure};
use command_api::top_up_resolution::{DecideError, Decision, decide};
use ledger_core::event::{derive, wire};
use ledger_core::policy::top_up;
use ledger_core::value::id::{AccountId, PaymentId, Text};
use platform::kafka::Appender;
use serde_json::json;

use super::{Account, until_count};
use e2e::Whole;

/// An attempt that was charged and not answered, whose payment is recorded by hand, and whose credit the provider's
/// webhook reports before the worker has tried again.
async fn reported_by_webhook(whole: &Whole) -> Result<(Account, PaymentId)> {
    let acme = Account::open(whole, "acme").await?;
    acme.set("pm_timeout", json!({})).await?;
    until_count(whole, "control.top_up where asks = 1 and leased_until is null", 1).await?;
    let account = AccountId::new("acme")?;
    let attempt = derive::attempt_id(&account, 1);
    let payment = PaymentId::new(&format!("sandbox_pi_{attempt}"))?;
    let purchase = json!({"payment_id": payment, "amount": "50"});
    whole.operator().post("/v1/accounts/acme/purchases", purchase).await?.expect(200)?;
    // As the webhook puts it into the journal.
    let at = "2026-01-05T00:00:00Z".parse()?;
    let credit = top_up::succeeded(&account, attempt, payment.clone(), "50".parse()?, None, at);
    let appender = Appender::new(&whole.kafka, &whole.kafka.topics().events, whole.kafka.partitions)?;
    appender.append(b"acme", &wire::encode(&credit)).await?;
    whole.all_evaluated().await?;
    Ok((acme, payment))
}

async fn ask_now(whole: &Whole) -> Result<()> {
    sqlx::query("update control.top_up set next_ask_at = clock_timestamp() where state = 'started'")
        .execute(&whole.pool)
        .await?;
    Ok(())
}

/// The operator records the outcome, and the next attempt starts.
async fn ends_by_a_person(whole: &Whole, acme: &Account, payment: &PaymentId) -> Result<()> {
    let account = AccountId::new("acme")?;
    let paid = decide(&whole.pool, &account, None, Decision::Paid(PaymentId::new("pi_other")?), None).await;
    ensure!(matches!(&paid, Err(DecideError::Refused(refused)) if refused == payment), "{paid:?}");
    decide(&whole.pool, &account, None, Decision::Failed(Text::new("recorded as a purchase")?), None).await?;
    until_count(whole, "control.top_up where state = 'ended'", 1).await?;
    acme.set("pm_ok", json!({})).await?;
    acme.spend("u1", "45").await?;
    acme.until("settled", "55").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_that_a_webhook_reports_first_and_that_is_refused_waits_for_a_person() -> Result<()> {
    let whole = Whole::start_with(&["--top-up-first-backoff-ms", "3600000"]).await?;
    let (acme, payment) = reported_by_webhook(&whole).await?;
    ask_now(&whole).await?;
    until_count(&whole, "control.top_up where state = 'parked' and payment_id is not null", 1).await?;
    ensure!(acme.figure("settled").await? == "50");
    ends_by_a_person(&whole, &acme, &payment).await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_credit_that_the_database_has_lost_waits_for_a_person_again() -> Result<()> {
    let whole = Whole::start_with(&["--top-up-first-backoff-ms", "3600000"]).await?;
    let (acme, payment) = reported_by_webhook(&whole).await?;
    sqlx::query("delete from control.top_up").execute(&whole.pool).await?;
    let whole = whole.restart().await?;
    // The look-up reports it again under the same id: a duplicate of what was refused.
    until_count(&whole, "control.top_up where state = 'started' and look_up", 1).await?;
    ask_now(&whole).await?;
    until_count(&whole, "control.top_up where state = 'parked' and payment_id is not null", 1).await?;
    let acme = Account::again(&whole, &acme.path["/v1/accounts/".len()..]);
    ends_by_a_person(&whole, &acme, &payment).await?;
    // The balance may show it before the alert worker has folded it.
    until_count(&whole, "control.top_up where state = 'ended'", 2).await?;
    whole.replay_and_stop().await
}
