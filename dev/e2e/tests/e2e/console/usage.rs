//! Usage: any dimension over any days, what a number is made of, and the same as CSV.

use anyhow::{Result, ensure};
use e2e::Whole;

use super::{Browser, tell};

#[tokio::test(flavor = "multi_thread")]
async fn a_number_leads_to_what_it_is_made_of() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    let page = "/accounts/acme/usage";
    browser.get(page).await?.shows(
        200,
        &[
            r#"title="40.123456789 credits""#,
            r#"href="/accounts/acme/usage?period=current&#38;category=chat&#38;group_by=model""#,
            r#"href="/accounts/acme/usage?period=current&#38;category=chat&#38;model=m1&#38;group_by=tier""#,
            "8 Jan 2026",
        ],
    )?;
    ensure!(browser.html.len() < 100 * 1024, "{} bytes", browser.html.len());
    // The form sends each level under the same name.
    browser
        .get(&format!("{page}?period=current&group_by=user&group_by=&group_by="))
        .await?
        .shows(200, &[r#"href="/accounts/acme/people/ana""#, "75.1 %", r#"title="30.123456789 credits""#])?;
    browser
        .get(&format!("{page}?category=chat&group_by=user&view=lines"))
        .await?
        .shows(200, &["polyline"])?;
    ensure!(!browser.html.contains("/people/bo"), "bo made images: {}", browser.html);
    browser.get(&format!("{page}?filter_by=user&filter=bo&group_by=category")).await?.follow().await?;
    browser.shows(200, &["Remove the filter User bo", "images", r#"title="10 credits""#])?;
    let csv = "/accounts/acme/usage.csv?period=current&group_by=category,model";
    browser.get(csv).await?.shows(200, &["category,model,credits", "chat,m1,30.123456789"])?;
    ensure!(browser.header("content-type").starts_with("text/csv"), "{}", browser.header("content-type"));
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn any_days_can_be_picked_and_wrong_ones_are_said() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    let page = "/accounts/acme/usage";
    let days = format!("{page}?from=2026-01-08&to=2026-01-09&group_by=category");
    browser.get(&days).await?.shows(200, &["chat", r#"name="from" value="2026-01-08""#])?;
    let empty = format!("{page}?from=2026-01-09&to=2026-01-10&group_by=category");
    browser.get(&empty).await?.shows(200, &["Nothing was used"])?;
    let wrong = format!("{page}?from=2026-01-10&to=2026-01-09&group_by=category");
    browser
        .get(&wrong)
        .await?
        .shows(422, &[r#"class="wrong" id="h-to""#, "must be after from", r#"value="2026-01-10""#])?;
    browser.get(&format!("{page}?period=77")).await?.shows(404, &["There is nothing here"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_sees_the_own_usage() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let mut browser = Browser::signed_in(&whole, &member).await?;
    browser.get("/accounts/acme/usage").await?.shows(200, &["chat", r#"title="30.123456789 credits""#])?;
    ensure!(!browser.html.contains("images"), "bo's usage: {}", browser.html);
    browser.get("/accounts/acme/usage?user=bo").await?.shows(403, &["forbidden"])?;
    whole.replay_and_stop().await
}
