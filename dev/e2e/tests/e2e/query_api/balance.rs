//! Balance: every figure by its name, now and at an instant.

use anyhow::Result;
use serde_json::{Value, json};

use super::described::{ensure_is, read};
use super::story::Story;
use e2e::Whole;

/// Expects these figures and ignores all others.
async fn check(story: &Story, what: &str, expected: Value) -> Result<()> {
    let answer = story.get(&format!("/balance{what}")).await?;
    let mut found = serde_json::Map::new();
    for name in expected.as_object().into_iter().flatten().map(|(name, _)| name) {
        found.insert(name.clone(), answer.body[name].clone());
    }
    ensure_is(&Value::Object(found), &expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_names_every_figure() -> Result<()> {
    let whole = Whole::start().await?;
    let plan = json!({"allowance": "5", "rollover": {"mode": "capped", "cap": null}});
    let story = Story::monthly(&whole, "acme", plan).await?;
    story.usage("2026-01-10T00:00:00Z", "u1", json!({"credits": "2"})).await?;
    let moved = story.clock("2026-02-10T00:00:00Z").await?;
    let ends = "2026-03-01T00:00:00Z";
    let starts = "2026-02-01T00:00:00Z";
    let expected = json!({
        "account_id": "acme", "position": moved.body["position"], "recorded_at": "2026-02-10T00:00:00Z",
        "settled": "8", "held": "0", "available": "8", "credit_balance": "0", "overdraft": "0", "allowance": "5",
        "rollover": "3", "period_maximum": "8", "used": "0", "percent_used": "0", "percent_remaining": "100",
        "status": "active", "lifetime_added": "0", "lifetime_spent": "0",
        "period": {"index": 1, "starts_at": starts, "ends_at": ends},
        "lots": [
            {"grant_id": "rollover:1", "source": "rollover", "category": "promotional", "amount": "3",
             "remaining": "3", "priority": 10, "effective_at": starts, "expires_at": ends},
            {"grant_id": "plan:1", "source": "plan", "category": "promotional", "amount": "5",
             "remaining": "5", "priority": 20, "effective_at": starts, "expires_at": ends},
        ],
    });
    ensure_is(&story.get("/balance").await?.body, &expected)?;

    story.post("2026-02-11T00:00:00Z", "/purchases", json!({"payment_id": "pay_1", "amount": "100"})).await?;
    story.usage("2026-02-12T00:00:00Z", "u2", json!({"credits": "10"})).await?;
    check(
        &story,
        "",
        json!({
            "settled": "98", "available": "98", "credit_balance": "98", "rollover": "0", "allowance": "5",
            "period_maximum": "108", "used": "10", "percent_used": "9.259259259", "percent_remaining": "90.740740741",
            "status": "active", "lifetime_added": "100", "lifetime_spent": "2",
            "lots": [{"grant_id": "pay_1", "source": "purchase", "category": "paid", "amount": "100",
                      "remaining": "98", "priority": 40, "effective_at": "2026-02-11T00:00:00Z", "expires_at": null}],
        }),
    )
    .await?;

    story.usage("2026-02-13T00:00:00Z", "u3", json!({"credits": "100"})).await?;
    check(
        &story,
        "",
        json!({
            "settled": "-2", "available": "-2", "credit_balance": "0", "overdraft": "2", "used": "110",
            "percent_used": "101.851851852", "percent_remaining": "0", "status": "depleted",
            "lifetime_spent": "100", "lots": [],
        }),
    )
    .await?;

    story.patch("2026-02-14T00:00:00Z", json!({"low_balance_threshold": "38"})).await?;
    story.post("2026-02-14T00:00:00Z", "/purchases", json!({"payment_id": "pay_2", "amount": "40"})).await?;
    check(
        &story,
        "",
        json!({"settled": "38", "credit_balance": "38", "overdraft": "0", "status": "low",
               "lifetime_added": "140", "lifetime_spent": "102"}),
    )
    .await?;
    story.post("2026-02-14T00:00:00Z", "/refunds", json!({"payment_id": "pay_2", "amount": "8"})).await?;
    check(&story, "", json!({"settled": "30", "lifetime_added": "140"})).await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn percents_are_null_where_there_is_nothing_to_use() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "0"})).await?;
    let nothing = json!({"settled": "0", "period_maximum": "0", "percent_used": null, "percent_remaining": null,
                         "status": "depleted", "lots": []});
    check(&story, "", nothing).await?;
    story.usage("2026-01-06T00:00:00Z", "u1", json!({"credits": "0.000000001"})).await?;
    check(&story, "", json!({"settled": "-0.000000001", "percent_used": null, "percent_remaining": null}))
        .await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_as_of_an_instant_rolls_to_it_and_the_future_is_the_present() -> Result<()> {
    let whole = Whole::start().await?;
    let plan = json!({"allowance": "5", "rollover": {"mode": "capped", "cap": null}});
    let story = Story::monthly(&whole, "acme", plan).await?;
    story.usage("2026-01-10T00:00:00Z", "u1", json!({"credits": "2"})).await?;
    story.clock("2026-03-10T00:00:00Z").await?;
    for (instant, index, settled, rollover) in [
        ("2026-01-05T00:00:00Z", 0, "5", "0"),
        ("2026-01-09T23:59:59.999999Z", 0, "5", "0"),
        ("2026-01-10T00:00:00Z", 0, "3", "0"),
        ("2026-01-10T01:00:00%2B01:00", 0, "3", "0"),
        ("2026-01-31T23:59:59.999999Z", 0, "3", "0"),
        ("2026-02-01T00:00:00Z", 1, "8", "3"),
        ("2026-02-28T23:59:59Z", 1, "8", "3"),
        ("2026-03-01T00:00:00Z", 2, "10", "5"),
        ("2026-03-10T00:00:00Z", 2, "10", "5"),
        // Later than ledger time it is the present: the test clock has not moved yet.
        ("2031-01-01T00:00:00Z", 2, "10", "5"),
    ] {
        let answer = story.get(&format!("/balance?as_of={instant}")).await?;
        let found =
            json!([instant, answer.body["period"]["index"], answer.body["settled"], answer.body["rollover"]]);
        ensure_is(&found, &json!([instant, index, settled, rollover]))?;
        ensure_is(&answer.body["held"], &json!("0"))?;
    }
    let before = "/v1/accounts/acme/balance?as_of=2026-01-04T23:59:59.999999Z";
    read(&whole.operator(), before).await?.expect_problem(404, "account_not_found")?;
    whole.replay_and_stop().await
}
