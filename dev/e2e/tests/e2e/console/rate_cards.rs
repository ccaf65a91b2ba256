//! Rate cards and promo codes: an operator publishes, compares, makes, looks up and ends.

use anyhow::{Result, ensure};
use e2e::Whole;

use super::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_a_card_stand_side_by_side() -> Result<()> {
    let whole = Whole::start().await?;
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    browser.get("/rate-cards").await?.shows(200, &["No rate card yet"])?;
    browser.submit("/rate-cards", &[("card", "std"), ("prices", "{no")]).await?;
    browser.shows(422, &["must be JSON", "{no", r#"value="std""#])?;
    let first = r#"{"meters":[{"category":"chat","prices":{"in":{"credits":"1","per":"1000"}}}]}"#;
    browser.submit("/rate-cards", &[("card", "std"), ("prices", first)]).await?.follow().await?;
    browser.shows(200, &["Saved.", "1 per 1,000", "Publish version 2"])?;
    let form = "/rate-cards/std";
    let bad = r#"{"meters":[{"category":"chat","prices":{"in":{"credits":"-2","per":"1000"}}}]}"#;
    browser
        .submit(form, &[("newest", "1"), ("prices", bad)])
        .await?
        .shows(422, &["meters.0", "&#34;-2&#34;"])?;
    let second = r#"{"meters":[{"category":"chat","prices":{"in":{"credits":"2","per":"1000"}}}]}"#;
    browser.submit(form, &[("newest", "1"), ("prices", second)]).await?.follow().await?;
    browser.shows(200, &["1 price differs.", "1 per 1,000", "2 per 1,000", ">changed<"])?;
    browser.submit(form, &[("newest", "1"), ("prices", bad.replace("-2", "3").as_str())]).await?;
    browser.shows(422, &["changed_meanwhile"])?;
    browser.get("/rate-cards/std?version=1").await?.shows(200, &["1 per 1,000"])?;
    ensure!(!browser.html.contains("<b>2 per 1,000"), "one version");

    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    browser.get("/rate-cards/std").await?.shows(200, &["2 per 1,000"])?;
    ensure!(!browser.html.contains("Publish version"), "an auditor publishes nothing");
    whole.replay_and_stop().await
}
