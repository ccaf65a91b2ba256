//! Usage: sums by any dimensions, over any periods, under any filters.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ledger_core::value::credits::Credits;
use serde_json::{Map, Value, json};

use super::described::{ensure_is, read};
use super::story::Story;
use e2e::Whole;

const DIMENSIONS: [&str; 7] = ["category", "tier", "model", "user", "feature", "org", "day"];

/// A usage as it counts: its dimensions, day in Los Angeles and period.
struct Counted {
    period: i64,
    /// In the order of [`DIMENSIONS`]; '' = absent.
    values: [&'static str; 7],
    credits: &'static str,
    quantities: &'static [(&'static str, &'static str)],
}

const COUNTED: [Counted; 6] = [
    Counted {
        period: 0,
        values: ["ai_usage", "advanced", "gpt-4o", "ana", "agent_chat", "acme", "2026-01-09"],
        credits: "1.5",
        quantities: &[("input_tokens", "100"), ("output_tokens", "5")],
    },
    Counted {
        period: 0,
        values: ["ai_usage", "advanced", "o1", "bo", "agent_chat", "acme", "2026-01-10"],
        credits: "2",
        quantities: &[("input_tokens", "50.5")],
    },
    Counted {
        period: 0,
        values: ["tool_calls", "", "", "ana", "workflow", "emca", "2026-01-11"],
        credits: "0.25",
        quantities: &[("calls", "1")],
    },
    Counted { period: 0, values: ["", "", "", "", "", "", "2026-01-11"], credits: "1", quantities: &[] },
    Counted {
        period: 0,
        values: ["ai_usage", "", "o1", "ana", "", "", "2026-01-11"],
        credits: "0",
        quantities: &[("input_tokens", "7")],
    },
    // Recorded in February, occurred in January: counts in the period in which it was recorded.
    Counted {
        period: 1,
        values: ["ai_usage", "", "gpt-4o", "ana", "", "", "2026-01-31"],
        credits: "4",
        quantities: &[],
    },
];

/// When each event occurred, and when it was recorded.
const TIMES: [(&str, &str); 6] = [
    ("2026-01-10T07:59:59Z", "2026-01-10T08:00:00Z"),
    ("2026-01-10T08:00:00Z", "2026-01-10T08:00:00Z"),
    ("2026-01-11T12:00:00Z", "2026-01-11T12:00:00Z"),
    ("2026-01-12T07:00:00Z", "2026-01-12T12:00:00Z"),
    ("2026-01-12T07:00:00Z", "2026-01-12T12:00:00Z"),
    ("2026-01-31T20:00:00Z", "2026-02-03T00:00:00Z"),
];

async fn tell(whole: &Whole) -> Result<Story> {
    let plan = json!({"cycle": "monthly", "anchor": "2026-01-01T08:00:00Z", "timezone": "America/Los_Angeles",
                      "allowance": "100"});
    let story = Story::open(whole, "acme", "2026-01-05T00:00:00Z", json!({"plan": plan})).await?;
    let wrong =
        json!({"credits": "50", "user_id": "cy", "category": "meetings", "quantities": {"minutes": 3}});
    story.usage("2026-01-09T00:00:00Z", "wrong", wrong).await?;
    story.post("2026-01-09T00:00:00Z", "/usage/wrong/reversal", json!({"reason": "twice"})).await?;
    for (number, (counted, (occurred, recorded))) in COUNTED.iter().zip(TIMES).enumerate() {
        let mut body = json!({"credits": counted.credits, "occurred_at": occurred});
        let fields = ["category", "tier", "model", "user_id", "feature", "org_id"];
        for (field, value) in fields.iter().zip(counted.values).filter(|(_, value)| !value.is_empty()) {
            body[*field] = json!(value);
        }
        for (name, amount) in counted.quantities {
            body["quantities"][*name] = json!(amount);
        }
        story.usage(recorded, &format!("u{number}"), body).await?;
    }
    Ok(story)
}

type Sums = (Credits, i64, BTreeMap<&'static str, Credits>);

/// Sums in plain code: what the service must answer.
fn expected(period: Option<i64>, group_by: &[&'static str], filters: &[(&str, &str)]) -> Result<Vec<Value>> {
    let place =
        |name: &str| DIMENSIONS.iter().position(|dimension| *dimension == name).context("a dimension");
    let mut groups: BTreeMap<Vec<&str>, Sums> = BTreeMap::new();
    for counted in COUNTED.iter().filter(|counted| period.is_none_or(|period| counted.period == period)) {
        let mut wanted = true;
        for (name, value) in filters {
            wanted &= counted.values[place(name)?] == *value;
        }
        if !wanted {
            continue;
        }
        let key: Vec<&str> =
            group_by.iter().map(|name| place(name).map(|at| counted.values[at])).collect::<Result<_>>()?;
        let sums = groups.entry(key).or_default();
        sums.0 = sums.0.plus(counted.credits.parse()?)?;
        sums.1 += 1;
        for (name, amount) in counted.quantities {
            let sum = sums.2.entry(name).or_default();
            *sum = sum.plus(amount.parse()?)?;
        }
    }
    if groups.is_empty() && group_by.is_empty() {
        groups.insert(Vec::new(), Sums::default());
    }
    let item = |(key, sums): (Vec<&str>, Sums)| {
        let mut item = Map::new();
        for (name, value) in group_by.iter().zip(key) {
            item.insert((*name).to_owned(), if value.is_empty() { Value::Null } else { json!(value) });
        }
        item.insert("credits".into(), json!(sums.0));
        item.insert("events".into(), json!(sums.1));
        item.insert("quantities".into(), json!(sums.2));
        Value::Object(item)
    };
    Ok(groups.into_iter().map(item).collect())
}

async fn check(
    story: &Story,
    period: Option<i64>,
    group_by: &[&'static str],
    filters: &[(&str, &str)],
) -> Result<()> {
    let period_text = period.map_or("all".to_owned(), |period| period.to_string());
    let mut query = format!("/usage?period={period_text}&group_by={}", group_by.join(","));
    for (name, value) in filters {
        query += &format!("&{name}={value}");
    }
    let expected = Value::Array(expected(period, group_by, filters)?);
    ensure_is(&Value::Array(story.items(&query).await?), &expected).context(query.clone())?;
    ensure_is(&Value::Array(story.pages(&query, 1).await?), &expected).context(query.clone())?;
    let mut without = expected;
    for group in without.as_array_mut().into_iter().flatten() {
        group["quantities"] = json!({});
    }
    let items = story.items(&format!("{query}&quantities=false")).await?;
    ensure_is(&Value::Array(items), &without).context(query)
}

/// The cursor is one of another grouping.
async fn expect_bad_queries_refused(whole: &Whole, cursor: &str) -> Result<()> {
    for (query, named) in [
        ("group_by=colour", "group_by unknown_dimension"),
        ("group_by=day,day", "group_by duplicate"),
        ("period=last", "period not_a_period"),
        ("day=2026-02-30", "day not_a_day"),
        ("colour=red", "colour unknown_field"),
        ("limit=501", "limit out_of_range"),
        ("limit=0", "limit out_of_range"),
        ("limit=few", "limit not_a_number"),
        ("cursor=x", "cursor bad_cursor"),
        (&format!("cursor={cursor}"), "cursor bad_cursor"),
        ("group_by=day&cursor=WyJzb29uIl0", "cursor bad_cursor"),
        ("group_by=user&cursor=WyJcdTAwMDAiXQ", "cursor bad_cursor"),
        ("model=a%00b", "model control_character"),
        ("at_least=3", "at_least not_a_position"),
    ] {
        let answer = read(&whole.operator(), &format!("/v1/accounts/acme/usage?{query}")).await?;
        answer.expect_fields(&[named])?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_summed_by_any_dimensions_over_any_periods_under_any_filters() -> Result<()> {
    let whole = Whole::start().await?;
    let story = tell(&whole).await?;
    let groupings: Vec<Vec<&str>> = DIMENSIONS
        .iter()
        .map(|one| vec![*one])
        .chain([vec![], vec!["category", "model"], vec!["day", "user"], DIMENSIONS.to_vec()])
        .chain([DIMENSIONS.iter().rev().copied().collect()])
        .collect();
    for period in [None, Some(0), Some(1)] {
        for group_by in &groupings {
            check(&story, period, group_by, &[]).await?;
        }
    }
    for unknown in [2, -1] {
        let path = format!("/v1/accounts/acme/usage?period={unknown}");
        read(&whole.operator(), &path).await?.expect_problem(404, "period_not_found")?;
    }
    for (at, name) in DIMENSIONS.iter().enumerate() {
        let mut values: Vec<&str> = COUNTED.iter().map(|counted| counted.values[at]).collect();
        values.sort_unstable();
        values.dedup();
        values.push(if *name == "day" { "2020-02-29" } else { "none" });
        for value in values {
            check(&story, None, &["category", "user"], &[(name, value)]).await?;
            check(&story, Some(0), &[], &[(name, value)]).await?;
        }
    }
    check(&story, Some(0), &["day"], &[("category", "ai_usage"), ("user", "ana"), ("model", "gpt-4o")])
        .await?;
    ensure_is(
        &Value::Array(story.items("/usage").await?),
        &json!([{"credits": "4", "events": 1, "quantities": {}}]),
    )?;
    let answer = story.get("/usage?period=current").await?;
    ensure_is(
        &answer.body,
        &json!({"account_id": "acme", "position": "*", "recorded_at": "2026-02-03T00:00:00Z", "next_cursor": null,
                "items": [{"credits": "4", "events": 1, "quantities": {}}]}),
    )?;

    let csv = story.csv("/usage?period=0&group_by=category").await?;
    let expected = "category,credits,events,quantities\n,1,1,\nai_usage,3.5,3,input_tokens=157.5 output_tokens=5\n\
                    tool_calls,0.25,1,calls=1\n";
    ensure!(csv.text == expected, "{}", csv.text);
    ensure!(
        csv.headers["ledger-recorded-at"] == "2026-02-03T00:00:00Z"
            && !csv.headers["ledger-position"].is_empty()
    );
    let first = story.csv("/usage?period=0&group_by=category&limit=2").await?;
    let cursor = first.headers["next-cursor"].to_str()?;
    let second = story.csv(&format!("/usage?period=0&group_by=category&limit=2&cursor={cursor}")).await?;
    ensure!(
        second.text == "category,credits,events,quantities\ntool_calls,0.25,1,calls=1\n",
        "{}",
        second.text
    );

    expect_bad_queries_refused(&whole, cursor).await?;
    whole.replay_and_stop().await
}
