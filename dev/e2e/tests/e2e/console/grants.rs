//! Grants: every lot with what is left of it; an operator grants, adjusts and voids.

use anyhow::{Result, ensure};
use e2e::Whole;

use super::{Browser, tell};

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_grants_adjusts_and_voids() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    let page = "/accounts/acme/grants";
    browser.get(page).await?.shows(200, &["Plan<", r#"data-label="Left"><b><data class="amount""#])?;
    browser.get("/accounts/acme/grants/new").await?;
    let typed = [
        ("grant_id", "g1"),
        ("source", "promo"),
        ("amount", "50"),
        ("expires_at", "2025-01-01T00:00"),
        ("reason", "spring"),
    ];
    browser.submit("/accounts/acme/grants/new", &typed).await?;
    browser.shows(
        422,
        &[r#"class="wrong" id="h-expires_at""#, r#"value="2025-01-01T00:00""#, r#"value="spring""#],
    )?;
    let typed =
        typed.map(|(name, value)| (name, if name == "expires_at" { "2026-06-01T00:00" } else { value }));
    browser.submit("/accounts/acme/grants/new", &typed).await?.follow().await?;
    browser.shows(
        200,
        &["The credits are granted.", "<code>g1</code> spring", r#"datetime="2026-06-01T00:00:00Z""#],
    )?;

    browser.get("/accounts/acme/grants/adjust").await?;
    browser
        .submit("/accounts/acme/grants/adjust", &[("direction", "take"), ("amount", "5"), ("once", "z")])
        .await?;
    browser.shows(422, &[r#"class="wrong" id="h-reason""#, r#"<option value="take" selected>"#])?;
    let typed = [("direction", "take"), ("amount", "5"), ("reason", "counted twice"), ("once", "a")];
    browser.submit("/accounts/acme/grants/adjust", &typed).await?.follow().await?.shows(200, &["Saved."])?;

    browser.get(page).await?.shows(200, &["They don’t come back"])?;
    browser.submit("/accounts/acme/grants/g1/void", &[]).await?.follow().await?;
    browser.shows(200, &["What remained of the grant is void.", ">Void<"])?;
    ensure!(!browser.html.contains("/grants/g1/void"), "what is void can't be voided");
    let balance = whole.operator().get("/v1/accounts/acme/balance").await?;
    ensure!(balance.expect(200)?.body["settled"] == "54.876543211", "{}", balance.text);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sees_grants_and_changes_none() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get("/accounts/acme/grants").await?.shows(200, &["Plan<"])?;
    ensure!(!browser.html.contains("Grant credits") && !browser.html.contains("Void the rest"), "an admin's");
    browser.get("/accounts/acme/grants/new").await?.shows(403, &["forbidden"])?;
    browser.get("/accounts/acme/grants").await?;
    let token = browser.token()?;
    let forged = [("csrf", token.as_str()), ("grant_id", "g"), ("source", "promo"), ("amount", "1")];
    browser.send("/accounts/acme/grants/new", &forged, &[]).await?.shows(403, &["forbidden"])?;
    whole.replay_and_stop().await
}
