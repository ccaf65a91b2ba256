//! Check: whether work may begin, by balance and limit, without changing either.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{OPENED, open, open_live};
use e2e::{Answer, Caller, Whole};

async fn asked(caller: &Caller, account: &str, work: Value) -> Result<Answer> {
    caller.post(&format!("/v1/accounts/{account}/check"), work).await
}

/// Fails unless a check says so: `allowed`, or the code of its refusal.
async fn expect(caller: &Caller, account: &str, work: Value, expected: &str) -> Result<Value> {
    let answer = asked(caller, account, work.clone()).await?;
    answer.expect(200)?;
    let code = answer.body["code"].as_str().unwrap_or("allowed");
    ensure!(code == expected && answer.body["allowed"] == (expected == "allowed"), "{work}: {}", answer.text);
    ensure!(answer.body["message"].is_null() == (expected == "allowed"), "{}", answer.text);
    Ok(answer.body)
}

async fn use_credits(operator: &Caller, id: &str, user: &str, credits: &str, feature: &str) -> Result<()> {
    let body =
        json!({"id": id, "occurred_at": OPENED, "user_id": user, "credits": credits, "feature": feature});
    operator.at(OPENED).post("/v1/accounts/acme/usage", body).await?.expect(200).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn work_may_begin_while_balance_and_limit_cover_it() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "100").await?;
    let limits =
        json!({"default_limit": "40", "custom": {"bo": "unlimited"}, "excluded_features": ["workflow"]});
    operator.at(OPENED).put("/v1/accounts/acme/limits", limits).await?.expect(200)?;
    use_credits(&operator, "u1", "ana", "30", "chat").await?;
    use_credits(&operator, "u2", "ana", "15", "workflow").await?;

    let producer = whole.keyed("producer", &["acme"], None).await?;
    expect(&producer, "acme", json!({"user_id": "ana", "amount": "10"}), "allowed").await?;
    let more = json!({"user_id": "ana", "feature": "chat", "amount": "10.5"});
    let refused = expect(&producer, "acme", more, "user_limit_reached").await?;
    let figures =
        ["limit", "used", "held", "available"].map(|figure| refused[figure].as_str().unwrap_or_default());
    ensure!(figures == ["40", "30", "0", "55"], "{refused}");
    ensure!(refused["resets_at"] == "2026-03-01T00:00:00Z", "{refused}");
    ensure!(
        refused["message"] == "You have used 30 of your 40 credits; your limit resets on 1 March.",
        "{refused}"
    );
    expect(&producer, "acme", json!({"user_id": "ana", "feature": "workflow", "amount": "50"}), "allowed")
        .await?;
    expect(&producer, "acme", json!({"user_id": "bo", "amount": "55"}), "allowed").await?;
    let poor =
        expect(&producer, "acme", json!({"user_id": "bo", "amount": "55.1"}), "credits_exhausted").await?;
    ensure!(poor["message"] == "Your team has 55 credits left, which is not enough for this.", "{poor}");
    ensure!(poor["limit"].is_null(), "{poor}");

    use_credits(&operator, "u3", "bo", "55", "chat").await?;
    let empty = expect(&producer, "acme", json!({}), "credits_exhausted").await?;
    let words = "Your team has used all its credits; the next period begins on 1 March.";
    ensure!(empty["message"] == words, "{empty}");
    // Everything is allowed again by itself.
    operator
        .post("/v1/accounts/acme/clock", json!({"advance_to": "2026-03-01T00:00:00Z"}))
        .await?
        .expect(200)?;
    expect(&producer, "acme", json!({"user_id": "ana", "amount": "40"}), "allowed").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_is_for_producers_names_bad_fields_and_stores_nothing() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open_live(&operator, "acme", "100").await?;
    let ends = whole.ends().await?;
    expect(&operator, "acme", json!({"user_id": "ana"}), "allowed").await?;
    let bad = asked(&operator, "acme", json!({"user_id": " no id", "amount": "0", "team": "x"})).await?;
    bad.expect(422)?;
    for field in ["user_id", "amount", "team"] {
        ensure!(bad.text.contains(&format!("\"field\":\"{field}\"")), "{field}: {}", bad.text);
    }
    asked(&operator, "nobody", json!({})).await?.expect_problem(404, "account_not_found")?;
    for role in ["admin", "auditor"] {
        let accounts: &[&str] = if role == "admin" { &["acme"] } else { &[] };
        let caller = whole.keyed(role, accounts, None).await?;
        asked(&caller, "acme", json!({})).await?.expect_problem(403, "forbidden")?;
    }
    let other = whole.keyed("producer", &["other"], None).await?;
    asked(&other, "acme", json!({})).await?.expect_problem(403, "forbidden")?;
    asked(&whole.caller(None), "acme", json!({})).await?.expect_problem(401, "unauthorized")?;
    ensure!(whole.ends().await? == ends, "a check was written to the journal");
    whole.replay_and_stop().await
}
