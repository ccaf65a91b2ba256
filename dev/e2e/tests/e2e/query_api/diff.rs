//! Diff: the figures of both ends, and the events between them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use ledger_core::event::wire;
use ledger_core::fold::Fact;
use ledger_core::fold::memory::Memory;
use ledger_core::value::time::Time;
use serde_json::{Value, json};

use super::as_of::{at_rest, records, write_test_history};
use super::described::{ensure_is, read};
use super::story::Story;
use e2e::{Caller, Whole};

/// Records of an account: offset, ledger time after it, and outcome.
struct Folded {
    account: String,
    offset: i64,
    at: Time,
    id: String,
    outcome: &'static str,
}

async fn folded(whole: &Whole) -> Result<Vec<Folded>> {
    let mut memory = Memory::default();
    let mut all = Vec::new();
    for record in records(whole).await? {
        let event = wire::decode(record.value_bytes()).map_err(anyhow::Error::from)?;
        let (account, id) = (event.account.to_string(), event.id.to_string());
        let stamped = event.recorded_at;
        let fact = Fact::new(event, record.appended_at, record.position.offset);
        let applied = memory.fold(&[fact]).remove(0);
        let at = applied.ledger_time.unwrap_or(stamped);
        all.push(Folded {
            account,
            offset: record.position.offset,
            at,
            id,
            outcome: applied.outcome.as_str(),
        });
    }
    Ok(all)
}

async fn ensure_between(caller: &Caller, account: &str, all: &[Folded], from: Time, to: Time) -> Result<()> {
    let path = format!("/v1/accounts/{account}/diff?from={from}&to={to}&limit=500");
    let diff = caller.get(&path).await?;
    let body = &diff.expect(200)?.body;
    for (side, at) in [("before", from), ("after", to)] {
        let balance = balance_at(caller, account, at).await?;
        for (name, change) in body["figures"].as_object().context("figures")? {
            ensure!(change[side] == balance[name], "{path}: {name} {change}, not {}", balance[name]);
        }
        for lot in body["lots"].as_array().context("lots")? {
            let open = balance["lots"].as_array().context("lots")?;
            let found = open.iter().find(|open| open["grant_id"] == lot["grant_id"]);
            let remaining = found.map_or(json!("0"), |open| open["remaining"].clone());
            ensure!(lot[side] == remaining, "{path}: {lot}, not {remaining}");
        }
    }
    let opening = all.iter().find(|it| it.account == account && it.outcome == "applied");
    let opening = opening.context("an opening")?.offset;
    let expected: Vec<Value> = all
        .iter()
        .filter(|it| it.account == account && it.offset >= opening && from < it.at && it.at <= to)
        .map(|it| json!([it.id, it.outcome, it.offset, it.at]))
        .collect();
    let found: Vec<Value> = body["events"]["items"]
        .as_array()
        .context("events")?
        .iter()
        .map(|it| json!([it["event_id"], it["outcome"], it["position"]["offset"], it["recorded_at"]]))
        .collect();
    ensure_is(&json!(found), &json!(expected)).with_context(|| path.clone())
}

async fn balance_at(caller: &Caller, account: &str, at: Time) -> Result<Value> {
    let answer = caller.get(&format!("/v1/accounts/{account}/balance?as_of={at}")).await?;
    Ok(answer.expect(200)?.body.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_are_those_of_both_ends_and_the_events_those_of_the_journal() -> Result<()> {
    let whole = Whole::start().await?;
    write_test_history(&whole, 29, 2, 120).await?;
    at_rest(&whole).await?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let all = folded(&whole).await?;
    for number in 0..2 {
        let account = format!("acct-29-{number}");
        let times: BTreeSet<Time> = all.iter().filter(|it| it.account == account).map(|it| it.at).collect();
        let opened = auditor.get(&format!("/v1/accounts/{account}")).await?;
        let opened: Time = opened.expect(200)?.body["opened_at"].as_str().context("a time")?.parse()?;
        let times: Vec<Time> = times.into_iter().filter(|at| *at >= opened).step_by(7).collect();
        for pair in times.windows(2) {
            ensure_between(&auditor, &account, &all, pair[0], pair[1]).await?;
        }
        let (first, last) = (times[0], times[times.len() - 1]);
        ensure_between(&auditor, &account, &all, first, last).await?;
        ensure_between(&auditor, &account, &all, last, last).await?;
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_differ_are_named_and_events_come_in_pages() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "5"})).await?;
    story.limits("2026-01-06T00:00:00Z", json!({"default_limit": "3", "custom": {"ana": "1"}})).await?;
    story.patch("2026-01-07T00:00:00Z", json!({"low_balance_threshold": "2"})).await?;
    story.usage("2026-01-08T00:00:00Z", "u1", json!({"credits": "1"})).await?;
    let path = "/diff?from=2026-01-06T00:00:00Z&to=2026-02-08T00:00:00Z";
    let diff = story.get(path).await?;
    let changed = json!({"low_balance_threshold": {"before": null, "after": "2"}});
    ensure_is(&diff.body["settings"], &changed)?;
    ensure_is(&diff.body["lots"], &json!([{"grant_id": "plan:0", "before": "5", "after": "4"}]))?;
    ensure_is(
        &json!([diff.body["from"], diff.body["to"]]),
        &json!(["2026-01-06T00:00:00Z", "2026-02-08T00:00:00Z"]),
    )?;
    let diff = story.get("/diff?from=2026-01-05T00:00:00Z&to=2026-01-06T00:00:00Z").await?;
    let own = json!({"before": {}, "after": {"ana": "1"}});
    ensure_is(&diff.body["settings"]["user_limits"], &own)?;
    ensure!(diff.body["settings"]["limits"]["after"]["default_limit"] == "3", "{}", diff.text);

    let first = story.get(&format!("{path}&limit=1")).await?;
    let events = &first.body["events"];
    ensure!(events["items"][0]["type"] == "ledger.account.changed.v1", "{events}");
    let cursor = events["next_cursor"].as_str().context("a cursor")?;
    let second = story.get(&format!("{path}&limit=1&cursor={cursor}")).await?;
    let events = &second.body["events"];
    ensure!(items_of_page(events)?[0]["event_id"] == "u1" && events["next_cursor"].is_null(), "{events}");

    let operator = whole.operator();
    for (query, fields) in [
        ("?from=2026-01-06T00:00:00Z", ["to required"]),
        ("?from=2026-01-06T00:00:00Z&to=2026-01-05T00:00:00Z", ["to not_after"]),
        ("?from=2026-01-06T00:00:00Z&to=never", ["to not_a_time"]),
    ] {
        read(&operator, &format!("/v1/accounts/acme/diff{query}")).await?.expect_fields(&fields)?;
    }
    let early = "/v1/accounts/acme/diff?from=2026-01-01T00:00:00Z&to=2026-01-05T00:00:00Z";
    read(&operator, early).await?.expect_problem(404, "account_not_found")?;
    whole.replay_and_stop().await
}

fn items_of_page(page: &Value) -> Result<&Vec<Value>> {
    page["items"].as_array().context("items")
}
