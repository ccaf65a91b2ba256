//! Payments that came to nothing wait for a person: other money than was ordered, and what the fold refuses.

use anyhow::{Context, Result, ensure};
use command_api::manual_resolution::{Decision, ResolveError, Signed, parked_effects, resolve};
use ledger_core::value::id::{PaymentId, Text};
use serde_json::{Value, json};

use super::webhooks::{SIGNED, report, session};
use super::{Account, count, until_count};
use e2e::{Answer, Whole};

const PARKED: &str = "control.payment_effect where state = 'parked'";
const SENT: &str = "control.payment_effect where state = 'sent'";

fn signed() -> Result<Signed> {
    Ok(Signed { by: Text::new("olga")?, note: Text::new("looked at the provider")?, actor: None })
}

/// Returns what waits: `pi_1 paid 100 amount_differs`.
async fn parked(whole: &Whole) -> Result<Vec<String>> {
    let effects = parked_effects(&whole.pool, None).await?;
    let summary = |effect: &command_api::manual_resolution::ParkedEffect| {
        format!("{} {} {} {}", effect.payment_id, effect.kind, effect.amount, effect.reason)
    };
    Ok(effects.iter().map(summary).collect())
}

fn with(mut object: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn other_money_than_was_ordered_credits_nothing_until_a_person_decides() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let acme = Account::open(&whole, "acme").await?;
    let ordered = whole.operator().post("/v1/accounts/acme/checkout", json!({"amount": "100"})).await?;
    let ordered = ordered.expect(201)?.body["checkout_id"].clone();
    let million = json!({"account_id": "acme", "amount": "1000000"});
    let cases = [
        ("pi_cent", json!({"id": ordered, "amount_total": 1})),
        ("pi_euro", json!({"id": ordered, "currency": "eur"})),
        ("pi_claimed", json!({"amount_total": 1, "metadata": million})),
        ("pi_more", json!({"amount_total": 101})),
    ];
    for (payment, more) in &cases {
        let paid = with(session("acme", payment), more);
        report(&whole, "checkout.session.completed", paid.clone()).await?;
        report(&whole, "checkout.session.completed", paid).await?;
    }
    // What the order says counts, whatever the metadata claim.
    let claimed = with(session("acme", "pi_order"), &json!({"id": ordered, "metadata": million}));
    report(&whole, "checkout.session.completed", claimed).await?;
    ensure!(acme.figure("settled").await? == "100");
    let expected = [
        "pi_cent paid 100 amount_differs",
        "pi_euro paid 100 currency_differs",
        "pi_claimed paid 1000000 amount_differs",
        "pi_more paid 100 amount_differs",
    ];
    ensure!(parked(&whole).await? == expected, "{:?}", parked(&whole).await?);
    // The provider tells the right money after all; of the others a person decides.
    report(&whole, "checkout.session.completed", session("acme", "pi_more")).await?;
    ensure!(acme.figure("settled").await? == "200" && count(&whole, PARKED).await? == 3);
    let credit = |amount: &str| -> Result<Decision> {
        Ok(Decision::Credit { amount: amount.parse()?, journal_id: None })
    };
    let [cent, euro, claimed] = ["pi_cent", "pi_euro", "pi_claimed"].map(PaymentId::new);
    let (cent, euro, claimed) = (cent?, euro?, claimed?);
    resolve(&whole.pool, &euro, credit("100")?, signed()?).await?;
    resolve(&whole.pool, &cent, Decision::Refunded, signed()?).await?;
    resolve(&whole.pool, &claimed, Decision::Dismissed, signed()?).await?;
    acme.until("settled", "300").await?;
    let again = resolve(&whole.pool, &euro, credit("100")?, signed()?).await;
    ensure!(matches!(again, Err(ResolveError::NoneParked(_))), "{again:?}");
    // What was decided stays decided, and is kept.
    let refund = json!({"id": "ch", "payment_intent": "pi_cent", "amount": 1, "amount_refunded": 1});
    report(&whole, "charge.refunded", refund).await?;
    let half = json!({"id": "ch", "payment_intent": "pi_euro", "amount": 100, "amount_refunded": 50});
    report(&whole, "charge.refunded", half).await?;
    acme.until("settled", "250").await?;
    until_count(&whole, SENT, 0).await?;
    ensure!(count(&whole, PARKED).await? == 0);
    let kept =
        "control.payment_effect where state = 'decided' and decided_by = 'olga' and decided_at is not null
                and note = 'looked at the provider'";
    ensure!(count(&whole, kept).await? == 3);
    whole.replay_and_stop().await
}

/// Takes an id in the account that the provider will give a payment.
async fn take(whole: &Whole, account: &str, id: &str) -> Result<Answer> {
    let path = format!("/v1/accounts/{account}/grants");
    let grant = json!({"grant_id": id, "source": "promo", "amount": "1"});
    whole.operator().post(&path, grant).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_fold_refuses_is_parked_however_late_and_credited_under_another_id() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let (late, relayed) = (Account::open(&whole, "late").await?, Account::open(&whole, "relayed").await?);
    take(&whole, "relayed", "pi_relayed").await?.expect(200)?;
    whole.all_projected().await?;
    // The process that took the webhook in does not get to append: another has to.
    let blocked = "insert into control.outbox (account_id, event_id, source, event, created_at, due_at)
                   values ('relayed', 'x', 'x', '', clock_timestamp(), 'infinity')";
    sqlx::query(blocked).execute(&whole.pool).await?;
    report(&whole, "checkout.session.completed", session("relayed", "pi_relayed")).await?;
    sqlx::query("delete from control.outbox where event_id = 'x'").execute(&whole.pool).await?;
    // The projector stands still, and the webhook is answered before anybody knows that its id is taken.
    let mut still = whole.pool.begin().await?;
    sqlx::query("lock table read_model_1.checkpoint in exclusive mode").execute(&mut *still).await?;
    take(&whole, "late", "pi_late").await?.expect(202)?;
    report(&whole, "checkout.session.completed", session("late", "pi_late")).await?;
    ensure!(
        count(&whole, &format!("{SENT} and payment_id = 'pi_late'")).await? == 1,
        "its outcome is unknown"
    );
    still.rollback().await?;
    until_count(&whole, PARKED, 2).await?;
    let found = parked(&whole).await?;
    ensure!(found.contains(&"pi_late paid 100 conflict".to_owned()), "{found:?}");
    ensure!(found.contains(&"pi_relayed paid 100 conflict".to_owned()), "{found:?}");
    let metrics = whole.operator().get("/metrics").await?;
    ensure!(metrics.text.contains("ledger_payments_parked_total{"), "{}", metrics.text);

    // Nothing is taken back of what is not there; a person credits it under another id, and it is.
    let half = json!({"id": "ch", "payment_intent": "pi_late", "amount": 100, "amount_refunded": 50});
    report(&whole, "charge.refunded", half).await?;
    ensure!(late.figure("settled").await? == "1");
    let payment = PaymentId::new("pi_late")?;
    let credit = |id: Option<&str>| -> Result<Decision> {
        let journal_id = id.map(PaymentId::new).transpose()?;
        Ok(Decision::Credit { amount: "100".parse()?, journal_id })
    };
    let taken = resolve(&whole.pool, &payment, credit(None)?, signed()?).await;
    ensure!(matches!(taken, Err(ResolveError::Taken(_))), "{taken:?}");
    resolve(&whole.pool, &payment, credit(Some("pi_late:2"))?, signed()?).await?;
    late.until("settled", "51").await?;
    let grants = late.read("grants").await?;
    let lot = grants["items"].as_array().context("items")?.iter().find(|lot| lot["grant_id"] == "pi_late:2");
    ensure!(lot.is_some_and(|lot| lot["source"] == "purchase"), "{grants}");
    resolve(&whole.pool, &PaymentId::new("pi_relayed")?, Decision::Refunded, signed()?).await?;
    until_count(&whole, SENT, 0).await?;
    ensure!(count(&whole, PARKED).await? == 0 && relayed.figure("settled").await? == "1");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_refund_under_any_key_hides_none_of_the_provider() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let acme = Account::open(&whole, "acme").await?;
    report(&whole, "checkout.session.completed", session("acme", "pi_1")).await?;
    let body = json!({"payment_id": "pi_1", "amount": "1"});
    for key in ["provider:pi_1:40", "pi_1:40"] {
        let by_hand = whole.operator().with("Idempotency-Key", key);
        by_hand.post("/v1/accounts/acme/refunds", body.clone()).await?.expect(200)?;
    }
    let refund = json!({"id": "ch", "payment_intent": "pi_1", "amount": 100, "amount_refunded": 40});
    report(&whole, "charge.refunded", refund).await?;
    acme.until("settled", "58").await?;
    until_count(&whole, "control.payment_effect", 0).await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_with_a_key_is_one_session() -> Result<()> {
    let whole = Whole::start().await?;
    Account::open(&whole, "acme").await?;
    Account::open(&whole, "beta").await?;
    let buy = async |account: &str, key: Option<&str>, amount: &str| {
        let caller = whole.operator();
        let caller = key.map_or_else(|| caller.clone(), |key| caller.with("Idempotency-Key", key));
        caller.post(&format!("/v1/accounts/{account}/checkout"), json!({"amount": amount})).await
    };
    let first = buy("acme", Some("k1"), "100").await?.expect(201)?.body.clone();
    let again = buy("acme", Some("k1"), "100.0").await?.expect(201)?.body.clone();
    ensure!(first == again, "{first} is not {again}");
    buy("acme", Some("k1"), "101").await?.expect_problem(409, "conflict")?;
    for other in [
        buy("beta", Some("k1"), "100").await?,
        buy("acme", None, "100").await?,
        buy("acme", None, "100").await?,
    ] {
        ensure!(other.expect(201)?.body["checkout_id"] != first["checkout_id"], "{}", other.text);
    }
    ensure!(count(&whole, "control.checkout where checkout_id is not null").await? == 4);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_decides_over_http_once() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let acme = Account::open(&whole, "acme").await?;
    for payment in ["pi_1", "pi_2"] {
        let paid = with(session("acme", payment), &json!({"amount_total": 1, "currency": "usd"}));
        report(&whole, "checkout.session.completed", paid).await?;
    }
    let operator = whole.operator();
    let (list, decision) = ("/v1/parked-payments", "/v1/parked-payments/pi_1/decision");
    let found = operator.get(&format!("{list}?account_id=acme")).await?.expect(200)?.body.clone();
    let first = &found["payments"][0];
    ensure!(first["payment_id"] == "pi_1" && first["account_id"] == "acme", "{found}");
    ensure!(first["amount"] == "100" && first["charged"] == 1 && first["currency"] == "usd", "{found}");
    ensure!(first["reason"] == "amount_differs" && found["top_ups"] == json!([]), "{found}");
    let other = operator.get(&format!("{list}?account_id=beta")).await?;
    ensure!(other.expect(200)?.body["payments"] == json!([]), "{}", other.text);
    operator.post(decision, json!({"decision": "credit", "reason": "r"})).await?.expect(422)?;
    take(&whole, "acme", "pi_1").await?.expect(200)?;
    let credit = json!({"decision": "credit", "amount": "90", "reason": "agreed"});
    operator.post(decision, credit.clone()).await?.expect_problem(422, "grant_exists")?;
    let other = with(credit, &json!({"credit_as": "pi_1:2"}));
    // Of two at once, one decides.
    let (one, two) = tokio::join!(operator.post(decision, other.clone()), operator.post(decision, other));
    let (one, two) = (one?, two?);
    let (decided, late) = if one.status == 200 { (one, two) } else { (two, one) };
    ensure!(decided.expect(200)?.body["account_id"] == "acme", "{}", decided.text);
    late.expect_problem(404, "nothing_parked")?;
    acme.until("settled", "91").await?;
    let dismissed = json!({"decision": "dismissed", "reason": "a trial"});
    let decided = operator.post("/v1/parked-payments/pi_2/decision", dismissed).await?;
    ensure!(decided.expect(200)?.body["decision"] == "dismissed", "{}", decided.text);
    // It is known who has decided: the key.
    let by = "control.payment_effect where state = 'decided' and decided_by = 'operator'
              and note in ('agreed', 'a trial')";
    ensure!(count(&whole, by).await? == 2, "two decisions of the operator's key");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_says_over_http_what_has_become_of_a_top_up() -> Result<()> {
    let whole = Whole::start_with(&["--top-up-first-backoff-ms", "50"]).await?;
    let acme = Account::open(&whole, "acme").await?;
    acme.set("pm_down", json!({})).await?;
    until_count(&whole, "control.top_up where asks >= 1", 1).await?;
    sqlx::query("update control.top_up set started_at = started_at - interval '21 hours'")
        .execute(&whole.pool)
        .await?;
    until_count(&whole, "control.top_up where state = 'parked'", 1).await?;
    let operator = whole.operator();
    let found = operator.get("/v1/parked-payments").await?.expect(200)?.body.clone();
    let parked = &found["top_ups"][0];
    ensure!(parked["account_id"] == "acme" && parked["amount"] == "50", "{found}");
    let attempt = parked["attempt_id"].as_str().context("an attempt")?;
    let path = format!("/v1/accounts/acme/top-ups/{attempt}/decision");
    let paid = json!({"outcome": "paid", "payment_id": "pi_found"});
    operator.post(&path, json!({"outcome": "paid"})).await?.expect(422)?;
    let other = operator.post("/v1/accounts/acme/top-ups/another/decision", paid.clone()).await?;
    other.expect_problem(404, "nothing_parked")?;
    let nobody = operator.post("/v1/accounts/nobody/top-ups/x/decision", paid.clone()).await?;
    nobody.expect_problem(404, "account_not_found")?;
    operator.post(&path, paid.clone()).await?.expect(200)?;
    operator.post(&path, paid).await?.expect_problem(404, "nothing_parked")?;
    acme.until("settled", "50").await?;
    until_count(&whole, "control.top_up where state = 'ended'", 1).await?;
    let found = operator.get("/v1/parked-payments").await?;
    ensure!(found.expect(200)?.body["top_ups"] == json!([]), "{}", found.text);
    whole.replay_and_stop().await
}
