//! Tables: prints what the ledger answered.
//!
//! Amounts are rounded to 2 places here, and nowhere else.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use ledger_core::event::PlanBody;
use ledger_core::value::credits::Credits;
use ledger_core::value::time::Zone;

use crate::prices::Unit;
use crate::read_back::{Said, amount, text};
use crate::reference::{Kind, Sum};
use crate::scenario::Scenario;

/// Users shown of an account.
const TOP_USERS: usize = 5;
/// Characters of a bar of 100 %.
const BAR_CHARS: usize = 20;
/// Units of a hundredth, the smallest amount that is shown.
const HUNDREDTH: i128 = 10_000_000;

/// An account's story and the ledger's answers about it.
pub type Answered<'a> = (&'a Scenario, &'a Said);

/// Returns the balance of every account.
pub fn balances(answered: &[Answered<'_>]) -> Result<String> {
    let header = ["Account", "Plan", "Balance", "bought", "rolled", "Used", "Status"];
    let mut table = Table::new();
    for (scenario, said) in answered {
        let unit = scenario.account.unit();
        let figure = |field: &str| Ok::<String, anyhow::Error>(money(amount(&said.balance, field)?, unit));
        table.add_row(vec![
            scenario.id.clone(),
            scenario.title.to_string(),
            figure("settled")?,
            figure("credit_balance")?,
            figure("rollover")?,
            figure("used")?,
            text(&said.balance, "status"),
        ]);
    }
    Ok(laid_out(table, &header, 2..6))
}

/// Returns the sources and uses of each account's credits: each row adds up to the balance.
pub fn flows(answered: &[Answered<'_>]) -> Result<String> {
    const COLUMNS: [(&str, &[&str]); 5] = [
        ("Given", &["granted", "adjusted", "voided", "rolled_in", "rolled_out"]),
        ("Bought", &["purchased", "topped_up"]),
        ("Used", &["consumed", "reversed"]),
        ("Expired", &["expired"]),
        ("Refunded", &["refunded"]),
    ];
    let mut table = Table::new();
    for (scenario, said) in answered {
        let unit = scenario.account.unit();
        let mut row = vec![scenario.id.clone()];
        let mut balance = Credits::ZERO;
        for (_, types) in COLUMNS {
            let mut sum = Credits::ZERO;
            for entry_type in types {
                sum = sum.plus(said.booked.get(*entry_type).copied().unwrap_or_default())?;
            }
            balance = balance.plus(sum)?;
            row.push(money(sum, unit));
        }
        row.push(money(balance, unit));
        table.add_row(row);
    }
    let mut header = vec!["Account"];
    header.extend(COLUMNS.iter().map(|(name, _)| *name));
    header.push("= Balance");
    Ok(laid_out(table, &header, 1..7))
}

/// Returns the users with the most usage in each account.
pub fn top_users(answered: &[Answered<'_>]) -> String {
    let mut table = Table::new();
    for (scenario, said) in answered {
        let users = dearest(&said.figures.users, |sum| sum.credits);
        for (rank, (name, sum)) in users.iter().take(TOP_USERS).enumerate() {
            let mut row = vec![if rank == 0 { scenario.id.clone() } else { String::new() }, (*name).clone()];
            row.extend(summed(sum, said.figures.total.credits, scenario.account.unit()));
            table.add_row(row);
        }
        let others = users.len().saturating_sub(TOP_USERS);
        if others > 0 {
            table.add_row(vec![String::new(), format!("and {others} more")]);
        }
    }
    laid_out(table, &["Account", "User", "Events", "Used", "Share", ""], 2..5)
}

/// Returns one account's usage by category, in it by tier, in it by model.
pub fn breakdown((scenario, said): Answered<'_>) -> Result<String> {
    let mut table = Table::new();
    let total = said.figures.total.credits;
    let categories = nested(&said.figures.kinds)?;
    for (category, tiers) in dearest(&categories, |tiers| tiers.sum.credits) {
        let unit = scenario.account.unit();
        let mut add = |indent: usize, name: &str, sum: &Sum| {
            let mut row = vec![format!("{}{name}", "  ".repeat(indent))];
            row.extend(summed(sum, total, unit));
            table.add_row(row);
        };
        add(0, category, &tiers.sum);
        for (tier, models) in dearest(&tiers.by_tier, |models| models.sum.credits) {
            // Usage without a model has no tier either.
            if !tier.is_empty() {
                add(1, tier, &models.sum);
                for (model, sum) in dearest(&models.by_model, |sum| sum.credits) {
                    add(2, model, sum);
                }
            }
        }
    }
    Ok(laid_out(table, &["Category, tier, model", "Events", "Used", "Share", ""], 1..4))
}

#[derive(Default)]
struct Tiers<'a> {
    sum: Sum,
    by_tier: BTreeMap<&'a str, Models<'a>>,
}

#[derive(Default)]
struct Models<'a> {
    sum: Sum,
    by_model: BTreeMap<&'a str, Sum>,
}

fn nested(kinds: &BTreeMap<Kind, Sum>) -> Result<BTreeMap<&str, Tiers<'_>>> {
    let mut categories: BTreeMap<&str, Tiers<'_>> = BTreeMap::new();
    for ((category, tier, model), sum) in kinds {
        let tiers = categories.entry(category).or_default();
        let models = tiers.by_tier.entry(tier).or_default();
        for total in [&mut tiers.sum, &mut models.sum, models.by_model.entry(model).or_default()] {
            total.add(*sum)?;
        }
    }
    Ok(categories)
}

/// Returns groups by cost, the highest first.
fn dearest<K: Ord, V>(groups: &BTreeMap<K, V>, cost: impl Fn(&V) -> Credits) -> Vec<(&K, &V)> {
    let mut listed: Vec<(&K, &V)> = groups.iter().collect();
    // The sort is stable: equal groups stay in the order of their names.
    listed.sort_by_key(|(_, group)| cost(group).negated());
    listed
}

pub fn months(answered: &[Answered<'_>]) -> Result<String> {
    let header = ["Account", "#", "from", "until", "Began with", "Added", "Used", "Expired", "Rolled on"];
    let mut table = Table::new();
    for (scenario, said) in answered {
        let plan: PlanBody = serde_json::from_value(scenario.plan.body.clone())?;
        let zone = plan.timezone.unwrap_or(Zone::UTC);
        let unit = scenario.account.unit();
        for (place, (index, period)) in said.figures.periods.iter().enumerate() {
            let answered = said.periods.iter().find(|item| item["index"].as_i64() == Some(*index));
            let answered = answered.with_context(|| format!("period {index} is listed"))?;
            let day = |field: &str| {
                Ok::<String, anyhow::Error>(zone.local_day(text(answered, field).parse()?).to_string())
            };
            let open = place + 1 == said.figures.periods.len();
            let ended = |figure: Credits| if open { "open".to_string() } else { money(figure, unit) };
            table.add_row(vec![
                if place == 0 { scenario.id.clone() } else { String::new() },
                index.to_string(),
                day("starts_at")?,
                day("ends_at")?,
                money(period.opened_with, unit),
                money(period.added, unit),
                money(period.used, unit),
                ended(period.expired),
                ended(period.rolled_over),
            ]);
        }
    }
    Ok(laid_out(table, &header, 4..9))
}

/// Events, credits, share and its bar.
fn summed(sum: &Sum, total: Credits, unit: Unit) -> [String; 4] {
    let percent = sum.credits.percent_of(total).unwrap_or_default();
    let tenths = usize::try_from(rounded(percent.units(), HUNDREDTH * 10)).unwrap_or_default();
    let bar = "█".repeat((tenths * BAR_CHARS).div_ceil(1_000));
    let share = format!("{}.{} %", tenths / 10, tenths % 10);
    [counted(usize::try_from(sum.events).unwrap_or(usize::MAX)), money(sum.credits, unit), share, bar]
}

pub fn laid_out(mut table: Table, header: &[&str], numbers: std::ops::Range<usize>) -> String {
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
    table.force_no_tty();
    table.set_header(header.to_vec());
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| format!(" {}", line.trim_end())).collect();
    lines.join("\n")
}

/// Returns `1,234.50`, `-3.00` or `$11.73`.
pub fn money(amount: Credits, unit: Unit) -> String {
    let hundredths = rounded(amount.units(), HUNDREDTH);
    let sign = if hundredths < 0 { "-" } else { "" };
    let dollar = if unit == Unit::Usd { "$" } else { "" };
    let absolute = hundredths.unsigned_abs();
    format!("{sign}{dollar}{}.{:02}", grouped(&(absolute / 100).to_string()), absolute % 100)
}

/// Returns `1,234`.
pub fn counted(count: usize) -> String {
    grouped(&count.to_string())
}

/// Rounds half to even.
fn rounded(units: i128, by: i128) -> i128 {
    let (down, rest) = (units.div_euclid(by), units.rem_euclid(by));
    let up = rest * 2 > by || (rest * 2 == by && down % 2 != 0);
    down + i128::from(up)
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(amount: &str, unit: Unit, expected: &str) {
        assert_eq!(money(amount.parse().expect("an amount"), unit), expected);
    }

    #[test]
    fn amounts_are_shown_with_two_places() {
        check("1796.039965", Unit::Credits, "1,796.04");
        check("0", Unit::Credits, "0.00");
        check("-3.005", Unit::Credits, "-3.00");
        check("-3.015", Unit::Credits, "-3.02");
        check("-0.001", Unit::Credits, "0.00");
        check("11.72743405", Unit::Usd, "$11.73");
        check("-1234567.5", Unit::Usd, "-$1,234,567.50");
    }

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!(
            ["0", "999", "1000", "11305", "1234567"].map(grouped).join(" "),
            "0 999 1,000 11,305 1,234,567"
        );
    }
}
