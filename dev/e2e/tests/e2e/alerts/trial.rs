//! Trial: a backtest finds the firings of the same rule when it was in force.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Account;
use e2e::Whole;

async fn tried(whole: &Whole, rule: Value) -> Result<Vec<String>> {
    let answer = whole.operator().post("/v1/accounts/acme/alerts/backtest", rule).await?;
    answer.expect(200)?;
    let items = answer.body["items"].as_array().cloned().unwrap_or_default();
    ensure!(answer.body["total"] == items.len(), "{}", answer.text);
    Ok(items
        .iter()
        .map(|hit| {
            format!("{} {} @{} {}", hit["subject"], hit["figure"], hit["period_index"], hit["fired_at"])
        })
        .collect())
}

/// The real firings, in the form of a trial.
async fn fired(acme: &Account, kind: &str) -> Result<Vec<String>> {
    let body = acme.get(&format!("firings?kind={kind}&limit=500")).await?;
    let items = body["items"].as_array().cloned().unwrap_or_default();
    Ok(items
        .iter()
        .rev()
        .map(|hit| {
            format!("{} {} @{} {}", hit["subject"], hit["figure"], hit["period_index"], hit["fired_at"])
        })
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_tried_on_the_past_finds_what_fired_when_it_was_in_force() -> Result<()> {
    let whole = Whole::start().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "1000"}})).await?;
    let org = json!({"basis": "percent_remaining", "threshold": "30"});
    acme.put("2026-01-05T00:00:00Z", "alerts/left", org.clone()).await?;
    acme.put("2026-01-05T00:00:00Z", "user-alert", json!({"threshold": "200"})).await?;
    let limits = json!({"default_limit": "150", "excluded_features": ["workflow"]});
    acme.put("2026-01-05T00:00:00Z", "limits", limits.clone()).await?;
    for month in ["01", "02", "04"] {
        for (day, user, credits, feature) in [
            ("06", "ana", "140", "chat"),
            ("07", "bo", "160", "workflow"),
            ("08", "ana", "200", "chat"),
            ("09", "bo", "250", "chat"),
        ] {
            acme.uses_for(&format!("2026-{month}-{day}T00:00:00Z"), user, credits, feature).await?;
        }
    }
    let last = acme.uses("2026-04-10T00:00:00Z", "cy", "300").await?;
    let undone = format!("usage/{last}/reversal");
    acme.post("2026-04-11T00:00:00Z", &undone, json!({"reason": "x"})).await?;

    let found = tried(&whole, org).await?;
    ensure!(found.len() == 3 && found == fired(&acme, "org_alert").await?, "{found:#?}");
    let found = tried(&whole, json!({"kind": "user_alert", "threshold": "200"})).await?;
    ensure!(found.len() == 7 && found == fired(&acme, "user_alert").await?, "{found:#?}");
    let mut rule = limits;
    rule["kind"] = json!("user_limit_reached");
    let found = tried(&whole, rule).await?;
    ensure!(found.len() == 7 && found == fired(&acme, "user_limit_reached").await?, "{found:#?}");
    // A rule that was never set: one day earlier.
    let found = tried(&whole, json!({"basis": "absolute_used", "threshold": "500"})).await?;
    ensure!(found.first().is_some_and(|hit| hit.contains("2026-01-08")), "{found:#?}");

    let refused = whole.operator();
    let bad = json!({"basis": "percent_used", "threshold": "101"});
    let bad = refused.post("/v1/accounts/acme/alerts/backtest", bad).await?;
    bad.expect_fields(&["threshold out_of_range"])?;
    whole.replay_and_stop().await
}
