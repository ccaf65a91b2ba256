//! Closing an account: what it refuses, and what goes on.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{OPENED, expect_applied, expect_balance, expect_same, open};
use e2e::{Caller, Whole};

#[tokio::test]
async fn a_closed_account_refuses_what_is_new_and_takes_what_goes_back() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    let at = operator.at(OPENED);
    let purchase =
        json!({"payment_id": "pay_1", "amount": "100", "price": {"amount": "90", "currency": "eur"}});
    expect_applied(&operator.post("/v1/accounts/acme/purchases", purchase).await?)?;
    let hold = json!({"reservation_id": "r1", "user_id": "ana", "amount": "5", "ttl_seconds": 900});
    operator.post("/v1/accounts/acme/reservations", hold).await?.expect(201)?;
    let usage = |id: &str, credits: &str| json!({"id": id, "occurred_at": OPENED, "credits": credits});
    expect_applied(&at.post("/v1/accounts/acme/usage?wait=true", usage("u1", "1")).await?)?;

    let admin = whole.keyed("admin", &["acme"], None).await?;
    let why = json!({"reason": "the customer left"});
    admin.post("/v1/accounts/acme/close", why.clone()).await?.expect_problem(403, "forbidden")?;
    operator
        .post("/v1/accounts/acme/close", json!({"reason": ""}))
        .await?
        .expect_fields(&["reason required"])?;
    let closed = operator.post("/v1/accounts/acme/close", why.clone()).await?;
    expect_applied(&closed)?;
    expect_same(&closed, &operator.post("/v1/accounts/acme/close", why).await?)?;
    let other = operator.post("/v1/accounts/acme/close", json!({"reason": "other"})).await?;
    ensure!(other.expect_problem(409, "conflict")?.body["differs"] == json!(["reason"]), "{}", other.text);

    refuses_what_is_new(&operator).await?;
    takes_what_goes_back(&operator).await?;
    whole.replay_and_stop().await
}

async fn refuses_what_is_new(operator: &Caller) -> Result<()> {
    let usage = json!({"id": "u2", "occurred_at": OPENED, "credits": "1"});
    let alert = json!({"basis": "percent_used", "threshold": "75"});
    let plan = json!({"plan": {"cycle": "monthly", "allowance": "7"}});
    for (path, body) in [
        ("usage?wait=true", usage),
        ("usage", json!({"id": "u3", "occurred_at": OPENED, "credits": "1"})),
        ("grants", json!({"grant_id": "g", "source": "promo", "amount": "1"})),
        ("purchases", json!({"payment_id": "pay_2", "amount": "1"})),
        ("reservations", json!({"reservation_id": "r2", "amount": "1"})),
        ("check", json!({"amount": "1"})),
        ("checkout", json!({"amount": "1"})),
    ] {
        let answer = operator.post(&format!("/v1/accounts/acme/{path}"), body).await?;
        answer.expect_problem(409, "account_closed")?;
    }
    for (path, body) in [
        ("limits", json!({})),
        ("limits/users/ana", json!({"limit": "5"})),
        ("alerts/a75", alert),
        ("user-alert", json!({"enabled": false})),
        ("auto-top-up", json!({"enabled": false})),
        ("plan", plan),
    ] {
        let answer = operator.put(&format!("/v1/accounts/acme/{path}"), body).await?;
        answer.expect_problem(409, "account_closed")?;
    }
    operator.patch("/v1/accounts/acme", json!({"name": "x"})).await?.expect_problem(409, "account_closed")?;
    operator
        .delete("/v1/accounts/acme/limits/users/ana")
        .await?
        .expect_problem(409, "account_closed")
        .map(drop)
}

async fn takes_what_goes_back(operator: &Caller) -> Result<()> {
    // A resend is a duplicate still, and a hold that was granted settles.
    let at = operator.at(OPENED);
    let first = json!({"id": "u1", "occurred_at": OPENED, "credits": "1"});
    let again = at.post("/v1/accounts/acme/usage?wait=true", first).await?;
    ensure!(again.expect(200)?.body["outcome"] == "duplicate", "{}", again.text);
    let settle = json!({"id": "u4", "occurred_at": OPENED, "credits": "3"});
    let settled = at.post("/v1/accounts/acme/reservations/r1/settle", settle).await?;
    ensure!(settled.expect(200)?.body["outcome"] == "applied", "{}", settled.text);
    let refund = json!({"payment_id": "pay_1", "amount": "40", "reason": "asked for"});
    let refunded = operator.with("Idempotency-Key", "k1").post("/v1/accounts/acme/refunds", refund).await?;
    expect_applied(&refunded)?;
    expect_balance(operator, "acme", "settled=66 held=0 allowance=10").await?;
    // Months later nothing has been reset.
    let clock = json!({"advance_to": "2026-06-01T00:00:00Z"});
    expect_applied(&operator.post("/v1/accounts/acme/clock", clock).await?)?;
    expect_balance(operator, "acme", "settled=60 used=4").await?;
    let account = operator.get("/v1/accounts/acme").await?;
    let shown = &account.expect(200)?.body;
    ensure!(shown["status"] == "closed" && shown["closed_at"] == OPENED, "{}", account.text);
    ensure!(shown["period"]["index"] == 0, "{}", account.text);
    let grants = operator.get("/v1/accounts/acme/grants").await?;
    let price = &grants.expect(200)?.body["items"][0]["price"];
    ensure!(*price == json!({"amount": "90", "currency": "eur"}), "{}", grants.text);
    Ok(())
}
