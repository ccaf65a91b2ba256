//! The overview as a person uses it: figures move by themselves, keys lead on, the theme stays.

use anyhow::{Result, ensure};
use e2e::Whole;
use serde_json::json;

use crate::browser::Browser;
use crate::story::tell;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn figures_move_without_a_reload_and_nothing_else_does() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let operator = whole.operator();
    let browser = Browser::start(whole.console()).await?;
    browser.sign_in(operator.key()).await?;
    browser.go("/accounts/acme").await?;
    ensure!(browser.text(".figure").await?.starts_with("59.88"), "{}", browser.text(".figure").await?);
    browser.waits_until("return document.querySelector('.live')?.textContent === 'Live'").await?;
    let shown = "window.stays = true; document.querySelector('.tree summary').click();
         const top = (id) => document.querySelector(`[data-live=${id}]`).getBoundingClientRect().top;
         window.tops = ['credit', 'burn', 'holds'].map(top); return true";
    browser.asks(shown).await?;
    let usage =
        json!({"id": "u3", "occurred_at": "2026-01-11T00:00:00Z", "category": "chat", "credits": "1.5"});
    let path = "/v1/accounts/acme/usage?wait=true";
    operator.at("2026-01-11T00:00:00Z").post(path, usage).await?.expect(200)?;
    browser.waits_until("return document.querySelector('.figure').textContent.includes('58.38')").await?;
    let stayed = "const top = (id) => document.querySelector(`[data-live=${id}]`).getBoundingClientRect().top;
         const closed = !document.querySelector('.tree details').open;
         return window.stays && closed && ['credit', 'burn', 'holds'].every((id, at) => top(id) === window.tops[at])";
    ensure!(browser.asks(stayed).await? == true, "the page was loaded again, or its layout has moved");
    ensure!(browser.said(&[]).await?.is_empty());
    browser.stop().await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn keys_lead_on_and_the_theme_stays() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let browser = Browser::start(whole.console()).await?;
    browser.sign_in(whole.operator().key()).await?;
    browser.go("/accounts/acme").await?;
    browser.press("/").await?;
    browser.waits_for("dialog.search[open] input:focus").await?;
    browser.press("\u{e00c}").await?;
    browser.press("?").await?;
    browser
        .waits_until("return document.querySelector('dialog.keys[open]')?.textContent.includes('Billing')")
        .await?;
    browser.press("\u{e00c}").await?;
    browser.press("t").await?;
    browser.waits_until("return document.documentElement.dataset.theme === 'dark'").await?;
    browser.press("gu").await?;
    browser.waits_until("return location.pathname === '/accounts/acme/usage'").await?;
    ensure!(browser.asks("return document.documentElement.dataset.theme").await? == "dark");
    let local = "return document.querySelector('nav a[aria-current]').textContent.trim()";
    ensure!(browser.asks(local).await? == "Usage");
    browser.stop().await?;
    whole.replay_and_stop().await
}
