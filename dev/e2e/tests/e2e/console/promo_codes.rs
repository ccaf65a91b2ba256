//! Promo codes: an operator makes them, looks them up and ends them.

use anyhow::{Context, Result, ensure};
use e2e::Whole;
use serde_json::json;

use super::{Browser, between};

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
    let shown = [r#"href="/promo-codes?code=SPRING""#, ">Ended<", "0 of 100"];
    browser.get("/promo-codes").await?.shows(200, &shown)?;
    for code in 0..50 {
        let new = json!({"code": format!("C{code}"), "amount": "1"});
        whole.operator().post("/v1/promo-codes", new).await?.expect(201)?;
    }
    browser.get("/promo-codes").await?.shows(200, &["<code>C49</code>", "rel=\"next\""])?;
    ensure!(!browser.html.contains("SPRING"), "on the next page");
    let next = between(&browser.html, r#"<a class="button" href="/promo-codes"#, r#"" rel="next""#);
    let next = format!("/promo-codes{}", next.context("a link")?.replace("&#38;", "&"));
    browser.get(&next).await?.shows(200, &["<code>SPRING</code>", "Back to the start"])?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get("/promo-codes?code=SPRING").await?.shows(403, &["forbidden"])?;
    whole.replay_and_stop().await
}
