//! Explain: whole trees of random histories, whose amounts add up at every level and whose top is what the read says.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use ledger_core::value::credits::{Credits, parse_wide};
use ledger_core::value::time::Time;
use serde_json::{Value, json};

use super::as_of::{at_rest, write_test_history};
use super::described::read;
use super::story::{Story, items_of};
use e2e::{Caller, Whole};

const FIGURES: [&str; 13] = [
    "settled",
    "held",
    "available",
    "credit_balance",
    "overdraft",
    "allowance",
    "rollover",
    "period_maximum",
    "used",
    "percent_used",
    "percent_remaining",
    "lifetime_added",
    "lifetime_spent",
];
/// Most children of a level in one answer.
const CHILDREN_MAX: usize = 50;

fn amount(value: &Value) -> Result<Credits> {
    let text = value.as_str().with_context(|| format!("{value} is no amount"))?;
    parse_wide(text).map_err(anyhow::Error::from)
}

fn sum<'a>(amounts: impl IntoIterator<Item = &'a Value>) -> Result<Credits> {
    let mut sum = Credits::ZERO;
    for one in amounts {
        sum = sum.plus(amount(one)?)?;
    }
    Ok(sum)
}

/// Reads what a question answers, and walks the whole tree; returns its top.
async fn walk(caller: &Caller, path: &str) -> Result<Value> {
    let answer = read(caller, path).await?;
    let tree = answer.expect(200)?.body["tree"].clone();
    let mut nodes = 0;
    walk_node(caller, path, &tree, &mut nodes).await.with_context(|| format!("{path}: {tree}"))?;
    Ok(tree)
}

/// Checks a node and everything below it, what lies behind cursors too.
fn walk_node<'a>(
    caller: &'a Caller,
    path: &'a str,
    node: &'a Value,
    nodes: &'a mut usize,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        *nodes += 1;
        let children = node["children"].as_array().context("children")?;
        ensure!(children.len() <= CHILDREN_MAX, "{} children", children.len());
        for child in children {
            walk_node(caller, path, child, nodes).await?;
        }
        if children.is_empty() && node["rest"].is_null() {
            return Ok(());
        }
        if node["operation"] == "ratio" {
            let percent = amount(&children[0]["amount"])?.percent_of(amount(&children[1]["amount"])?);
            ensure!(json!(percent) == node["amount"], "{node}");
            return Ok(());
        }
        let rest = &node["rest"];
        let amounts = children.iter().map(|child| &child["amount"]);
        let total = sum(amounts.chain(rest.get("amount")))?;
        let expected = if node["operation"] == "min0" { total.max(Credits::ZERO) } else { total };
        ensure!(amount(&node["amount"])? == expected, "{node}");
        if let Some(cursor) = rest["next_cursor"].as_str() {
            let next = read(caller, &format!("{path}&cursor={cursor}")).await?;
            let next = &next.expect(200)?.body["tree"];
            ensure!(next["kind"] == node["kind"] && next["amount"] == rest["amount"], "{next} is not {rest}");
            let shown = next["children"].as_array().map_or(0, Vec::len);
            let left = next["rest"]["count"].as_u64().unwrap_or(0);
            ensure!(rest["count"] == json!(u64::try_from(shown)? + left), "{rest}");
            walk_node(caller, path, next, nodes).await?;
        }
        Ok(())
    })
}

/// Walks every figure at an instant, or now, and compares its top with the balance's.
async fn ensure_explained(caller: &Caller, account: &str, as_of: Option<&str>) -> Result<()> {
    let (first, further) = match as_of {
        Some(instant) => (format!("?as_of={instant}"), format!("&as_of={instant}")),
        None => (String::new(), String::new()),
    };
    let balance = caller.get(&format!("/v1/accounts/{account}/balance{first}")).await?;
    for figure in FIGURES {
        let path = format!("/v1/accounts/{account}/explain?figure={figure}{further}");
        let tree = walk(caller, &path).await?;
        ensure!(tree["amount"] == balance.expect(200)?.body[figure], "{path}: {tree}, {}", balance.text);
    }
    let users = caller.get(&format!("/v1/accounts/{account}/users{first}")).await?;
    for user in items_of(users.expect(200)?)? {
        let id = user["user_id"].as_str().context("a user")?;
        for figure in ["used", "counted"] {
            let path = format!("/v1/accounts/{account}/explain?figure={figure}&user={id}{further}");
            ensure!(walk(caller, &path).await?["amount"] == user[figure], "{path}: {user}");
        }
    }
    Ok(())
}

/// Walks every entry, event and firing of an account; returns how many firings are explained by a figure to the last
/// place.
async fn ensure_each_explained(caller: &Caller, account: &str) -> Result<usize> {
    let base = format!("/v1/accounts/{account}");
    for entry in items_of(caller.get(&format!("{base}/entries?limit=500")).await?.expect(200)?)? {
        let id = entry["entry_id"].as_str().context("an entry")?;
        let tree = walk(caller, &format!("{base}/explain?entry={id}")).await?;
        for field in ["entry_id", "type", "event_id", "amount"] {
            ensure!(tree[field] == entry[field], "{tree} is not {entry}");
        }
        let event = entry["event_id"].as_str().context("an event")?;
        let path = format!("{base}/explain?event={event}");
        // What time did has a derived id, which only a reset has as an event.
        if caller.get(&path).await?.status == 200 && entry["type"] == "consumed" {
            let tree = walk(caller, &path).await?;
            let charged = amount(&entry["amount"])?.negated();
            ensure!(tree["kind"] == "usage" && amount(&tree["amount"])? == charged, "{tree} is not {entry}");
        }
    }
    let mut exact = 0;
    for firing in items_of(caller.get(&format!("{base}/firings?limit=500")).await?.expect(200)?)? {
        let id = firing["firing_id"].as_str().context("a firing")?;
        let tree = walk(caller, &format!("{base}/explain?firing={id}")).await?;
        ensure!(tree["kind"] == "firing" && tree["amount"] == firing["figure"], "{tree} is not {firing}");
        let has_figure = tree["children"].as_array().is_some_and(|children| !children.is_empty());
        exact += usize::from(has_figure && tree["rest"].is_null());
    }
    Ok(exact)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tree_of_a_random_history_adds_up_and_its_top_is_what_the_read_says() -> Result<()> {
    let whole = Whole::start().await?;
    write_test_history(&whole, 23, 2, 120).await?;
    at_rest(&whole).await?;
    whole.all_evaluated().await?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let mut exact = 0;
    for number in 0..2 {
        let account = format!("acct-23-{number}");
        ensure_explained(&auditor, &account, None).await?;
        exact += ensure_each_explained(&auditor, &account).await?;
        let opened = auditor.get(&format!("/v1/accounts/{account}")).await?;
        let opened: Time = opened.expect(200)?.body["opened_at"].as_str().context("a time")?.parse()?;
        let periods = auditor.get(&format!("/v1/accounts/{account}/periods?limit=3")).await?;
        let mut instants: Vec<String> = Vec::new();
        for period in items_of(periods.expect(200)?)? {
            let starts_at: Time = period["starts_at"].as_str().context("a time")?.parse()?;
            for at in [starts_at, starts_at.plus_micros(-1), starts_at.plus_seconds(30_000)] {
                instants.push(at.max(opened).to_string());
            }
        }
        for instant in instants {
            ensure_explained(&auditor, &account, Some(&instant)).await?;
        }
    }
    ensure!(exact > 0, "no firing is explained");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_level_goes_on_behind_a_cursor_in_the_state_that_was_explained() -> Result<()> {
    let whole = Whole::start().await?;
    let prices = json!({"tokens": {"credits": "1", "per": "3"}, "calls": {"credits": "2", "per": "1"}});
    let card = json!({"meters": [{"category": "ai_usage", "prices": prices}]});
    whole.operator().put("/v1/rate-cards/thirds", card).await?.expect(200)?;
    let plan = json!({"allowance": "5", "rate_card": "thirds"});
    let story = Story::monthly(&whole, "acme", plan).await?;
    for number in 0..60 {
        let body = json!({"payment_id": format!("p{number}"), "amount": "3"});
        story.post("2026-01-06T00:00:00Z", "/purchases", body).await?;
    }
    let quantities = json!({"tokens": "10", "calls": "1"});
    for number in 0..70 {
        let body = json!({"category": "ai_usage", "quantities": quantities, "user_id": "ana"});
        story.usage("2026-01-07T00:00:00Z", &format!("u{number}"), body).await?;
    }
    story.post("2026-01-08T00:00:00Z", "/usage/u3/reversal", json!({"reason": "wrong"})).await?;
    // Draws from 55 lots at once.
    story.post("2026-01-08T00:00:00Z", "/adjustments", json!({"amount": "-20", "reason": "r"})).await?;
    let operator = whole.operator();
    ensure_explained(&operator, "acme", None).await?;

    let used = story.get("/explain?figure=used").await?;
    let tree = &used.body["tree"];
    ensure!(tree["rest"]["count"] == 19 && tree["children"][0]["event_id"] == "u69", "{tree}");
    let lines: Vec<&Value> = tree["children"][0]["children"].as_array().context("lines")?.iter().collect();
    ensure!(lines.len() == 2 && lines.iter().all(|line| line["kind"] == "line"), "{tree}");
    let tokens = lines.iter().find(|line| line["quantity"] == "tokens").context("tokens")?;
    ensure!(tokens["units"] == "10" && tokens["unit_credits"] == "1" && tokens["per"] == "3", "{tokens}");
    ensure!(tokens["amount"] == "3.333333333" && used.body["as_of"].is_null(), "{}", used.text);

    // What happens meanwhile does not change what a cursor goes on with.
    let cursor = tree["rest"]["next_cursor"].as_str().context("a cursor")?.to_owned();
    let body = json!({"category": "ai_usage", "quantities": quantities, "user_id": "bo"});
    story.usage("2026-01-08T00:00:00Z", "later", body).await?;
    story.post("2026-01-08T00:00:00Z", "/usage/u1/reversal", json!({"reason": "wrong"})).await?;
    let rest = story.get(&format!("/explain?figure=used&cursor={cursor}")).await?;
    let tree = &rest.body["tree"];
    ensure!(tree["children"].as_array().map(Vec::len) == Some(19), "{tree}");
    ensure!(tree["children"].to_string().contains("\"u1\""), "{tree}");

    let member = whole.keyed("member", &["acme"], Some("bo")).await?;
    let forbidden = format!("/v1/accounts/acme/explain?figure=used&cursor={cursor}");
    read(&member, &forbidden).await?.expect_problem(403, "forbidden")?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_explained_by_the_figures_that_it_was_made_from() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "100"})).await?;
    let limits = json!({"default_limit": "50", "excluded_features": ["workflow"]});
    story.limits("2026-01-05T00:00:00Z", limits).await?;
    for (id, feature) in [("u1", "chat"), ("u2", "workflow")] {
        let usage = json!({"credits": "10", "user_id": "ana", "feature": feature});
        story.usage("2026-01-06T00:00:00Z", id, usage).await?;
    }
    let reserve = async |id: &str, user: Option<&str>, amount: &str| {
        let hold = json!({"reservation_id": id, "user_id": user, "feature": "chat", "amount": amount});
        let caller = whole.operator().at("2026-01-06T00:00:00Z");
        anyhow::Ok(caller.post("/v1/accounts/acme/reservations", hold).await?.status)
    };
    ensure!(reserve("r1", Some("ana"), "20").await? == 201);
    ensure!(reserve("r2", Some("ana"), "25").await? == 402);
    ensure!(reserve("r3", None, "70").await? == 402);
    // What comes later is no part of it.
    story.usage("2026-01-06T00:05:00Z", "u3", json!({"credits": "1", "user_id": "ana"})).await?;

    let decisions = story.items("/decisions").await?;
    ensure!(decisions.len() == 2, "{decisions:?}");
    let operator = whole.operator();
    let explained = async |decision: &Value| {
        let id = decision["id"].as_str().context("an id")?;
        walk(&operator, &format!("/v1/accounts/acme/explain?decision={id}")).await
    };
    let exhausted = explained(&decisions[0]).await?;
    ensure!(exhausted["amount"] == "60" && exhausted["rest"].is_null(), "{exhausted}");
    ensure!(exhausted["children"][0]["figure"] == "settled", "{exhausted}");
    ensure!(exhausted["children"][1]["amount"] == "-20", "{exhausted}");
    let limited = explained(&decisions[1]).await?;
    ensure!(limited["amount"] == "30" && limited["rest"].is_null(), "{limited}");
    ensure!(limited["children"][0]["figure"] == "counted", "{limited}");
    ensure!(limited["children"][0]["children"][0]["event_id"] == "u1", "{limited}");
    // Holds are of the present alone.
    let available = walk(&operator, "/v1/accounts/acme/explain?figure=available").await?;
    ensure!(available["amount"] == "59", "{available}");
    let path = "/v1/accounts/acme/explain?figure=available&as_of=2026-01-06T00:05:00Z";
    ensure!(walk(&operator, path).await?["amount"] == "79");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_exactly_one_question_by_who_may_ask_it() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "5"})).await?;
    for (id, user) in [("u1", "ana"), ("u2", "bo")] {
        story.usage("2026-01-06T00:00:00Z", id, json!({"credits": "1", "user_id": user})).await?;
    }
    let operator = whole.operator();
    let path = |query: &str| format!("/v1/accounts/acme/explain{query}");
    for (query, fields) in [
        ("", ["figure required"]),
        ("?figure=settled&entry=0:1:0", ["entry not_allowed"]),
        ("?event=u1&firing=x", ["firing not_allowed"]),
        ("?figure=settled&user=ana", ["user not_allowed"]),
        ("?figure=counted", ["user required"]),
        ("?entry=0:1:0&as_of=2026-01-06T00:00:00Z", ["as_of not_allowed"]),
        ("?figure=used&source=/v1/usage", ["source not_allowed"]),
        ("?figure=used&cursor=eA", ["cursor bad_cursor"]),
    ] {
        read(&operator, &path(query)).await?.expect_fields(&fields)?;
    }
    ensure!(read(&operator, &path("?figure=wealth")).await?.status == 422);
    for (query, code) in [
        ("?entry=0:999999:0", "entry_not_found"),
        ("?entry=none", "entry_not_found"),
        ("?event=none", "event_not_found"),
        ("?firing=none", "firing_not_found"),
        ("?firing=018f3c1e-0000-7000-8000-000000000000", "firing_not_found"),
        ("?decision=none", "decision_not_found"),
        ("?decision=1-1", "decision_not_found"),
        ("?figure=used&as_of=2026-01-04T00:00:00Z", "account_not_found"),
    ] {
        read(&operator, &path(query)).await?.expect_problem(404, code)?;
    }
    let later = walk(&operator, &path("?figure=used&as_of=2036-01-04T00:00:00Z")).await?;
    ensure!(later["amount"] == "2", "{later}");

    ensure_roles(&whole).await?;
    whole.replay_and_stop().await
}

/// Asks as each role.
async fn ensure_roles(whole: &Whole) -> Result<()> {
    let operator = whole.operator();
    let auditor = whole.keyed("auditor", &[], None).await?;
    let admin = whole.keyed("admin", &["acme"], None).await?;
    let other = whole.keyed("admin", &["other"], None).await?;
    let producer = whole.keyed("producer", &["acme"], None).await?;
    let ana = whole.keyed("member", &["acme"], Some("ana")).await?;
    let nobody = whole.caller(None);
    for (query, of_member) in [
        ("explain?figure=settled", 403),
        ("explain?figure=used", 200),
        ("explain?figure=used&user=ana", 200),
        ("explain?figure=used&user=bo", 403),
        ("explain?figure=counted", 200),
        ("explain?event=u1", 200),
        ("explain?event=u2", 403),
        ("explain?entry=0:1:0", 403),
        ("diff?from=2026-01-05T00:00:00Z&to=2026-01-06T00:00:00Z", 403),
    ] {
        let path = format!("/v1/accounts/acme/{query}");
        let of_all = if query == "explain?figure=counted" { 422 } else { 200 };
        for (caller, name, expected) in [
            (&operator, "operator", of_all),
            (&auditor, "auditor", of_all),
            (&admin, "admin", of_all),
            (&other, "admin of another", 403),
            (&producer, "producer", 403),
            (&ana, "member", of_member),
            (&nobody, "nobody", 401),
        ] {
            let status = caller.get(&path).await?.status;
            ensure!(status == expected, "{name} {query}: {status}, not {expected}");
        }
    }
    let own = walk(&ana, "/v1/accounts/acme/explain?figure=used").await?;
    ensure!(own["amount"] == "1" && own["children"][0]["event_id"] == "u1", "{own}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_draws_the_tree() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "5"})).await?;
    story.usage("2026-01-06T00:00:00Z", "u1", json!({"credits": "2"})).await?;
    let (url, key) = (whole.console().to_owned(), whole.operator().key().to_owned());
    let run = async |more: &str| {
        let mut command = Command::new(e2e::program());
        command.args(["explain", "--account", "acme", "--url", &url]).args(more.split_whitespace());
        command.env("LEDGER_KEY", &key).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8(output.stderr)?;
        anyhow::Ok((output.status.code(), String::from_utf8(output.stdout)?, said))
    };
    let (code, drawn, said) = run("--figure settled").await?;
    let lines: Vec<&str> = drawn.lines().collect();
    ensure!(code == Some(0) && lines.len() == 6, "{drawn}{said}");
    ensure!(lines[0] == "settled: 3" && lines[1] == "├─ opening: 0", "{drawn}");
    ensure!(lines[2].starts_with("├─ consumed: -2   ") && lines[2].ends_with("   u1"), "{drawn}");
    ensure!(lines[3] == "│  └─ lot: -2   plan:0   plan", "{drawn}");
    ensure!(lines[4].starts_with("└─ granted: 5"), "{drawn}");
    let (_, text, _) = run("--figure used --as-of 2026-01-05T00:00:00Z --json").await?;
    let answer: Value = serde_json::from_str(&text)?;
    ensure!(answer["tree"]["amount"] == "0" && answer["as_of"] == "2026-01-05T00:00:00Z", "{text}");
    let (code, _, said) = run("--event none").await?;
    ensure!(code == Some(1) && said.contains("(event_not_found)"), "{said}");
    ensure!(run("--figure wealth").await?.0 == Some(1));
    ensure!(run("").await?.0 == Some(2));
    ensure!(run("--figure used --entry 0:1:0").await?.0 == Some(2));
    whole.replay_and_stop().await
}
