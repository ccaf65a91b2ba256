//! Users: how much of their usage counts toward which limit, and who is over budget.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::described::{ensure_is, read};
use super::story::Story;
use e2e::Whole;

/// After the usage of every test.
const LATER: &str = "2026-01-10T00:00:00Z";

/// An account with usage: `ana` 30 by chat and 20 by workflow, `bo` 40 by chat, `cy` 5 without a feature, `di` 0.
async fn tell(whole: &Whole) -> Result<Story> {
    let story = Story::monthly(whole, "acme", json!({"allowance": "1000"})).await?;
    for (id, user, feature, credits) in [
        ("u1", "ana", json!("chat"), "30"),
        ("u2", "ana", json!("workflow"), "20"),
        ("u3", "bo", json!("chat"), "40"),
        ("u4", "cy", Value::Null, "5"),
        ("u5", "di", json!("chat"), "0"),
    ] {
        let body = json!({"credits": credits, "user_id": user, "feature": feature});
        story.usage("2026-01-06T00:00:00Z", id, body).await?;
    }
    Ok(story)
}

async fn set(story: &Story, limits: Value) -> Result<()> {
    story.limits(LATER, limits).await
}

/// Users as `ana 50/50 of 60, bo 40/40 of 40!`: used, counted, limit, and a mark where blocked.
fn summary(users: &[Value]) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let one = |user: &Value| {
        let [who, used, counted, limit] =
            ["user_id", "used", "counted", "limit"].map(|field| text(&user[field]));
        let mark = if user["blocked"] == true { "!" } else { "" };
        format!("{who} {used}/{counted} of {limit}{mark}")
    };
    users.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Checks the users under the current limits; those marked as blocked are the ones over budget.
async fn check(story: &Story, expected: &str) -> Result<()> {
    let found = summary(&story.items("/users").await?);
    ensure!(found == expected, "found {found}, not {expected}");
    let over: Vec<&str> = expected.split(", ").filter(|user| user.ends_with('!')).collect();
    for limit in [1, 2, 50] {
        let found = summary(&story.pages("/users?over_budget=true", limit).await?);
        ensure!(found == over.join(", "), "{found} are over budget by pages of {limit}, not {over:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_blocked_once_what_counts_reaches_the_limit() -> Result<()> {
    let whole = Whole::start().await?;
    let story = tell(&whole).await?;
    check(&story, "ana 50/50 of -, bo 40/40 of -, cy 5/5 of -, di 0/0 of -").await?;
    set(&story, json!({"default_limit": "40"})).await?;
    check(&story, "ana 50/50 of 40!, bo 40/40 of 40!, cy 5/5 of 40, di 0/0 of 40").await?;
    // Own limits win over the default, above and below it.
    let custom = json!({"ana": "50.000000001", "bo": "unlimited", "cy": "4.5", "nobody": "0"});
    set(&story, json!({"default_limit": "40", "custom": custom})).await?;
    check(&story, "ana 50/50 of 50.000000001, bo 40/40 of -, cy 5/5 of 4.5!, di 0/0 of 40").await?;
    set(&story, json!({"custom": {"ana": "50", "cy": "unlimited", "di": "1"}})).await?;
    check(&story, "ana 50/50 of 50!, bo 40/40 of -, cy 5/5 of -, di 0/0 of 1").await?;
    // A limit of 0 blocks users without usage.
    set(&story, json!({"default_limit": "0", "custom": {"ana": "60"}})).await?;
    check(&story, "ana 50/50 of 60, bo 40/40 of 0!, cy 5/5 of 0!, di 0/0 of 0!").await?;
    set(&story, json!({"enabled": false, "default_limit": "0", "custom": {"ana": "60"}})).await?;
    check(&story, "ana 50/50 of -, bo 40/40 of -, cy 5/5 of -, di 0/0 of -").await?;
    // Without `custom`, own limits stay as they are.
    set(&story, json!({})).await?;
    check(&story, "ana 50/50 of 60, bo 40/40 of -, cy 5/5 of -, di 0/0 of -").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_counts_is_what_is_not_excluded_now() -> Result<()> {
    let whole = Whole::start().await?;
    let story = tell(&whole).await?;
    set(&story, json!({"default_limit": "35", "excluded_features": ["workflow"]})).await?;
    check(&story, "ana 50/30 of 35, bo 40/40 of 35!, cy 5/5 of 35, di 0/0 of 35").await?;
    // Another exclusion recounts earlier usage; usage without a feature always counts.
    set(&story, json!({"default_limit": "5", "excluded_features": ["chat"]})).await?;
    check(&story, "ana 50/20 of 5!, bo 40/0 of 5, cy 5/5 of 5!, di 0/0 of 5").await?;
    set(&story, json!({"default_limit": "5", "excluded_features": ["chat", "workflow"]})).await?;
    check(&story, "ana 50/0 of 5, bo 40/0 of 5, cy 5/5 of 5!, di 0/0 of 5").await?;
    // Disabled limits still show what would count.
    set(&story, json!({"enabled": false, "default_limit": "5", "excluded_features": ["chat"]})).await?;
    check(&story, "ana 50/20 of -, bo 40/0 of -, cy 5/5 of -, di 0/0 of -").await?;
    set(&story, json!({"default_limit": "35"})).await?;
    check(&story, "ana 50/50 of 35!, bo 40/40 of 35!, cy 5/5 of 35, di 0/0 of 35").await?;
    // A reversal takes it back, and a new period begins at 0.
    story.post(LATER, "/usage/u1/reversal", json!({"reason": "wrong"})).await?;
    check(&story, "ana 20/20 of 35, bo 40/40 of 35!, cy 5/5 of 35, di 0/0 of 35").await?;
    story.clock("2026-02-01T00:00:00Z").await?;
    ensure!(
        story.items("/users").await?.is_empty() && story.items("/users?over_budget=true").await?.is_empty()
    );
    story.usage("2026-02-02T00:00:00Z", "u6", json!({"credits": "35", "user_id": "bo"})).await?;
    check(&story, "bo 35/35 of 35!").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn users_over_budget_come_as_csv_and_a_member_sees_himself() -> Result<()> {
    let whole = Whole::start().await?;
    let story = tell(&whole).await?;
    set(&story, json!({"default_limit": "40", "custom": {"cy": "5"}, "excluded_features": ["workflow"]}))
        .await?;
    let csv = story.csv("/users?over_budget=true&limit=1").await?;
    ensure!(csv.text == "user_id,used,counted,held,limit,blocked\nbo,40,40,0,40,true\n", "{}", csv.text);
    let cursor = csv.headers["next-cursor"].to_str()?;
    let rest = story.csv(&format!("/users?over_budget=true&limit=1&cursor={cursor}")).await?;
    ensure!(
        rest.text.ends_with("\ncy,5,5,0,5,true\n") && !rest.headers.contains_key("next-cursor"),
        "{}",
        rest.text
    );
    let all = story.csv("/users").await?;
    ensure!(all.text.contains("\nana,50,30,0,40,false\n"), "{}", all.text);

    for (user, row) in [
        (
            "ana",
            json!({"user_id": "ana", "used": "50", "counted": "30", "held": "0", "limit": "40", "blocked": false}),
        ),
        (
            "cy",
            json!({"user_id": "cy", "used": "5", "counted": "5", "held": "0", "limit": "5", "blocked": true}),
        ),
    ] {
        let member = whole.keyed("member", &["acme"], Some(user)).await?;
        let own = read(&member, "/v1/accounts/acme/users").await?;
        ensure_is(&own.expect(200)?.body["items"], &json!([row]))?;
        let over = read(&member, "/v1/accounts/acme/users?over_budget=true").await?;
        let expected = if row["blocked"] == true { json!([row]) } else { json!([]) };
        ensure_is(&over.expect(200)?.body["items"], &expected).context(user)?;
    }
    // With own limits alone the query finds a member among them, or not at all.
    set(&story, json!({"custom": {"cy": "5"}})).await?;
    for (user, rows) in [("ana", 0), ("cy", 1)] {
        let member = whole.keyed("member", &["acme"], Some(user)).await?;
        let over = read(&member, "/v1/accounts/acme/users?over_budget=true").await?;
        let items = over.expect(200)?.body["items"].as_array().map(Vec::len);
        ensure!(items == Some(rows), "{user}: {}", over.text);
    }
    whole.replay_and_stop().await
}
