//! History: months and years, each opened into categories.

use anyhow::{Result, ensure};
use e2e::Whole;
use serde_json::json;

use super::{Browser, tell};

#[tokio::test(flavor = "multi_thread")]
async fn each_month_opens_into_its_categories() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let usage =
        json!({"id": "u3", "occurred_at": "2026-02-02T00:00:00Z", "category": "voice", "credits": "7"});
    let later = whole.operator().at("2026-02-03T00:00:00Z");
    later.post("/v1/accounts/acme/usage?wait=true", usage).await?.expect(200)?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    browser.get("/accounts/acme/history").await?.shows(
        200,
        &[
            "January 2026",
            "February 2026",
            r#"href="/accounts/acme/usage?period=0&#38;category=chat&#38;group_by=tier%2Cmodel""#,
            // The year: 40.12 and 7.
            r#"title="47.123456789 credits""#,
            // What expired at the end of January.
            r#"title="59.876543211 credits""#,
        ],
    )?;
    browser.get("/accounts/acme/history.csv").await?.shows(200, &[",chat,30.123456789,", ",voice,7,"])?;
    ensure!(browser.header("content-type").starts_with("text/csv"), "{}", browser.header("content-type"));
    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let mut browser = Browser::signed_in(&whole, &member).await?;
    browser.get("/accounts/acme/history").await?.shows(403, &["forbidden"])?;
    whole.replay_and_stop().await
}
