//! Accounts: the list as each role may see it, and opening one.

use anyhow::{Result, ensure};
use e2e::Whole;

use super::{Browser, tell};

#[tokio::test(flavor = "multi_thread")]
async fn each_role_sees_its_accounts() -> Result<()> {
    let whole = Whole::start().await?;
    for account in ["acme", "beta"] {
        tell(&whole, account, "100").await?;
    }
    let operator = whole.operator();
    let mut browser = Browser::signed_in(&whole, &operator).await?;
    browser
        .get("/")
        .await?
        .shows(200, &["acme &#38; sons", "beta &#38; sons", r#"title="59.876543211 credits""#])?;
    browser.get("/?q=be").await?.shows(200, &["beta &#38; sons"])?;
    ensure!(!browser.html.contains("acme"), "{}", browser.html);
    browser.get("/?q=zz").await?.shows(200, &["No account begins so"])?;

    let admin = whole.keyed("admin", &["acme"], None).await?;
    let mut browser = Browser::signed_in(&whole, &admin).await?;
    browser.get("/").await?.shows(200, &["acme &#38; sons"])?;
    ensure!(!browser.html.contains("beta") && !browser.html.contains(r#"href="/open""#), "{}", browser.html);
    browser.get("/accounts/beta").await?.shows(403, &["forbidden", "Your key can\u{2019}t do that"])?;
    browser.get("/open").await?.shows(403, &["forbidden"])?;

    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let mut browser = Browser::signed_in(&whole, &member).await?;
    browser.get("/").await?;
    ensure!(browser.location == "/accounts/acme", "{}", browser.location);
    browser.follow().await?.shows(200, &["Your use", r#"title="30.123456789 credits""#])?;
    ensure!(!browser.html.contains("images"), "bo's usage: {}", browser.html);

    let producer = whole.keyed("producer", &["acme"], None).await?;
    let mut browser = Browser::signed_in(&whole, &producer).await?;
    browser.get("/").await?.shows(403, &["reads nothing"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_opened_by_a_form_that_keeps_what_was_typed() -> Result<()> {
    let whole = Whole::start().await?;
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    let fields = [
        ("account_id", "acme"),
        ("name", "<Acme>"),
        ("plan.cycle", "monthly"),
        ("plan.allowance", "many"),
        ("plan.rollover.mode", "capped"),
        ("plan.rollover.cap", "5"),
    ];
    browser.get("/open").await?.submit("/open", &fields).await?;
    browser.shows(
        422,
        &[r#"value="&#60;Acme&#62;""#, r#"value="many""#, r#"class="wrong" id="h-plan.allowance""#],
    )?;
    let corrected: Vec<(&str, &str)> =
        fields.into_iter().map(|(name, value)| (name, if value == "many" { "100" } else { value })).collect();
    browser.submit("/open", &corrected).await?.follow().await?;
    browser.shows(200, &["The account is open.", "&#60;Acme&#62;", r#"title="100 credits""#])?;
    let plan = whole.operator().get("/v1/accounts/acme/plan").await?;
    ensure!(plan.expect(200)?.body["plan"]["rollover"]["cap"] == "5", "{}", plan.text);
    whole.replay_and_stop().await
}
