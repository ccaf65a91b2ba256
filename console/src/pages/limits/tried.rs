//! Tried: when a rule would have fired in the past.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::Value;

use crate::account::{Account, path_of};
use crate::api::Failure;
use crate::format::{self, Sum, Unit, When};
use crate::visit::Visit;

/// Firings of a preview that are listed, the latest.
pub(super) const HITS: usize = 10;

#[derive(Deserialize)]
pub(super) struct Backtest {
    pub(super) total: u64,
    pub(super) items: Vec<Hit>,
}

#[derive(Deserialize)]
pub(super) struct Hit {
    pub(super) fired_at: Time,
    pub(super) period_index: i64,
    pub(super) subject: String,
    pub(super) figure: Sum,
}

/// What a rule would have notified of.
pub(super) struct Tried {
    pub(super) total: String,
    pub(super) is_none: bool,
    pub(super) periods: usize,
    pub(super) hits: Vec<HitRow>,
    pub(super) has_more: bool,
}

pub(super) struct HitRow {
    /// The user it is about; none for the account.
    pub(super) subject: Option<String>,
    pub(super) day: When,
    pub(super) at: When,
    pub(super) figure: String,
}

/// Returns a figure in the unit of what is watched.
pub(super) fn figure(unit: Unit, basis: &str, figure: Sum) -> String {
    if basis.starts_with("percent") {
        return format::percent_of_api(figure);
    }
    let amount = unit.show(figure).text();
    if unit == Unit::Credits { format!("{amount} {}", unit.word()) } else { amount }
}

/// Asks the API when a rule would have fired.
pub(super) async fn try_out(visit: &Visit, id: &str, basis: &str, rule: &Value) -> Result<Tried, Failure> {
    let path = format!("{}/alerts/backtest", path_of(id));
    let (account, answer) = tokio::join!(visit.account(id), visit.api.post(&path).json(rule).send());
    let (account, answer) = (account?, answer?);
    let answer = serde_json::from_value::<Backtest>(answer);
    let answer = answer.map_err(|_| {
        Failure::new(StatusCode::BAD_GATEWAY, "unreadable", "the ledger's answer can't be read")
    })?;
    Ok(tried(&account, basis, answer))
}

pub(super) fn tried(account: &Account, basis: &str, answer: Backtest) -> Tried {
    let periods: BTreeSet<i64> = answer.items.iter().map(|hit| hit.period_index).collect();
    let row = |hit: &Hit| HitRow {
        subject: Some(hit.subject.clone()).filter(|subject| *subject != account.account_id),
        day: format::day(&hit.fired_at),
        at: format::when(&hit.fired_at),
        figure: figure(account.unit, basis, hit.figure),
    };
    Tried {
        total: format::count(answer.total),
        is_none: answer.total == 0,
        periods: periods.len(),
        hits: answer.items.iter().rev().take(HITS).map(row).collect(),
        has_more: answer.items.len() > HITS,
    }
}
