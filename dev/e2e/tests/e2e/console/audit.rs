//! Audit: entries, decisions and the journal of one account.

use anyhow::{Result, ensure};
use e2e::Whole;
use serde_json::json;

use super::{Browser, tell};

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_follows_a_figure_to_its_record() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    tell(&whole, "beta", "100").await?;
    let operator = whole.operator();
    let hold = json!({"reservation_id": "r1", "user_id": "ana", "amount": "500", "ttl_seconds": 600});
    operator.post("/v1/accounts/acme/reservations", hold).await?.expect(402)?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    let page = "/accounts/acme/audit";
    browser.get(page).await?.shows(200, &["Consumed", "Granted", "\u{2212}30.12", "/events/u1"])?;
    browser
        .get(&format!("{page}?view=entries&type=granted"))
        .await?
        .shows(200, &["<th scope=\"row\">Granted"])?;
    ensure!(!browser.html.contains("<th scope=\"row\">Consumed"), "one type");
    browser
        .get(&format!("{page}?view=entries&type=rolled_in"))
        .await?
        .shows(200, &["No line of this type"])?;
    browser.get(&format!("{page}/entries.csv?type=consumed")).await?;
    ensure!(browser.header("content-type").starts_with("text/csv"), "{}", browser.header("content-type"));
    ensure!(
        browser.html.starts_with("entry_id,type,amount") && browser.html.contains("-30.123456789"),
        "{}",
        browser.html
    );

    browser.get(&format!("{page}?view=decisions")).await?;
    browser.shows(
        200,
        &["Refused", "The balance does not cover it", "/people/ana", "Told to the user", "59.88"],
    )?;
    browser.get(&format!("{page}?view=decisions&user=bo")).await?.shows(200, &["No decision fits"])?;
    browser.get(&format!("{page}?view=decisions&from=2026-01-11T00:00&to=2026-01-11T00:01")).await?;
    browser.shows(200, &["The balance does not cover it", r#"value="2026-01-11T00:00""#])?;
    browser.get(&format!("{page}?view=decisions&from=yesterday")).await?.shows(200, &["invalid"])?;

    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    let journal = format!("{page}?view=journal");
    browser.get(&journal).await?;
    let shown = ["<b>ledger.account.opened.v1</b>", "<b>ledger.usage.recorded.v1</b>", "<code>u1</code>"];
    browser.shows(200, &shown)?;
    ensure!(!browser.html.contains("beta"), "another account's records");
    browser
        .get(&format!("{journal}&type=ledger.account.opened.v1"))
        .await?
        .shows(200, &["account.opened"])?;
    ensure!(!browser.html.contains("<code>u1</code>"), "one type");
    browser.get(&format!("{journal}&to=2020-01-01T00:00")).await?.shows(200, &["No record like this"])?;
    browser.get(&format!("{journal}&up_to=few")).await?.shows(200, &["invalid"])?;
    whole.replay_and_stop().await
}
