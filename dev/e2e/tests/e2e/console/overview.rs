//! The overview of an account: what is left, where it went, how long it lasts, and that it follows changes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::Whole;
use serde_json::json;
use tokio::time::timeout;

use super::{Browser, tell};

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_says_what_is_left_where_it_went_and_how_long_it_lasts() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let operator = whole.operator();
    let hold = json!({"reservation_id": "r1", "user_id": "ana", "amount": "5", "ttl_seconds": 600});
    operator.post("/v1/accounts/acme/reservations", hold).await?.expect(201)?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    browser.get("/accounts/acme").await?.shows(
        200,
        &[
            r#"title="54.876543211 credits""#,
            r#"class="of-allowance""#,
            r#"class="of-held""#,
            "chat</a>",
            r#"href="/accounts/acme/usage?category=chat&#38;tier=premium&#38;model=m1&#38;group_by=day""#,
            "<code>r1</code>",
            "Nothing has fired",
            // 40.12 in 7 days, so 5.73 a day; 59.88 are left on the 11th and last 10.4 days.
            "Runs out <time datetime=\"2026-01-21T",
            ">5.73<",
        ],
    )?;
    ensure!(!browser.html.contains("Buy credits"), "an auditor buys nothing");
    ensure!(browser.html.len() < 100 * 1024, "{} bytes", browser.html.len());
    browser.get("/accounts/nobody").await?.shows(404, &["account_not_found"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_depleted_account_says_so() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "20").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get("/accounts/acme").await?.shows(
        200,
        &["credit-depleted", "Depleted", "Buy credits", "The next allowance comes", "Nothing is left"],
    )?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_follows_its_account() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    browser.get("/accounts/acme").await?.shows(200, &[r#"data-live-url="/accounts/acme/live""#])?;
    let mut stream = browser.open("/accounts/acme/live").await?;
    ensure!(stream.headers()["content-type"] == "text/event-stream");
    let mut heard = String::new();
    let usage = json!({"id": "u3", "occurred_at": "2026-01-11T00:00:00Z", "credits": "1.5"});
    whole
        .operator()
        .at("2026-01-11T00:00:00Z")
        .post("/v1/accounts/acme/usage?wait=true", usage)
        .await?
        .expect(200)?;
    let listening = async {
        while !heard.contains("58.376543211") {
            let chunk = stream.chunk().await?.context("the stream goes on")?;
            heard.push_str(std::str::from_utf8(&chunk)?);
        }
        anyhow::Ok(())
    };
    timeout(Duration::from_secs(20), listening).await.context("no event")??;
    Browser::new(&whole).get("/accounts/acme/live").await?.shows(303, &[])?;
    drop(stream);
    whole.replay_and_stop().await
}
