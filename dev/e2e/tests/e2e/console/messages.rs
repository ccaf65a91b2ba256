//! Messages and events: what one cost, which lots paid, and why another had no effect.

use anyhow::{Result, ensure};
use e2e::Whole;
use serde_json::{Value, json};

use super::{Browser, tell};

async fn with_messages(whole: &Whole) -> Result<()> {
    tell(whole, "acme", "100").await?;
    let prices = json!({
        "input_tokens": {"credits": "3", "per": "1000"},
        "output_tokens": {"credits": "15", "per": "1000"},
    });
    let card = json!({"meters": [{"category": "chat", "match": {"model": "m1"}, "prices": prices}]});
    whole.operator().put("/v1/rate-cards/standard", card).await?.expect(200)?;
    let operator = whole.operator().at("2026-01-12T00:00:00Z");
    let plan = json!({"plan": {"cycle": "monthly", "anchor": "2026-01-01T00:00:00Z", "allowance": "100", "rate_card": "standard"}});
    operator.put("/v1/accounts/acme/plan", plan).await?.expect(200)?;
    let usage = |id: &str, model: &str| -> Value {
        json!({"id": id, "user_id": "ana", "message_id": "m/1", "category": "chat", "model": model,
            "occurred_at": "2026-01-12T00:00:00Z", "quantities": {"input_tokens": "2000", "output_tokens": "100"}})
    };
    let path = "/v1/accounts/acme/usage?wait=true";
    operator.post(path, usage("p1", "m1")).await?.expect(200)?;
    operator.post(path, usage("p2", "m1")).await?.expect(200)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_says_what_it_cost_and_what_paid() -> Result<()> {
    let whole = Whole::start().await?;
    with_messages(&whole).await?;
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    let page = "/accounts/acme/messages";
    browser.get(page).await?.shows(
        200,
        &["p1", r#"href="/accounts/acme/people/ana""#, r#"href="/accounts/acme/messages/m%2F1""#],
    )?;
    browser.get(&format!("{page}?find=m%2F1")).await?.follow().await?;
    browser.shows(
        200,
        &[
            "This message cost",
            r#"title="15 credits""#,
            "Input tokens",
            "4,000",
            "3 per 1,000",
            "standard v1",
            "Plan",
        ],
    )?;
    browser.get(&format!("{page}?find=p1")).await?.follow().await?;
    browser
        .shows(200, &["Usage recorded", "Applied", r#"title="7.5 credits""#, "Position in the journal"])?;
    browser.get(&format!("{page}?find=none")).await?.shows(404, &["exactly the id", r#"value="none""#])?;
    browser.get(&format!("{page}?type=granted")).await?.shows(200, &["Granted"])?;
    browser.get(&format!("{page}.csv?type=consumed")).await?.shows(200, &["entry_id,type", "consumed"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_reverses_a_charge_and_a_member_sees_own_messages() -> Result<()> {
    let whole = Whole::start().await?;
    with_messages(&whole).await?;
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    browser.get("/accounts/acme/events/p1").await?.shows(200, &["Reverse the charge"])?;
    let source =
        super::between(&browser.html, r#"name="source" value=""#, "\"").unwrap_or_default().to_owned();
    let fields = [("source", source.as_str()), ("reason", "sent by mistake")];
    browser.submit("/accounts/acme/events/p1/reverse", &fields).await?.follow().await?;
    browser.shows(200, &["Reversed", "Taken back"])?;
    browser
        .get("/accounts/acme/messages/m%2F1")
        .await?
        .shows(200, &["1 reversed", r#"title="7.5 credits""#])?;

    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let mut browser = Browser::signed_in(&whole, &member).await?;
    browser.get("/accounts/acme/messages").await?.shows(200, &["What did a message cost?"])?;
    browser.get("/accounts/acme/messages/m%2F1").await?.shows(200, &[r#"title="7.5 credits""#])?;
    ensure!(!browser.html.contains("Reverse the charge"), "{}", browser.html);
    browser.get("/accounts/acme/events/u2").await?.shows(403, &["forbidden"])?;
    whole.replay_and_stop().await
}
