//! Search: accounts, users, events and messages, as far as a key sees them.

use anyhow::{Result, ensure};
use e2e::Whole;

use super::{Browser, tell};

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_what_the_key_sees() -> Result<()> {
    let whole = Whole::start().await?;
    for account in ["acme", "beta"] {
        tell(&whole, account, "100").await?;
    }
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    browser.get("/search").await?.shows(200, &["Find anything"])?;
    browser.get("/search?q=ac").await?.shows(200, &["data-results", r#"href="/accounts/acme""#])?;
    browser
        .get("/search?q=an")
        .await?
        .shows(200, &[r#"href="/accounts/acme/people/ana""#, r#"href="/accounts/beta/people/ana""#])?;
    browser.get("/search?q=u1&account=acme").await?.shows(200, &[r#"href="/accounts/acme/events/u1""#])?;
    ensure!(!browser.html.contains("/accounts/beta/events"), "only in acme: {}", browser.html);
    browser.get("/search?q=usa&account=acme").await?.shows(200, &[r#"href="/accounts/acme/usage""#])?;
    browser.get("/search?q=zz").await?.shows(200, &["Nothing found"])?;

    let admin = whole.keyed("admin", &["acme"], None).await?;
    let mut browser = Browser::signed_in(&whole, &admin).await?;
    browser.get("/search?q=an").await?.shows(200, &[r#"href="/accounts/acme/people/ana""#])?;
    ensure!(!browser.html.contains("beta"), "{}", browser.html);

    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let mut browser = Browser::signed_in(&whole, &member).await?;
    browser.get("/search?q=u1").await?.shows(200, &[r#"href="/accounts/acme/events/u1""#])?;
    browser.get("/search?q=u2").await?.shows(200, &["Nothing found"])?;
    whole.replay_and_stop().await
}
