//! Checkouts, and the provider's webhooks: forged, replayed, in every order.

use anyhow::{Context, Result, ensure};
use engine::outbox;
use ledger_core::event::{Data, Event, Purchase, derive};
use ledger_core::value::id::{AccountId, Label, PaymentId, Source};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Account, until_count};
use e2e::{Answer, Whole};

const SECRET: &str = "whsec_of_these_tests";
pub(crate) const SIGNED: [&str; 2] = ["--stripe-webhook-secret", SECRET];

/// HMAC-SHA256 by RFC 2104, for a key of at most a block.
fn hmac(key: &str, message: &str) -> String {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key.as_bytes());
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    hex::encode(Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize())
}

async fn send(whole: &Whole, secret: &str, late_seconds: i64, body: &Value) -> Result<Answer> {
    let (at, body) = (platform::clock::now().micros() / 1_000_000 - late_seconds, body.to_string());
    let signature = format!("t={at},v1={}", hmac(secret, &format!("{at}.{body}")));
    let caller = whole.caller(None).with("Stripe-Signature", &signature);
    let path = "/v1/webhooks/stripe";
    caller.send_as(reqwest::Method::POST, path, "application/json; charset=utf-8", &body).await
}

pub(crate) async fn report(whole: &Whole, kind: &str, object: Value) -> Result<()> {
    let body = json!({"id": "evt_1", "type": kind, "data": {"object": object}});
    send(whole, SECRET, 0, &body).await?.expect(200).map(drop)
}

pub(crate) fn session(account: &str, payment: &str) -> Value {
    json!({"id": format!("cs_{payment}"), "payment_intent": payment, "payment_status": "paid", "amount_total": 100,
           "metadata": {"account_id": account, "amount": "100"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_is_credited_once_by_its_signed_webhook_alone() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let acme = Account::open(&whole, "acme").await?;
    let operator = whole.operator();
    let checkout = operator.post("/v1/accounts/acme/checkout", json!({"amount": "100"})).await?;
    let checkout = &checkout.expect(201)?.body;
    ensure!(checkout["checkout_id"].as_str().context("an id")?.starts_with("sandbox_"), "{checkout}");
    operator
        .post("/v1/accounts/acme/checkout", json!({"amount": "0"}))
        .await?
        .expect_fields(&["amount not_positive"])?;
    operator
        .post("/v1/accounts/none/checkout", json!({"amount": "100"}))
        .await?
        .expect_problem(404, "account_not_found")?;
    ensure!(acme.figure("settled").await? == "0");

    let paid = json!({"id": "evt_1", "type": "checkout.session.completed", "data": {"object": session("acme", "pi_1")}});
    send(&whole, "whsec_forged", 0, &paid).await?.expect_problem(401, "unauthorized")?;
    send(&whole, SECRET, 301, &paid).await?.expect_problem(401, "unauthorized")?;
    let bare = whole.caller(None).with("Stripe-Signature", "t=1,v1=00");
    bare.post("/v1/webhooks/stripe", paid.clone()).await?.expect_problem(401, "unauthorized")?;
    ensure!(acme.figure("settled").await? == "0");
    for _ in 0..3 {
        send(&whole, SECRET, 0, &paid).await?.expect(200)?;
    }
    // The same payment by another event, and recorded by hand.
    report(
        &whole,
        "payment_intent.succeeded",
        json!({"id": "pi_1", "amount": 100, "metadata": {"account_id": "acme", "amount": "100"}}),
    )
    .await?;
    operator
        .post("/v1/accounts/acme/purchases", json!({"payment_id": "pi_1", "amount": "100"}))
        .await?
        .expect(200)?;
    ensure!(acme.figure("settled").await? == "100" && acme.figure("lifetime_added").await? == "100");
    // Of an account that does not exist: the provider reports it again later.
    let lost = json!({"type": "checkout.session.completed", "data": {"object": session("lost", "pi_2")}});
    send(&whole, SECRET, 0, &lost).await?.expect_problem(404, "account_not_found")?;
    report(&whole, "customer.created", json!({"id": "cus_1"})).await?;
    whole.replay_and_stop().await
}

fn refund(payment: &str, cents: i64) -> Value {
    json!({"id": "ch", "payment_intent": payment, "amount": 100, "amount_refunded": cents})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_webhook_has_reported_as_paid_is_refunded_all_the_same() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let operator = whole.operator();
    for (account, payment) in [("one", "pi_1"), ("two", "pi_2"), ("three", "pi_2")] {
        Account::open(&whole, account).await?;
        let purchase = json!({"payment_id": payment, "amount": "100"});
        operator.post(&format!("/v1/accounts/{account}/purchases"), purchase).await?.expect(200)?;
    }
    report(&whole, "charge.refunded", refund("pi_1", 40)).await?;
    report(&whole, "charge.refunded", refund("pi_1", 40)).await?;
    ensure!(Account::again(&whole, "one").figure("settled").await? == "60");
    // Two accounts have a payment of this id: the webhook has to name the account.
    report(&whole, "charge.refunded", refund("pi_2", 40)).await?;
    ensure!(Account::again(&whole, "two").figure("settled").await? == "100");
    let mut named = refund("pi_2", 40);
    named["metadata"] = json!({"account_id": "three"});
    report(&whole, "charge.refunded", named).await?;
    ensure!(Account::again(&whole, "two").figure("settled").await? == "100");
    ensure!(Account::again(&whole, "three").figure("settled").await? == "60");
    // A top-up that the provider answered at once.
    let wallet = Account::open(&whole, "wallet").await?;
    wallet.set("pm_ok", json!({})).await?;
    wallet.until("settled", "50").await?;
    let payment = format!("sandbox_pi_{}", derive::attempt_id(&AccountId::new("wallet")?, 1));
    let dispute = json!({"id": "dp", "payment_intent": payment, "amount": 50, "status": "needs_response"});
    report(&whole, "charge.dispute.created", dispute).await?;
    whole.all_projected().await?;
    let disputed = wallet.read("entries?type=refunded").await?;
    ensure!(disputed["items"][0]["amount"] == "-50", "{disputed}");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_has_refunded_the_provider_does_not_take_again() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let operator = whole.operator();
    let refund_by_hand = async |account: &str, payment: &str| {
        // Does not wait for the projection: the webhook that follows must still see it.
        let path = format!("/v1/accounts/{account}/refunds?wait=false");
        let body = json!({"payment_id": payment, "amount": "40", "reason": "asked for"});
        let once = operator.with("Idempotency-Key", payment);
        once.post(&path, body).await?.expect(202).map(drop)
    };
    let dispute = |payment: &str, status: &str| json!({"id": format!("dp_{payment}"), "payment_intent": payment, "amount": 100, "status": status});

    let refunded = Account::open(&whole, "refunded").await?;
    report(&whole, "checkout.session.completed", session("refunded", "pi_1")).await?;
    refund_by_hand("refunded", "pi_1").await?;
    report(&whole, "charge.refunded", refund("pi_1", 100)).await?;
    ensure!(refunded.figure("settled").await? == "0", "{}", refunded.read("entries").await?);

    let disputed = Account::open(&whole, "disputed").await?;
    report(&whole, "checkout.session.completed", session("disputed", "pi_2")).await?;
    refund_by_hand("disputed", "pi_2").await?;
    report(&whole, "charge.dispute.created", dispute("pi_2", "needs_response")).await?;
    ensure!(disputed.figure("settled").await? == "0", "{}", disputed.read("entries").await?);
    report(&whole, "charge.dispute.closed", dispute("pi_2", "won")).await?;
    ensure!(disputed.figure("settled").await? == "60", "{}", disputed.read("entries").await?);

    // Refunded by hand, in parts: a refund by webhook does not count as the operator's.
    let parts = Account::open(&whole, "parts").await?;
    let purchase = json!({"payment_id": "pi_3", "amount": "100"});
    operator.post("/v1/accounts/parts/purchases", purchase).await?.expect(200)?;
    report(&whole, "charge.refunded", refund("pi_3", 10)).await?;
    refund_by_hand("parts", "pi_3").await?;
    report(&whole, "charge.refunded", refund("pi_3", 30)).await?;
    ensure!(parts.figure("settled").await? == "30", "{}", parts.read("entries").await?);
    report(&whole, "charge.refunded", refund("pi_3", 100)).await?;
    ensure!(parts.figure("settled").await? == "0", "{}", parts.read("entries").await?);
    whole.replay_and_stop().await
}

/// The state after a process was killed between recording a payment in the outbox and appending it.
async fn leave_behind(whole: &Whole, account: &str, payment: &str) -> Result<()> {
    let (account, payment_id) = (AccountId::new(account)?, PaymentId::new(payment)?);
    let at = "2026-01-05T00:00:00Z".parse()?;
    let event = Event {
        id: payment_id.as_event(),
        source: Source::new(derive::GRANTS)?,
        account: account.clone(),
        occurred_at: at,
        recorded_at: at,
        actor: Label::new("provider:sandbox")?,
        data: Data::CreditsPurchased(Purchase { payment_id, amount: "100".parse()?, price: None }),
    };
    let mut tx = whole.pool.begin().await?;
    outbox::put(&mut tx, &event, 3.0).await?;
    sqlx::query(
        "insert into control.payment (payment_id, account_id, amount, charged, refunded, disputes, told)
         values ($1, $2, 100, 100, 0, '{}',
                 '{\"is_paid\": true, \"paid\": true, \"failure\": null, \"failed\": false, \"opened\": {}, \"won\": [],
                   \"refunded\": {\"money\": 0, \"credits\": \"0\"}}')",
    )
    .bind(payment)
    .bind(account.as_str())
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_does_not_overtake_the_payment_that_a_crash_left_behind() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let acme = Account::open(&whole, "acme").await?;
    leave_behind(&whole, "acme", "pi_1").await?;
    report(&whole, "charge.refunded", refund("pi_1", 40)).await?;
    acme.until("settled", "60").await?;
    // The outbox has nothing left to append.
    until_count(&whole, "control.outbox", 0).await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_and_disputes_end_alike_in_every_order() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let of = |payment: &str| {
        [
            (
                "refund",
                "charge.refunded",
                json!({"id": "ch", "payment_intent": payment, "amount": 100, "amount_refunded": 40}),
            ),
            (
                "opened",
                "charge.dispute.created",
                json!({"id": format!("dp_{payment}"), "payment_intent": payment, "amount": 60, "status": "needs_response"}),
            ),
            (
                "won",
                "charge.dispute.closed",
                json!({"id": format!("dp_{payment}"), "payment_intent": payment, "amount": 60, "status": "won"}),
            ),
        ]
    };
    let orders: [[usize; 4]; 6] =
        [[0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 2, 3, 0], [3, 0, 1, 2]];
    for (number, order) in orders.into_iter().enumerate() {
        let account = Account::open(&whole, &format!("acct-{number}")).await?;
        account.spend("u1", "30").await?;
        let payment = format!("pi_{number}");
        let others = of(&payment);
        for step in order {
            match step.checked_sub(1) {
                None => {
                    report(&whole, "checkout.session.completed", session(&format!("acct-{number}"), &payment))
                        .await?
                }
                Some(other) => {
                    let (_, kind, object) = &others[other];
                    report(&whole, kind, object.clone()).await?;
                    report(&whole, kind, object.clone()).await?;
                }
            }
        }
        // 100 bought, 30 used, 40 refunded, the dispute undone.
        let settled = account.figure("settled").await?;
        ensure!(settled == "30", "order {order:?}: {settled}");
        ensure!(account.figure("period_maximum").await? == "60", "order {order:?}");
        let folded_again = account.read("balance?as_of=2026-01-05T00:00:00Z").await?;
        ensure!(folded_again["settled"] == "30", "order {order:?}: {folded_again}");
    }
    // The outbox has nothing left to append.
    until_count(&whole, "control.outbox", 0).await?;
    let shown = Account::open(&whole, "shown").await?;
    report(&whole, "checkout.session.completed", session("shown", "pi_s")).await?;
    let [_, (_, opened, object), (_, won, _)] = of("pi_s");
    report(&whole, opened, object.clone()).await?;
    ensure!(shown.figure("settled").await? == "40");
    let refunded = shown.read("entries?type=refunded").await?;
    ensure!(
        refunded["items"][0]["amount"] == "-60" && refunded["items"][0]["balance_after"] == "40",
        "{refunded}"
    );
    let mut lost = object;
    lost["status"] = json!("lost");
    report(&whole, won, lost).await?;
    ensure!(shown.figure("settled").await? == "40", "a lost dispute stays");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_of_a_top_up_and_its_answer_are_one_credit() -> Result<()> {
    let whole = Whole::start_with(&[&SIGNED[..], &["--top-up-first-backoff-ms", "50"]].concat()).await?;
    let acme = Account::open(&whole, "acme").await?;
    acme.set("pm_down", json!({})).await?;
    until_count(&whole, "control.top_up where asks >= 2", 1).await?;
    let attempt: String =
        sqlx::query_scalar("select attempt_id from control.top_up").fetch_one(&whole.pool).await?;
    let metadata = json!({"account_id": "acme", "attempt_id": attempt, "amount": "50"});
    // The provider reports first that it failed, and later that it was paid.
    let error = json!({"code": "card_declined"});
    report(
        &whole,
        "payment_intent.payment_failed",
        json!({"id": "pi_1", "metadata": metadata, "last_payment_error": error}),
    )
    .await?;
    until_count(&whole, "control.top_up where state = 'ended'", 1).await?;
    let paid = json!({"id": "pi_1", "amount": 50, "metadata": metadata});
    for _ in 0..2 {
        report(&whole, "payment_intent.succeeded", paid.clone()).await?;
    }
    acme.until("settled", "50").await?;
    let grants = acme.read("grants").await?;
    ensure!(
        grants["items"][0]["grant_id"] == attempt.as_str() && grants["items"][0]["source"] == "top_up",
        "{grants}"
    );
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_is_reported_after_the_payment_changes_nothing() -> Result<()> {
    let whole = Whole::start_with(&[&SIGNED[..], &["--top-up-first-backoff-ms", "50"]].concat()).await?;
    let acme = Account::open(&whole, "acme").await?;
    acme.set("pm_down", json!({})).await?;
    until_count(&whole, "control.top_up where asks >= 1", 1).await?;
    let account = AccountId::new("acme")?;
    let attempt = derive::attempt_id(&account, 1);
    let metadata = json!({"account_id": "acme", "attempt_id": attempt, "amount": "50"});
    let paid = json!({"id": "pi_1", "amount": 50, "metadata": metadata});
    report(&whole, "payment_intent.succeeded", paid).await?;
    acme.until("settled", "50").await?;
    let error = json!({"code": "card_declined"});
    let failed = json!({"id": "pi_1", "metadata": metadata, "last_payment_error": error});
    for _ in 0..2 {
        report(&whole, "payment_intent.payment_failed", failed.clone()).await?;
    }
    whole.all_projected().await?;
    let event = acme.read(&format!("events/{}", derive::top_up_failed_id(&account, &attempt))).await?;
    ensure!(event["outcome"] == "rejected", "{event}");
    ensure!(acme.figure("settled").await? == "50");
    whole.all_evaluated().await?;
    let fired = acme.fired(1).await?;
    ensure!(fired.iter().all(|kind| kind != "credit_purchase_failed"), "{fired:?}");
    whole.replay_and_stop().await
}
