//! Free credits: an admin invites by mail, and redeems a promo code.

use anyhow::{Context, Result, ensure};
use e2e::Whole;
use serde_json::json;

use super::{Browser, between, tell};

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_invites_and_redeems() -> Result<()> {
    let whole = Whole::start_with(&["--referral-bonus", "40"]).await?;
    tell(&whole, "acme", "100").await?;
    let operator = whole.operator();
    operator.post("/v1/promo-codes", json!({"code": "SPRING", "amount": "25"})).await?.expect(201)?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    let page = "/accounts/acme/free-credits";
    browser.get(page).await?.shows(200, &["Your referral code", r#"<code class="secret">acme</code>"#])?;
    ensure!(!browser.html.contains("?referred_by="), "nobody has said where people sign up");
    let form = "/accounts/acme/free-credits/invite";
    browser.submit(form, &[("email", "bo")]).await?;
    browser.shows(422, &[r#"class="wrong" id="h-email""#, r#"name="email" value="bo""#])?;
    browser
        .submit(form, &[("email", "bo@example.test")])
        .await?
        .shows(200, &["bo@example.test is invited."])?;
    let code = between(&browser.html, "has the code <code>", "<").context("a code")?;
    let invited =
        json!({"account_id": "guest", "referred_by": code, "plan": {"cycle": "monthly", "allowance": "1"}});
    operator.post("/v1/accounts", invited).await?.expect(200)?;
    browser
        .get(page)
        .await?
        .shows(200, &[r#"Earned</dt><dd class="figure-small"><data class="amount" value="40""#])?;

    let form = "/accounts/acme/free-credits/redeem";
    browser.submit(form, &[("code", "AUTUMN")]).await?;
    browser.shows(
        422,
        &["there is no promo code AUTUMN", r#"class="wrong" id="h-code""#, r#"value="AUTUMN""#],
    )?;
    browser
        .submit(form, &[("code", "SPRING")])
        .await?
        .follow()
        .await?
        .shows(200, &["The code is redeemed."])?;
    let grants = operator.get("/v1/accounts/acme/grants").await?;
    ensure!(grants.expect(200)?.text.contains("promo:SPRING"), "{}", grants.text);

    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    browser.get(page).await?.shows(200, &["Admins and operators invite", ">40<"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_the_sign_up_page_carries_the_code() -> Result<()> {
    let whole = Whole::start_with(&["--referral-url", "https://example.test/join?from=app"]).await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get("/accounts/acme/free-credits").await?;
    browser.shows(200, &[r#"href="https://example.test/join?from=app&#38;referred_by=acme""#])?;
    whole.replay_and_stop().await
}
