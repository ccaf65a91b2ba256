//! Keys: an operator makes one, sees its secret once, and ends it.

use anyhow::{Context, Result, ensure};
use e2e::Whole;

use super::{Browser, between, tell};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_shown_once_and_ended() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    browser.get("/keys").await?.shows(200, &["Make a key"])?;
    browser.submit("/keys", &[("role", "admin"), ("name", "<ci>"), ("once", "a")]).await?;
    browser.shows(
        422,
        &[r#"class="wrong" id="h-accounts""#, r#"value="&#60;ci&#62;""#, "<details class=\"make\" open>"],
    )?;
    let typed = [("role", "admin"), ("name", "<ci>"), ("accounts", "acme, beta"), ("once", "b")];
    browser.submit("/keys", &typed).await?.shows(200, &["is made", "&#60;ci&#62;", "acme, beta"])?;
    let secret = between(&browser.html, "<code class=\"secret\">", "<").context("a secret")?.to_owned();
    let caller = whole.caller(Some(&secret));
    caller.get("/v1/accounts/acme").await?.expect(200)?;
    let end = between(&browser.html, r#"action="/keys/"#, "\"").context("an end")?.to_owned();
    browser.submit("/keys", &typed).await?.shows(200, &["The form was sent before"])?;
    ensure!(!browser.html.contains(&secret), "a secret is shown once");

    browser.submit(&format!("/keys/{end}"), &[]).await?.follow().await?.shows(200, &["Ended."])?;
    let key = end.trim_end_matches("/end");
    let ended = whole.operator().get("/v1/keys").await?;
    let is_ended = |one: &serde_json::Value| one["key_id"] == key && !one["revoked_at"].is_null();
    ensure!(
        ended.expect(200)?.body["items"].as_array().context("items")?.iter().any(is_ended),
        "{}",
        ended.text
    );

    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get("/keys").await?.shows(403, &["forbidden"])?;
    whole.replay_and_stop().await
}
