//! The records of one account, with what became of them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::story::{Story, items_of};
use e2e::Whole;

const USAGE: &str = "ledger.usage.recorded.v1";

fn summary(items: &[Value]) -> Vec<String> {
    let word = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let one = |item: &Value| {
        [word(item, "event_id"), word(item, "outcome"), word(item, "reason")].join(" ").trim_end().to_owned()
    };
    items.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_s_records_are_listed_newest_first_with_what_became_of_them() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "5"})).await?;
    let other = Story::monthly(&whole, "beta", json!({"allowance": "5"})).await?;
    other.usage("2026-01-06T00:00:00Z", "b1", json!({"credits": "1"})).await?;
    let used = story.usage("2026-01-06T00:00:00Z", "u1", json!({"credits": "1", "user_id": "ana"})).await?;
    let operator = whole.operator().at("2026-01-07T00:00:00Z");
    // The same again, and with other content.
    for credits in ["1", "2"] {
        let again =
            json!({"id": "u1", "occurred_at": "2026-01-06T00:00:00Z", "credits": credits, "user_id": "ana"});
        operator.post("/v1/accounts/acme/usage?wait=true", again).await?;
    }
    let grant = json!({"grant_id": "g1", "source": "promo", "amount": "3"});
    story.post("2026-01-08T00:00:00Z", "/grants", grant).await?;
    let items = story.items("/events").await?;
    let expected = ["g1 applied", "u1 conflict", "u1 duplicate", "u1 applied"];
    let found = summary(&items);
    ensure!(found[0].ends_with("applied") && found[1..4] == expected[1..4], "{found:?}");
    ensure!(found.len() == 5 && items[4]["type"] == "ledger.account.opened.v1", "{found:?}");
    let first = &items[3];
    ensure!(first["position"] == used.body["position"] && first["type"] == USAGE, "{first}");
    ensure!(first["data"]["credits"] == "1" && first["data"]["user_id"] == "ana", "{first}");
    ensure!(first["actor"] == "operator" && first["recorded_at"] == "2026-01-06T00:00:00Z", "{first}");
    for limit in [1, 2, 3] {
        ensure!(story.pages("/events", limit).await? == items, "pages of {limit}");
    }
    for (filter, expected) in [
        (format!("type={USAGE}"), 3),
        ("type=ledger.unheard.of.v1".to_owned(), 0),
        ("from=2026-01-07T00:00:00Z".to_owned(), 3),
        ("to=2026-01-07T00:00:00Z".to_owned(), 2),
        (format!("from=2026-01-06T00:00:00Z&to=2026-01-07T00:00:00Z&type={USAGE}"), 1),
        (format!("up_to={}", used.position()?.offset), 2),
        ("up_to=-1".to_owned(), 0),
        ("up_to=9223372036854775807".to_owned(), 5),
    ] {
        let found = story.items(&format!("/events?{filter}")).await?;
        ensure!(found.len() == expected, "{filter}: {:?}", summary(&found));
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_looks_at_twenty_thousand_records_and_goes_on_with_the_next() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "5"})).await?;
    // As if it had recorded so much: only reads look at it.
    sqlx::query(
        r#"insert into read_model_1.refused
               (account_id, "offset", event_id, source, type, outcome, recorded_at, data)
           select 'acme', 1000000 + n, 'r' || n, '/app', $1, 'duplicate', '2026-01-06T00:00:00Z', '{}'
             from generate_series(1, 25000) as n"#,
    )
    .bind(USAGE)
    .execute(&whole.pool)
    .await?;
    let opened = "/events?type=ledger.account.opened.v1";
    let first = story.get(opened).await?;
    ensure!(items_of(&first)?.is_empty(), "{}", first.text);
    let cursor = first.body["next_cursor"].as_str().context("a cursor")?;
    let rest = story.get(&format!("{opened}&cursor={cursor}")).await?;
    ensure!(items_of(&rest)?.len() == 1 && rest.body["next_cursor"].is_null(), "{}", rest.text);
    let recent = story.get(&format!("{opened}&from=2026-01-07T00:00:00Z")).await?;
    ensure!(recent.body["next_cursor"].is_null(), "older ones are too old: {}", recent.text);
    whole.stop().await
}
