//! What other products embed: served to anybody, framed by allowed origins only, and read with member tokens only.

use anyhow::{Result, ensure};
use e2e::Whole;
use reqwest::Method;
use serde_json::json;

use super::{Browser, tell};

const PRODUCT: &str = "https://app.example.test";

/// Returns where a page may be framed.
fn framed_by(browser: &Browser) -> &str {
    let policy = browser.header("content-security-policy");
    policy.split("frame-ancestors ").nth(1).unwrap_or("anywhere")
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_to_embed_need_no_session_and_allowed_origins_frame_them() -> Result<()> {
    let whole = Whole::start_with(&["--allowed-origins", PRODUCT]).await?;
    let mut browser = Browser::new(&whole);
    browser.get("/embed.js").await?.shows(200, &["customElements.define('ledger-credit-bar'"])?;
    ensure!(browser.header("access-control-allow-origin") == "*" && !browser.header("etag").is_empty());
    ensure!(browser.header("cache-control").starts_with("public"), "{:?}", browser.headers);
    for (path, element) in
        [("/embed/credit-bar", "<ledger-credit-bar"), ("/embed/depleted", "<ledger-depleted")]
    {
        browser.get(&format!("{path}?account=acme")).await?.shows(200, &[element, "account=\"acme\""])?;
        ensure!(framed_by(&browser) == PRODUCT, "{:?}", browser.headers);
        ensure!(browser.header("x-frame-options").is_empty());
        browser.get(path).await?.shows(422, &["account"])?;
    }
    // The console itself is framed nowhere.
    browser.get("/login").await?;
    ensure!(framed_by(&browser) == "'none'", "{:?}", browser.headers);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_token_reads_the_stream_from_allowed_origins_only() -> Result<()> {
    let whole = Whole::start_with(&["--allowed-origins", PRODUCT]).await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::new(&whole);
    browser.get("/embed/credit-bar?account=acme").await?.shows(200, &[])?;
    let body = json!({"user_id": "ana"});
    let made = whole.operator().post("/v1/accounts/acme/member-tokens", body).await?;
    let token = made.expect(201)?.body["token"].as_str().unwrap_or_default().to_owned();
    let path = "/v1/accounts/acme/stream";
    for (origin, allowed) in [(PRODUCT, PRODUCT), ("https://other.example.test", "")] {
        let asks = whole.caller(None).with("Origin", origin);
        let asks = asks.with("Access-Control-Request-Method", "GET");
        let preflight = asks.with("Access-Control-Request-Headers", "authorization");
        let request = preflight.request(Method::OPTIONS, path);
        let with_token = whole.caller(Some(&token)).with("Origin", origin).request(Method::GET, path);
        for answer in [request.send().await?, with_token.send().await?] {
            let found = answer.headers().get("access-control-allow-origin");
            let found = found.and_then(|value| value.to_str().ok()).unwrap_or_default();
            ensure!(found == allowed, "{origin}: {:?}", answer.headers());
        }
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_allowed_origins_nobody_frames() -> Result<()> {
    let whole = Whole::start().await?;
    let mut browser = Browser::new(&whole);
    browser.get("/embed/depleted?account=acme").await?.shows(200, &[])?;
    ensure!(framed_by(&browser) == "'none'", "{:?}", browser.headers);
    whole.replay_and_stop().await
}
