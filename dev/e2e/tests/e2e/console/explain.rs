//! Explain: a figure's tree on a page, from the pages that show the figure.

use anyhow::{Result, ensure};
use e2e::Whole;

use super::{Browser, tell};

#[tokio::test(flavor = "multi_thread")]
async fn a_figure_and_a_line_of_the_ledger_open_into_what_they_consist_of() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    browser
        .get("/accounts/acme")
        .await?
        .shows(200, &[r#"href="/accounts/acme/explain?figure=available""#])?;
    browser.get("/accounts/acme/explain?figure=available").await?.shows(
        200,
        &["Available, explained", "Opening", "Consumed", r#"<code class="quiet-text">plan:"#, "Held"],
    )?;
    browser
        .get("/accounts/acme/explain?figure=used&as_of=2020-01-01T00:00")
        .await?
        .shows(200, &["account_not_found"])?;
    let entries = whole.operator().get("/v1/accounts/acme/entries?limit=1").await?;
    let entry = entries.expect(200)?.body["items"][0]["entry_id"].as_str().unwrap_or_default().to_owned();
    let link = format!("/accounts/acme/explain?entry={}", entry.replace(':', "%3A"));
    browser.get("/accounts/acme/billing").await?.shows(200, &[&format!(r#"href="{link}""#)])?;
    browser.get(&link).await?.shows(200, &["Consumed, explained"])?;
    browser.get("/accounts/acme/explain?entry=none").await?.shows(200, &["entry_not_found"])?;
    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let mut browser = Browser::signed_in(&whole, &member).await?;
    browser.get("/accounts/acme/explain?figure=available").await?.shows(403, &["forbidden"])?;
    ensure!(!entry.is_empty());
    whole.replay_and_stop().await
}
