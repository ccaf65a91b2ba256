//! Refunds that fail at the provider, reported by signed webhooks in several orders.

use anyhow::{Context, Result, ensure};
use command_api::manual_resolution::{Decision, Signed, parked_effects, resolve};
use engine::outbox;
use ledger_core::event::{Data, Event, Refund, derive};
use ledger_core::value::id::{AccountId, Label, PaymentId, Source, Text};
use serde_json::{Value, json};

use super::webhooks::{SIGNED, report, session};
use super::{Account, until_count};
use e2e::Whole;

/// What a webhook reports: its kind, and its object.
type Report = (&'static str, Value);

/// A charge as newer versions of the provider's API report it: without the list of its refunds.
fn total(payment: &str, cents: i64) -> Report {
    let charge = json!({"id": "ch", "payment_intent": payment, "amount": 100, "amount_refunded": cents});
    ("charge.refunded", charge)
}

fn refund(kind: &'static str, payment: &str, name: &str, cents: i64, status: &str) -> Report {
    let id = format!("re_{name}_{payment}");
    let refund = json!({"id": id, "object": "refund", "charge": "ch", "payment_intent": payment, "amount": cents,
                        "currency": "usd", "status": status});
    (kind, refund)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_fails_is_undone_in_every_order() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    // Of 40 and 20, the 40 come to nothing.
    let orders: [[usize; 6]; 6] = [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 3, 4, 2, 5],
        [0, 5, 4, 3, 2, 1],
        [3, 0, 1, 5, 2, 4],
        [1, 2, 3, 4, 5, 0],
        [2, 0, 3, 5, 1, 4],
    ];
    let ways_to_fail = ["refund.failed", "refund.updated", "charge.refund.updated"];
    for (number, order) in orders.into_iter().enumerate() {
        let (id, payment) = (format!("acct-{number}"), format!("pi_{number}"));
        let account = Account::open(&whole, &id).await?;
        account.spend("u1", "30").await?;
        let failed = ways_to_fail[number % ways_to_fail.len()];
        let reports: [Report; 6] = [
            ("checkout.session.completed", session(&id, &payment)),
            total(&payment, 40),
            refund("refund.created", &payment, "a", 40, "pending"),
            refund(failed, &payment, "a", 40, "failed"),
            total(&payment, 60),
            refund("refund.created", &payment, "b", 20, "succeeded"),
        ];
        for step in order {
            let (kind, object) = &reports[step];
            report(&whole, kind, object.clone()).await?;
            report(&whole, kind, object.clone()).await?;
        }
        let settled = account.figure("settled").await?;
        ensure!(settled == "50", "order {order:?}: {settled}: {}", account.read("entries").await?);
        ensure!(account.figure("period_maximum").await? == "80", "order {order:?}");
        let folded_again = account.read("balance?as_of=2026-01-05T00:00:00Z").await?;
        ensure!(folded_again["settled"] == "50", "order {order:?}: {folded_again}");
    }
    // The fold has taken all of it: nothing waits for it, and nothing for a person.
    until_count(&whole, "control.payment_effect", 0).await?;
    until_count(&whole, "control.outbox", 0).await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_its_charge_lists_is_recorded_under_its_own_name() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let acme = Account::open(&whole, "acme").await?;
    report(&whole, "checkout.session.completed", session("acme", "pi_1")).await?;
    let (kind, mut charge) = total("pi_1", 40);
    charge["refunds"] =
        json!({"object": "list", "data": [{"id": "re_1", "amount": 40, "status": "succeeded"}]});
    report(&whole, kind, charge).await?;
    ensure!(acme.figure("settled").await? == "60");
    let account = AccountId::new("acme")?;
    let refund_id = "re_1".parse()?;
    let refunded = acme.read(&format!("events/{}", derive::refunded_id(&account, &refund_id))).await?;
    ensure!(refunded["outcome"] == "applied", "{refunded}");
    let failed = json!({"id": "re_1", "payment_intent": "pi_1", "amount": 40, "status": "failed"});
    report(&whole, "refund.failed", failed).await?;
    ensure!(acme.figure("settled").await? == "100");
    let failed = acme.read(&format!("events/{}", derive::refund_failed_id(&account, &refund_id))).await?;
    ensure!(failed["outcome"] == "applied" && failed["type"] == "ledger.refund.failed.v1", "{failed}");
    whole.replay_and_stop().await
}

/// The state that an older version left behind: a refund of 40 in the journal under the name that it gave.
async fn refund_as_before(whole: &Whole) -> Result<()> {
    let (account, payment_id) = (AccountId::new("acme")?, PaymentId::new("pi_1")?);
    let at = "2026-01-05T00:00:00Z".parse()?;
    let event = Event {
        id: derive::keyed_id("refund", &account, "provider:pi_1:40"),
        source: Source::new(derive::API)?,
        account: account.clone(),
        occurred_at: at,
        recorded_at: at,
        actor: Label::new("provider:sandbox")?,
        data: Data::CreditsRefunded(Refund {
            payment_id,
            refund_id: None,
            amount: "40".parse()?,
            reason: None,
        }),
    };
    let mut tx = whole.pool.begin().await?;
    outbox::put(&mut tx, &event, 0.0).await?;
    sqlx::query(
        "update control.payment
         set refunded = 40,
             told     = '{\"is_paid\": true, \"paid\": true, \"failure\": null, \"failed\": false, \"opened\": {}, \"won\": [],
                          \"refunded\": {\"money\": 40, \"credits\": \"40\"}}'
         where payment_id = 'pi_1'",
    )
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_from_before_refunds_had_names_is_not_taken_again_and_its_failure_waits_for_a_person()
-> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let acme = Account::open(&whole, "acme").await?;
    report(&whole, "checkout.session.completed", session("acme", "pi_1")).await?;
    refund_as_before(&whole).await?;
    acme.until("settled", "60").await?;
    let created = refund("refund.created", "pi_1", "a", 40, "succeeded");
    for (kind, object) in [total("pi_1", 40), created, total("pi_1", 40)] {
        report(&whole, kind, object).await?;
        ensure!(acme.figure("settled").await? == "60", "{}", acme.read("entries").await?);
    }
    let (kind, object) = refund("refund.failed", "pi_1", "a", 40, "failed");
    report(&whole, kind, object).await?;
    until_count(&whole, "control.payment_effect where state = 'parked'", 1).await?;
    let parked = parked_effects(&whole.pool, None).await?;
    let parked = parked.first().context("one that waits")?;
    ensure!(
        (parked.kind.as_str(), parked.reason.as_str()) == ("refund_failed", "refund_unknown"),
        "{parked:?}"
    );
    let signed =
        Signed { by: Text::new("olga")?, note: Text::new("gave the credits back by hand")?, actor: None };
    resolve(&whole.pool, &PaymentId::new("pi_1")?, Decision::Dismissed, signed).await?;
    // Another refund takes what no other has taken.
    for (kind, object) in [total("pi_1", 100), refund("refund.created", "pi_1", "b", 60, "succeeded")] {
        report(&whole, kind, object).await?;
        ensure!(acme.figure("settled").await? == "0", "{}", acme.read("entries").await?);
    }
    until_count(&whole, "control.payment_effect where state = 'sent'", 0).await?;
    whole.replay_and_stop().await
}
