//! Credits given and taken by hand: grants, voids, adjustments, purchases and refunds.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{expect_applied, expect_balance, expect_same, expect_written, open};
use e2e::{Answer, Caller, Whole};

fn grant(id: &str, amount: &str) -> Value {
    json!({"grant_id": id, "source": "promo", "amount": amount})
}

async fn granted(operator: &Caller, account: &str, grant: &str) -> Result<Value> {
    let answer = operator.get(&format!("/v1/accounts/{account}/grants?limit=100")).await?;
    answer.expect(200)?;
    let items = answer.body["items"].as_array().cloned().unwrap_or_default();
    Ok(items.into_iter().find(|item| item["grant_id"] == grant).unwrap_or_default())
}

/// Fails unless the fold rejected the write for this reason; the journal has the record all the same.
fn expect_rejected(answer: &Answer, reason: &str) -> Result<()> {
    answer.expect_problem(422, reason)?;
    answer.position()?;
    ensure!(answer.body["outcome"] == "rejected", "{}", answer.text);
    Ok(())
}

#[tokio::test]
async fn grants_add_credits_once_and_voids_take_what_remains() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    a_grant_is_read_as_it_was_written(&operator).await?;
    a_grant_is_given_once(&operator).await?;
    a_void_takes_what_remains_once(&operator).await?;
    what_can_not_be_voided_stays(&operator).await?;
    bad_grants_give_nothing(&operator).await?;
    whole.replay_and_stop().await
}

async fn a_grant_is_read_as_it_was_written(operator: &Caller) -> Result<()> {
    open(operator, "acme", "0").await?;
    let body = json!({
        "grant_id": "g1", "source": "promo", "amount": "500", "priority": 30, "effective_at": null,
        "expires_at": null, "reason": "spring"
    });
    expect_applied(&operator.post("/v1/accounts/acme/grants", body).await?)?;
    let timed = json!({
        "grant_id": "g2", "source": "welcome", "amount": "7.5", "priority": 5,
        "effective_at": "2026-02-10T00:00:00Z", "expires_at": "2026-02-20T00:00:00Z"
    });
    expect_applied(&operator.post("/v1/accounts/acme/grants", timed).await?)?;
    expect_balance(operator, "acme", "settled=500").await?;
    let shown = granted(operator, "acme", "g2").await?;
    let said = [&shown["source"], &shown["amount"], &shown["effective_at"], &shown["expires_at"]];
    ensure!(said == ["welcome", "7.5", "2026-02-10T00:00:00Z", "2026-02-20T00:00:00Z"], "{shown}");
    ensure!(shown["priority"] == 5, "{shown}");
    ensure!(granted(operator, "acme", "g1").await?["reason"] == "spring");
    let clock = "/v1/accounts/acme/clock";
    expect_applied(&operator.post(clock, json!({"advance_to": "2026-02-10T00:00:00Z"})).await?)?;
    expect_balance(operator, "acme", "settled=507.5").await?;
    expect_applied(&operator.post(clock, json!({"advance_to": "2026-02-20T00:00:00Z"})).await?)?;
    expect_balance(operator, "acme", "settled=500").await
}

async fn a_grant_is_given_once(operator: &Caller) -> Result<()> {
    open(operator, "once", "0").await?;
    let path = "/v1/accounts/once/grants";
    let first = operator.post(path, grant("g1", "5")).await?;
    expect_applied(&first)?;
    ensure!(first.body["event_id"] == "g1", "{}", first.text);
    expect_same(&first, &operator.post(path, grant("g1", "5")).await?)?;
    expect_same(&first, &operator.post(path, grant("g1", "5.00")).await?)?;
    operator.post(path, grant("g1", "6")).await?.expect_problem(409, "conflict")?;
    // Grants and payments share one id space.
    let purchase = json!({"payment_id": "g1", "amount": "5"});
    operator.post("/v1/accounts/once/purchases", purchase).await?.expect_problem(409, "conflict")?;
    let accepted = operator.post(&format!("{path}?wait=false"), grant("g2", "1")).await?;
    accepted.expect(202)?;
    expect_written(&accepted, None)?;
    let again = operator.post(path, grant("g2", "1")).await?;
    expect_applied(&again)?;
    ensure!(again.body["position"] == accepted.body["position"], "{}", again.text);
    expect_balance(operator, "once", "settled=6").await
}

async fn a_void_takes_what_remains_once(operator: &Caller) -> Result<()> {
    open(operator, "voided", "0").await?;
    operator.post("/v1/accounts/voided/grants", grant("g1", "5")).await?.expect(200)?;
    let usage = json!({"id": "u1", "occurred_at": super::OPENED, "credits": "2"});
    operator.post("/v1/accounts/voided/usage?wait=true", usage).await?.expect(200)?;
    let path = "/v1/accounts/voided/grants/g1?reason=mistake";
    let first = operator.delete(path).await?;
    expect_applied(&first)?;
    expect_balance(operator, "voided", "settled=0").await?;
    ensure!(!granted(operator, "voided", "g1").await?["voided_at"].is_null());
    expect_same(&first, &operator.delete(path).await?)?;
    // Another reason is different content.
    operator.delete("/v1/accounts/voided/grants/g1").await?.expect_problem(409, "conflict")?;
    operator.delete("/v1/accounts/voided/grants/g1?why=x").await?.expect_fields(&["why unknown_field"])?;
    operator.post("/v1/accounts/voided/grants", grant("g2", "5")).await?.expect(200)?;
    let free = operator.delete("/v1/accounts/voided/grants/g2?wait=false").await?;
    free.expect(202).map(drop)
}

async fn what_can_not_be_voided_stays(operator: &Caller) -> Result<()> {
    open(operator, "kept", "5").await?;
    let plan = operator.delete("/v1/accounts/kept/grants/plan:0").await?;
    expect_rejected(&plan, "grant_not_voidable")?;
    // The grant does not exist yet; once it does, it can be voided.
    expect_rejected(&operator.delete("/v1/accounts/kept/grants/g1").await?, "grant_unknown")?;
    operator.post("/v1/accounts/kept/grants", grant("g1", "5")).await?.expect(200)?;
    expect_balance(operator, "kept", "settled=10").await?;
    expect_applied(&operator.delete("/v1/accounts/kept/grants/g1").await?)?;
    expect_balance(operator, "kept", "settled=5").await?;
    operator.delete("/v1/accounts/nobody/grants/g1").await?.expect_problem(404, "account_not_found")?;
    operator.delete("/v1/accounts/kept/grants/%20no").await?.expect_problem(404, "not_found").map(drop)
}

async fn bad_grants_give_nothing(operator: &Caller) -> Result<()> {
    open(operator, "poor", "0").await?;
    let path = "/v1/accounts/poor/grants";
    let bad = json!({
        "grant_id": "plan:7", "source": "purchase", "amount": "-5", "priority": 1001, "effective_at": "x",
        "expires_at": 5, "reason": 1, "colour": "red"
    });
    let fields = [
        "amount not_positive",
        "colour unknown_field",
        "effective_at not_a_time",
        "expires_at not_a_time",
        "grant_id reserved_id",
        "priority out_of_range",
        "reason wrong_type",
        "source not_one_of",
    ];
    operator.post(path, bad).await?.expect_fields(&fields)?;
    let required = ["amount required", "grant_id required", "source required"];
    operator.post(path, json!({})).await?.expect_fields(&required)?;
    let ended =
        json!({"grant_id": "g", "source": "promo", "amount": "1", "expires_at": "2026-02-03T10:00:00Z"});
    operator.post(path, ended).await?.expect_fields(&["expires_at not_in_future"])?;
    let reversed = json!({
        "grant_id": "g", "source": "promo", "amount": "1",
        "effective_at": "2026-03-01T00:00:00Z", "expires_at": "2026-02-20T00:00:00Z"
    });
    operator.post(path, reversed).await?.expect_fields(&["expires_at not_after"])?;
    for prefix in ["plan", "rollover", "welcome", "promo", "referral"] {
        let reserved = operator.post(path, grant(&format!("{prefix}:x"), "1")).await?;
        reserved.expect_fields(&["grant_id reserved_id"])?;
    }
    for (amount, code) in AMOUNTS {
        let answer = operator.post(path, grant("g", amount)).await?;
        answer.expect_fields(&[&format!("amount {code}")])?;
    }
    operator
        .post("/v1/accounts/nobody/grants", grant("g", "1"))
        .await?
        .expect_problem(404, "account_not_found")?;
    expect_balance(operator, "poor", "settled=0").await
}

/// Texts that are no valid amount of a grant, with the code of the refusal.
const AMOUNTS: [(&str, &str); 12] = [
    ("", "not_an_amount"),
    (" 1", "not_an_amount"),
    ("+1", "not_an_amount"),
    ("1.", "not_an_amount"),
    (".5", "not_an_amount"),
    ("1e3", "not_an_amount"),
    ("0x1", "not_an_amount"),
    ("NaN", "not_an_amount"),
    ("1,000", "not_an_amount"),
    ("0.0000000001", "too_many_places"),
    ("1000000000000000000", "too_many_digits"),
    ("0.000", "not_positive"),
];

#[tokio::test]
async fn adjustments_purchases_and_refunds_move_money_once() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    an_adjustment_is_named_by_its_idempotency_key(&operator).await?;
    a_purchase_is_credited_once(&operator).await?;
    a_refund_never_passes_its_payment(&operator).await?;
    bad_money_moves_nothing(&operator).await?;
    whole.replay_and_stop().await
}

async fn an_adjustment_is_named_by_its_idempotency_key(operator: &Caller) -> Result<()> {
    open(operator, "acme", "100").await?;
    let path = "/v1/accounts/acme/adjustments";
    let body = json!({"amount": "-12.5", "reason": "goodwill"});
    let named = operator.with("Idempotency-Key", "fix-1");
    let first = named.post(path, body.clone()).await?;
    expect_applied(&first)?;
    expect_balance(operator, "acme", "settled=87.5").await?;
    expect_same(&first, &named.post(path, body.clone()).await?)?;
    named.post(path, json!({"amount": "-12.5", "reason": "x"})).await?.expect_problem(409, "conflict")?;
    expect_applied(&operator.with("Idempotency-Key", "fix-2").post(path, body.clone()).await?)?;
    expect_balance(operator, "acme", "settled=75").await?;
    // A key belongs to a write of one account.
    open(operator, "other", "100").await?;
    expect_applied(&named.post("/v1/accounts/other/adjustments", body.clone()).await?)?;
    operator.post(path, body.clone()).await?.expect_fields(&["Idempotency-Key required"])?;
    let long = "k".repeat(129);
    operator.with("Idempotency-Key", &long).post(path, body).await?.expect(422)?;
    expect_balance(operator, "acme", "settled=75").await
}

async fn a_purchase_is_credited_once(operator: &Caller) -> Result<()> {
    open(operator, "buyer", "0").await?;
    let path = "/v1/accounts/buyer/purchases";
    let body = json!({"payment_id": "pay_1", "amount": "100"});
    let first = operator.post(path, body.clone()).await?;
    expect_applied(&first)?;
    expect_same(&first, &operator.post(path, body).await?)?;
    let other = json!({"payment_id": "pay_1", "amount": "101"});
    operator.post(path, other).await?.expect_problem(409, "conflict")?;
    expect_balance(operator, "buyer", "settled=100 credit_balance=100 lifetime_added=100").await
}

async fn a_refund_never_passes_its_payment(operator: &Caller) -> Result<()> {
    let path = "/v1/accounts/buyer/refunds";
    let body = json!({"payment_id": "pay_1", "amount": "40", "reason": "asked for"});
    operator.post(path, body.clone()).await?.expect_fields(&["Idempotency-Key required"])?;
    let named = operator.with("Idempotency-Key", "r1");
    let first = named.post(path, body.clone()).await?;
    expect_applied(&first)?;
    expect_same(&first, &named.post(path, body.clone()).await?)?;
    let other = json!({"payment_id": "pay_1", "amount": "41"});
    named.post(path, other).await?.expect_problem(409, "conflict")?;
    expect_balance(operator, "buyer", "settled=60 credit_balance=60").await?;
    let rest = json!({"payment_id": "pay_1", "amount": "61"});
    let more = operator.with("Idempotency-Key", "r2").post(path, rest.clone()).await?;
    expect_rejected(&more, "refund_exceeds_payment")?;
    // A repeated request still gets the first answer.
    expect_same(&more, &operator.with("Idempotency-Key", "r2").post(path, rest).await?)?;
    let unknown = json!({"payment_id": "pay_9", "amount": "1"});
    let unknown = operator.with("Idempotency-Key", "r3").post(path, unknown).await?;
    expect_rejected(&unknown, "payment_unknown")?;
    expect_balance(operator, "buyer", "settled=60").await
}

async fn bad_money_moves_nothing(operator: &Caller) -> Result<()> {
    open(operator, "poor", "1").await?;
    let named = operator.with("Idempotency-Key", "bad");
    let adjustments = "/v1/accounts/poor/adjustments";
    named.post(adjustments, json!({"amount": "0", "reason": "r"})).await?.expect_fields(&["amount zero"])?;
    let empty = named.post(adjustments, json!({"amount": 1, "reason": ""})).await?;
    empty.expect_fields(&["amount not_an_amount", "reason required"])?;
    let nothing = named.post(adjustments, json!({"note": "x"})).await?;
    nothing.expect_fields(&["amount required", "note unknown_field", "reason required"])?;
    let purchases = "/v1/accounts/poor/purchases";
    let bad = json!({"payment_id": "rollover:1", "amount": "0", "currency": "eur"});
    let fields = ["amount not_positive", "currency unknown_field", "payment_id reserved_id"];
    operator.post(purchases, bad).await?.expect_fields(&fields)?;
    let refunds = "/v1/accounts/poor/refunds";
    let bad = json!({"payment_id": "", "amount": "-1", "reason": 5});
    named.post(refunds, bad).await?.expect_fields(&[
        "amount not_positive",
        "payment_id bad_id",
        "reason wrong_type",
    ])?;
    for path in ["adjustments", "purchases", "refunds"] {
        let body = match path {
            "adjustments" => json!({"amount": "1", "reason": "r"}),
            _ => json!({"payment_id": "p", "amount": "1"}),
        };
        let answer = named.post(&format!("/v1/accounts/nobody/{path}"), body).await?;
        answer.expect_problem(404, "account_not_found")?;
    }
    expect_balance(operator, "poor", "settled=1").await
}
