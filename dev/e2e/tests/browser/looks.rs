//! Looks: every page fits every width in both themes, says nothing on the console, and axe finds nothing.

use anyhow::Result;
use e2e::Whole;
use serde_json::json;

use crate::browser::Browser;
use crate::story::tell;

/// Pages of one account, below it.
const OF_ACCOUNT: [&str; 12] = [
    "",
    "/usage",
    "/people",
    "/messages",
    "/history",
    "/billing",
    "/grants",
    "/free-credits",
    "/limits",
    "/notifications",
    "/audit",
    "/settings",
];
const OF_NONE: [&str; 8] =
    ["/", "/open", "/keys", "/rate-cards", "/promo-codes", "/audit-log", "/search?q=ac", "/help/keys"];

fn name_of(path: &str) -> String {
    let name = path.trim_matches('/').split('?').next().unwrap_or_default().replace('/', "-");
    if name.is_empty() { "accounts".to_owned() } else { name }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn every_page_fits_and_is_accessible() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    tell(&whole, "beta", "20").await?;
    let operator = whole.operator();
    let hold = json!({"reservation_id": "r1", "user_id": "ana", "amount": "5", "ttl_seconds": 600});
    operator.post("/v1/accounts/acme/reservations", hold).await?.expect(201)?;
    let browser = Browser::start(whole.console()).await?;
    browser.look("login", "/login").await?;
    browser.sign_in(operator.key()).await?;
    for path in OF_NONE {
        browser.look(&name_of(path), path).await?;
    }
    for below in OF_ACCOUNT {
        let name = if below.is_empty() { "overview".to_owned() } else { name_of(below) };
        browser.look(&name, &format!("/accounts/acme{below}")).await?;
    }
    browser.look("overview-depleted", "/accounts/beta").await?;
    browser.look_at("error", "/accounts/nobody", &["404"]).await?;
    browser.stop().await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn a_members_page_fits_and_is_accessible() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let limits = json!({"enabled": true, "default_limit": "30"});
    whole.operator().at("2026-01-11T00:00:00Z").put("/v1/accounts/acme/limits", limits).await?.expect(200)?;
    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let browser = Browser::start(whole.console()).await?;
    browser.sign_in(member.key()).await?;
    browser.look("own-use", "/accounts/acme").await?;
    browser.stop().await?;
    whole.replay_and_stop().await
}
