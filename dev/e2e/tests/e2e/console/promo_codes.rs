//! Promo codes: an operator makes them, looks them up and ends them.

use anyhow::{Result, ensure};
use e2e::Whole;

use super::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_made_looked_up_and_ended() -> Result<()> {
    let whole = Whole::start().await?;
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    browser.get("/promo-codes").await?.shows(200, &["Make a code"])?;
    browser
        .submit("/promo-codes", &[("code", "SPRING"), ("amount", "0"), ("max_redemptions", "few")])
        .await?;
    browser.shows(
        422,
        &[r#"class="wrong" id="h-amount""#, r#"class="wrong" id="h-max_redemptions""#, r#"value="SPRING""#],
    )?;
    let typed = [
        ("code", "SPRING"),
        ("amount", "25"),
        ("max_redemptions", "100"),
        ("valid_until", "2125-01-01T00:00"),
    ];
    browser.submit("/promo-codes", &typed).await?.follow().await?;
    browser.shows(
        200,
        &["Added.", "<code>SPRING</code>", "0 of 100", ">Redeems<", r#"datetime="2125-01-01T00:00:00Z""#],
    )?;
    browser
        .submit("/promo-codes/SPRING/end", &[])
        .await?
        .follow()
        .await?
        .shows(200, &["Ended.", ">Ended<"])?;
    ensure!(!browser.html.contains("/SPRING/end"), "it has ended");
    browser.get("/promo-codes?code=AUTUMN").await?.shows(200, &["There is no such code"])?;

    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    browser.get("/promo-codes?code=SPRING").await?.shows(200, &[">Ended<"])?;
    ensure!(!browser.html.contains("Make a code"), "an auditor makes nothing");
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get("/promo-codes?code=SPRING").await?.shows(403, &["forbidden"])?;
    whole.replay_and_stop().await
}
