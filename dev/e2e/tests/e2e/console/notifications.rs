//! Notifications: what was sent to whom, and what is parked, with the reason.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::Whole;
use serde_json::json;

use super::{Browser, between, tell};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_listed_by_state_channel_and_recipient() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let operator = whole.operator();
    let contacts = json!({"admins": [{"id": "ana", "email": "ana@example.test"}]});
    operator.put("/v1/accounts/acme/contacts", contacts).await?.expect(200)?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    let page = "/accounts/acme/notifications";
    browser.get(page).await?.shows(200, &["Nothing was sent yet"])?;
    let alert = json!({"basis": "absolute_used", "threshold": "45", "channels": ["in_app"]});
    let at = operator.at("2026-01-11T00:00:00Z");
    at.put("/v1/accounts/acme/alerts/half", alert).await?.expect(200)?;
    let usage = json!({"id": "u9", "occurred_at": "2026-01-11T00:00:00Z", "credits": "10"});
    at.post("/v1/accounts/acme/usage?wait=true", usage).await?.expect(200)?;
    for _ in 0..300 {
        browser.get(page).await?;
        if browser.html.contains("In the product to ana") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    browser.shows(200, &["In the product to ana", "Alert", "<pre>"])?;
    browser.get(&format!("{page}?recipient=bo")).await?.shows(200, &["Nothing like this was sent"])?;
    browser
        .get(&format!("{page}?channel=in_app&recipient=ana"))
        .await?
        .shows(200, &["In the product to ana"])?;
    browser.get(&format!("{page}?channel=pigeon")).await?.shows(200, &["invalid"])?;

    sqlx::query("update delivery.notification set status = 'parked', last_error = 'no such box'")
        .execute(&whole.pool)
        .await?;
    browser.get(&format!("{page}?status=parked")).await?.shows(200, &["no such box", "send it again"])?;
    let id = between(&browser.html, r#"action="/accounts/acme/notifications/"#, "/resend");
    let id = id.context("a form")?.to_owned();
    let mut reader = Browser::signed_in(&whole, &whole.keyed("auditor", &["*"], None).await?).await?;
    reader.get(page).await?.shows(200, &["an admin sends it again", ">Parked<"])?;
    ensure!(!reader.html.contains("/resend"), "an auditor only reads");
    // In the product it stands already, and so it can't be sent.
    let form = format!("{page}/{id}/resend?status=parked");
    browser.submit(&form, &[]).await?.shows(422, &["it stands in the product already", "no such box"])?;
    sqlx::query("update delivery.notification set channel = 'webhook'").execute(&whole.pool).await?;
    browser.submit(&form, &[]).await?.follow().await?.shows(200, &["It is on its way again."])?;

    let member = whole.keyed("member", &["acme"], Some("bo")).await?;
    let mut browser = Browser::signed_in(&whole, &member).await?;
    browser.get(page).await?.shows(200, &["Nothing was sent yet"])?;
    ensure!(!browser.html.contains("no such box"), "ana's");
    whole.replay_and_stop().await
}
