//! Entries: a ledger whose balances add up, newest first.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use ledger_core::value::credits::Credits;
use serde_json::{Value, json};

use super::as_of;
use super::described::{ensure_is, read};
use super::story::{Story, items_of};
use e2e::{Caller, Whole};

const TYPES: [&str; 11] = [
    "granted",
    "purchased",
    "topped_up",
    "consumed",
    "reversed",
    "expired",
    "rolled_out",
    "rolled_in",
    "refunded",
    "voided",
    "adjusted",
];

fn lot(grant_id: &str, source: &str, amount: &str) -> Value {
    json!({"grant_id": grant_id, "source": source, "amount": amount})
}

async fn expect_every_bad_field_named(whole: &Whole) -> Result<()> {
    let path = "/v1/accounts/acme/entries?type=spent&limit=1000&cursor=AAAA";
    let refused = read(&whole.operator(), path).await?;
    ensure!(
        refused.expect(422)?.body["errors"].as_array().is_some_and(|errors| errors.len() >= 2),
        "{}",
        refused.text
    );
    read(&whole.operator(), "/v1/accounts/acme/entries?type=spent").await?.expect(422).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_says_what_moved_which_lots_and_what_was_left() -> Result<()> {
    let whole = Whole::start().await?;
    let plan = json!({"allowance": "5", "rollover": {"mode": "capped", "cap": "2"}});
    let story = Story::monthly(&whole, "acme", plan).await?;
    let bought =
        story.post("2026-01-06T00:00:00Z", "/purchases", json!({"payment_id": "p", "amount": "1"})).await?;
    let late = json!({"credits": "5.38", "occurred_at": "2026-01-07T10:00:00Z"});
    let used = story.usage("2026-01-07T12:00:00Z", "u1", late).await?;
    let reversal =
        story.post("2026-01-08T00:00:00Z", "/usage/u1/reversal", json!({"reason": "wrong"})).await?;
    story.usage("2026-01-09T00:00:00Z", "u2", json!({"credits": "2"})).await?;
    let moved = story.clock("2026-02-10T00:00:00Z").await?;

    let id = |answer: &e2e::Answer, seq: u32| {
        json!(format!("{}:{}:{seq}", answer.body["position"]["partition"], answer.body["position"]["offset"]))
    };
    let line = |kind: &str, amount: &str, after: [&str; 2], lots: Value| {
        json!({"entry_id": "*", "type": kind, "amount": amount, "balance_after": after[0],
               "credit_balance_after": after[1], "event_id": "*", "recorded_at": "2026-02-01T00:00:00Z",
               "occurred_at": "*", "lots": lots})
    };
    let mut consumed = line(
        "consumed",
        "-5.38",
        ["0.62", "0.62"],
        json!([lot("plan:0", "plan", "-5"), lot("p", "purchase", "-0.38")]),
    );
    consumed["entry_id"] = id(&used, 0);
    consumed["event_id"] = json!("u1");
    consumed["recorded_at"] = json!("2026-01-07T12:00:00Z");
    consumed["occurred_at"] = json!("2026-01-07T10:00:00Z");
    let mut back = line(
        "reversed",
        "5.38",
        ["6", "1"],
        json!([lot("plan:0", "plan", "5"), lot("p", "purchase", "0.38")]),
    );
    back["entry_id"] = id(&reversal, 0);
    back["event_id"] = reversal.body["event_id"].clone();
    back["recorded_at"] = json!("2026-01-08T00:00:00Z");
    let mut purchase = line("purchased", "1", ["6", "1"], json!([lot("p", "purchase", "1")]));
    purchase["entry_id"] = id(&bought, 0);
    purchase["event_id"] = json!("p");
    purchase["recorded_at"] = json!("2026-01-06T00:00:00Z");
    let mut again = line("consumed", "-2", ["4", "1"], json!([lot("plan:0", "plan", "-2")]));
    again["recorded_at"] = json!("2026-01-09T00:00:00Z");
    let mut first = line("granted", "5", ["5", "0"], json!([lot("plan:0", "plan", "5")]));
    first["recorded_at"] = json!("2026-01-05T00:00:00Z");

    let items = story.items("/entries").await?;
    let crossing = &items[..4];
    let kinds: Vec<&Value> = crossing.iter().map(|entry| &entry["type"]).collect();
    // The clock's event books them at the boundary that it crossed: expiry, rollover out and in, the new allowance.
    ensure_is(&json!(kinds), &json!(["granted", "rolled_in", "rolled_out", "expired"]))?;
    ensure_is(&crossing[0], &line("granted", "5", ["8", "1"], json!([lot("plan:1", "plan", "5")])))?;
    ensure_is(
        &crossing[1],
        &line("rolled_in", "2", ["3", "1"], json!([lot("rollover:1", "rollover", "2")])),
    )?;
    ensure_is(&crossing[2], &line("rolled_out", "-2", ["1", "1"], json!([lot("plan:0", "plan", "-2")])))?;
    ensure_is(&crossing[3], &line("expired", "-1", ["3", "1"], json!([lot("plan:0", "plan", "-1")])))?;
    ensure_is(&crossing[3]["entry_id"], &id(&moved, 0))?;
    ensure_is(&Value::Array(items[4..].to_vec()), &json!([again, back, consumed, purchase, first]))?;

    let csv = story.csv("/entries?type=consumed").await?;
    let expected = format!(
        "entry_id,type,amount,balance_after,credit_balance_after,event_id,recorded_at,occurred_at,lots\n\
         {},consumed,-2,4,1,u2,2026-01-09T00:00:00Z,2026-01-09T00:00:00Z,plan:0=-2\n\
         {},consumed,-5.38,0.62,0.62,u1,2026-01-07T12:00:00Z,2026-01-07T10:00:00Z,plan:0=-5 p=-0.38\n",
        items[4]["entry_id"].as_str().context("an id")?,
        consumed["entry_id"].as_str().context("an id")?,
    );
    ensure!(csv.text == expected, "{}\n{expected}", csv.text);
    expect_every_bad_field_named(&whole).await?;
    whole.replay_and_stop().await
}

fn amount(entry: &Value, name: &str) -> Result<Credits> {
    Ok(entry[name].as_str().context("an amount")?.parse()?)
}

async fn all(caller: &Caller, account: &str, query: &str, limit: usize) -> Result<Vec<Value>> {
    let (mut entries, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/accounts/{account}/entries?limit={limit}{query}{cursor}");
        let page = read(caller, &path).await?;
        entries.extend(items_of(page.expect(200)?)?);
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(entries),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_balances_add_up_to_the_settled_one_whatever_happened() -> Result<()> {
    let whole = Whole::start().await?;
    as_of::write_history(&whole, 21, 5, 300).await?;
    as_of::at_rest(&whole).await?;
    let operator = whole.operator();
    let mut kinds = BTreeSet::new();
    for account in items_of(&operator.get("/v1/accounts").await?)? {
        let account = account["account_id"].as_str().context("an id")?.to_owned();
        let entries = all(&operator, &account, "", 500).await?;
        let mut balance = Credits::ZERO;
        for entry in entries.iter().rev() {
            balance = balance.plus(amount(entry, "amount")?)?;
            ensure!(balance == amount(entry, "balance_after")?, "{account}: at {balance} stands {entry}");
        }
        let now = operator.get(&format!("/v1/accounts/{account}/balance")).await?;
        ensure!(now.body["settled"] == json!(balance), "{account}: {balance} is not {}", now.text);
        ensure!(now.body["credit_balance"] == entries[0]["credit_balance_after"], "{account}: {}", now.text);

        ensure!(all(&operator, &account, "", 7).await? == entries, "{account}: in pages of 7");
        let mut by_type = Vec::new();
        for kind in TYPES {
            let of_kind = all(&operator, &account, &format!("&type={kind}"), 11).await?;
            ensure!(of_kind.iter().all(|entry| entry["type"] == kind), "{account}: {kind}");
            by_type.extend(of_kind);
        }
        ensure!(by_type.len() == entries.len(), "{account}: each entry has one type");
        ensure!(by_type.iter().all(|entry| entries.contains(entry)), "{account}: the same entries");
        let ids: BTreeSet<&str> = entries.iter().filter_map(|entry| entry["entry_id"].as_str()).collect();
        ensure!(ids.len() == entries.len(), "{account}: an entry's id is its own");
        kinds.extend(entries.iter().filter_map(|entry| entry["type"].as_str()).map(str::to_owned));
    }
    ensure!(kinds.len() == TYPES.len() - 1, "all but top-ups happened: {kinds:?}");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_goes_on_where_the_last_one_ended_while_new_lines_arrive() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "5"})).await?;
    for number in 0..7 {
        story.usage("2026-01-06T00:00:00Z", &format!("u{number}"), json!({"credits": "1"})).await?;
    }
    let before = story.items("/entries").await?;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for number in 7.. {
        let page = story.get(&format!("/entries?limit=3{cursor}")).await?;
        seen.extend(items_of(&page)?);
        story.usage("2026-01-07T00:00:00Z", &format!("u{number}"), json!({"credits": "1"})).await?;
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    ensure!(seen == before, "found {seen:#?}, expected {before:#?}");
    whole.replay_and_stop().await
}
