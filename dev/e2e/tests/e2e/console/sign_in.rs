//! Signing in: a key for a session, which ends with it; every form has a token of its session.

use anyhow::{Context, Result, ensure};
use e2e::Whole;
use serde_json::json;

use super::{Browser, tell};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_exchanged_for_a_session_that_shows_who_is_signed_in() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::new(&whole);
    browser.get("/accounts/acme?x=1").await?;
    ensure!((browser.status, browser.location.as_str()) == (303, "/login?next=%2Faccounts%2Facme%3Fx%3D1"));
    browser.follow().await?.shows(200, &["API key", r#"value="/accounts/acme?x=1""#])?;
    browser.send("/login", &[("key", "ldg_0123456789abcdef_wrong")], &[]).await?;
    browser.shows(401, &["Nobody has made this key", r#"aria-invalid="true""#])?;

    let admin = whole.keyed("admin", &["acme"], None).await?;
    browser.send("/login", &[("key", admin.key()), ("next", "/accounts/acme")], &[]).await?;
    ensure!(browser.location == "/accounts/acme", "{}", browser.location);
    let cookie = browser.header("set-cookie").to_owned();
    for attribute in ["ledger_session=", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"] {
        ensure!(cookie.contains(attribute), "{cookie}");
    }
    ensure!(!cookie.contains("Secure") && !cookie.contains(admin.key()), "{cookie}");
    browser.follow().await?.shows(200, &["acme &#38; sons", "<b>admin</b> over acme"])?;
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src \
                  'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    ensure!(browser.header("content-security-policy") == policy);
    ensure!(
        browser.header("cache-control") == "no-store" && browser.header("referrer-policy") == "same-origin"
    );

    let over_tls = [("x-forwarded-proto", "https")];
    browser.send("/login", &[("key", admin.key())], &over_tls).await?;
    ensure!(browser.header("set-cookie").ends_with("; Secure"), "{}", browser.header("set-cookie"));
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_key_and_by_signing_out() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let operator = whole.operator();
    let body = json!({"role": "admin", "accounts": ["acme"]});
    let made = operator.with("Idempotency-Key", "k").post("/v1/keys", body).await?;
    let admin = whole.caller(made.expect(201)?.body["secret"].as_str());
    let mut browser = Browser::signed_in(&whole, &admin).await?;
    browser.get("/accounts/acme").await?.shows(200, &["Overview"])?;
    let key = made.body["key_id"].as_str().context("an id")?;
    operator.delete(&format!("/v1/keys/{key}")).await?.expect(200)?;
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    browser.get("/accounts/acme").await?;
    ensure!(browser.location.starts_with("/login"), "{} {}", browser.status, browser.location);

    let mut browser = Browser::signed_in(&whole, &operator).await?;
    browser.get("/").await?.submit("/logout", &[]).await?;
    ensure!(browser.location == "/login", "{}", browser.location);
    browser.get("/").await?;
    ensure!(browser.location == "/login", "{}", browser.location);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_without_its_sessions_token_or_from_elsewhere_does_nothing() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    let (mut browser, mut other) =
        (Browser::signed_in(&whole, &operator).await?, Browser::signed_in(&whole, &operator).await?);
    let fields = [("account_id", "acme"), ("plan.cycle", "monthly"), ("plan.allowance", "10")];
    other.get("/open").await?;
    let foreign = other.token()?;
    browser.get("/open").await?;
    let own = browser.token()?;
    for token in ["", "x", &foreign] {
        let with_token = [&[("csrf", token)][..], &fields].concat();
        browser.send("/open", &with_token, &[]).await?.shows(403, &["form_expired"])?;
    }
    let with_token = [&[("csrf", own.as_str())][..], &fields].concat();
    for header in [("origin", "https://evil.example.test"), ("sec-fetch-site", "cross-site")] {
        browser.send("/open", &with_token, &[header]).await?.shows(403, &["other_origin"])?;
    }
    operator.get("/v1/accounts/acme").await?.expect_problem(404, "account_not_found")?;
    browser.send("/open", &with_token, &[("sec-fetch-site", "same-origin")]).await?;
    browser.follow().await?.shows(200, &["The account is open."])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_tries_keys_waits() -> Result<()> {
    let whole = Whole::start().await?;
    let mut browser = Browser::new(&whole);
    let mut refused = 0;
    for attempt in 0..12 {
        let key = format!("ldg_{attempt:016x}_wrong");
        browser.send("/login", &[("key", &key)], &[]).await?;
        refused += u32::from(browser.status == 429);
    }
    browser.shows(429, &["Too many wrong keys"])?;
    ensure!((2..=3).contains(&refused), "{refused} refused");
    whole.replay_and_stop().await
}
