//! Read back: what the ledger answers about an account, in the same form as the demo's own arithmetic.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ledger_core::value::credits::Credits;
use ledger_core::value::time::Time;
use serde_json::Value;

use crate::client::Client;
use crate::reference::{Figures, Kind, Period, Sum};
use crate::scenario::Scenario;

/// Types of entries that are neither usage nor a period's end.
const CHANGES: [&str; 6] = ["granted", "purchased", "topped_up", "refunded", "adjusted", "voided"];

/// The ledger's answers about an account.
#[derive(Debug)]
pub struct Said {
    /// The figures that the demo also computes from the input.
    pub figures: Figures,
    pub balance: Value,
    pub periods: Vec<Value>,
    pub entries: usize,
    /// Sums of the entries by type, such as `granted` or `consumed`.
    pub booked: BTreeMap<String, Credits>,
}

pub async fn read_back(client: &Client, scenario: &Scenario) -> Result<Said> {
    let path = |rest: &str| format!("/v1/accounts/{}/{rest}", scenario.id);
    let balance = client.read(&path("balance")).await?;
    let total = client.list(&path("usage?period=all")).await?;
    let users = client.list(&path("usage?period=all&group_by=user")).await?;
    let kinds = client.list(&path("usage?period=all&group_by=category,tier,model")).await?;
    let periods = client.list(&path("periods")).await?;
    let entries = client.list(&path("entries")).await?;
    let mut figures = Figures {
        total: sum(total.first().context("usage without a group has one item")?)?,
        users: sums(&users, |item| text(item, "user"))?,
        kinds: sums(&kinds, kind)?,
        periods: periods.iter().map(period).collect::<Result<_>>()?,
        settled: amount(&balance, "settled")?,
        bought: amount(&balance, "credit_balance")?,
    };
    for (index, boundary) in (scenario.first_period + 1..).zip(&scenario.boundaries) {
        let opened_with = as_of(client, scenario, *boundary).await?;
        if let Some(period) = figures.periods.get_mut(&index) {
            period.opened_with = opened_with;
        }
    }
    let first = figures.periods.get_mut(&scenario.first_period).context("the first period is listed")?;
    first.opened_with = as_of(client, scenario, Scenario::opening()?).await?;
    add_changes(&mut figures, &entries, scenario)?;
    let mut booked: BTreeMap<String, Credits> = BTreeMap::new();
    for entry in &entries {
        let sum = booked.entry(text(entry, "type")).or_default();
        *sum = sum.plus(amount(entry, "amount")?)?;
    }
    Ok(Said { figures, balance, periods, entries: entries.len(), booked })
}

/// Adds to each period what was bought and granted in it; credits of a boundary are in its opening balance.
fn add_changes(figures: &mut Figures, entries: &[Value], scenario: &Scenario) -> Result<()> {
    let opening = Scenario::opening()?;
    for entry in entries.iter().filter(|entry| CHANGES.contains(&text(entry, "type").as_str())) {
        let at: Time = text(entry, "recorded_at").parse()?;
        if at == opening || scenario.boundaries.contains(&at) {
            continue;
        }
        let index = scenario.period_at(at)?;
        let period =
            figures.periods.get_mut(&index).with_context(|| format!("period {index} is not listed"))?;
        period.added = period.added.plus(amount(entry, "amount")?)?;
    }
    Ok(())
}

async fn as_of(client: &Client, scenario: &Scenario, time: Time) -> Result<Credits> {
    let balance = client.read(&format!("/v1/accounts/{}/balance?as_of={time}", scenario.id)).await?;
    amount(&balance, "settled")
}

fn sums<K: Ord>(items: &[Value], key: impl Fn(&Value) -> K) -> Result<BTreeMap<K, Sum>> {
    let sums = items.iter().map(|item| Ok((key(item), sum(item)?))).collect::<Result<BTreeMap<K, Sum>>>()?;
    ensure!(sums.len() == items.len(), "a group is listed twice");
    Ok(sums)
}

fn sum(item: &Value) -> Result<Sum> {
    let events = item["events"].as_u64().context("events is a count")?;
    Ok(Sum { credits: amount(item, "credits")?, events })
}

fn kind(item: &Value) -> Kind {
    (text(item, "category"), text(item, "tier"), text(item, "model"))
}

fn period(item: &Value) -> Result<(i64, Period)> {
    let index = item["index"].as_i64().context("index is a number")?;
    let period = Period {
        opened_with: Credits::ZERO,
        added: Credits::ZERO,
        used: amount(item, "used")?,
        expired: amount(item, "expired")?,
        rolled_over: amount(item, "rolled_over")?,
    };
    Ok((index, period))
}

/// Reads a text of an answer; empty where it is missing.
pub fn text(item: &Value, field: &str) -> String {
    item[field].as_str().unwrap_or_default().to_string()
}

pub fn amount(item: &Value, field: &str) -> Result<Credits> {
    let text = item[field].as_str().with_context(|| format!("{field} is missing in {item}"))?;
    text.parse().with_context(|| format!("{field} is {text}"))
}
