//! Decisions: why work of a user was refused, as a sum that a person can check.

use ledger_core::value::time::Time;
use serde::Deserialize;

use crate::api::{Failure, List};
use crate::chart::{self, Part, Svg};
use crate::format::{self, Amount, Sum, Unit, When};

/// A refusal so long before the time that was typed still is the one that is meant.
pub(super) const NEAR_MICROS: i64 = 5 * 60 * 1_000_000;

/// A decision about work, with the figures that it was made from.
#[derive(Deserialize)]
pub(super) struct Decision {
    pub(super) decided_at: Time,
    pub(super) kind: String,
    pub(super) allowed: bool,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    pub(super) reservation_id: Option<String>,
    pub(super) feature: Option<String>,
    pub(super) amount: Option<Sum>,
    pub(super) settled: Option<Sum>,
    pub(super) available: Option<Sum>,
    pub(super) floor: Option<Sum>,
    pub(super) limit: Option<Sum>,
    pub(super) used: Sum,
    pub(super) held: Sum,
    pub(super) resets_at: Time,
}

/// The answer to "why was this user blocked at 10:04".
pub(super) enum Answer {
    NotATime,
    Nothing,
    Earlier(Box<Explained>),
    Found(Box<Explained>),
    Failed(Failure),
}

/// A decision as a sum that a person can check.
pub(super) struct Explained {
    pub(super) at: When,
    pub(super) allowed: bool,
    pub(super) heading: String,
    pub(super) message: String,
    pub(super) feature: String,
    pub(super) kind: String,
    pub(super) reservation: Option<String>,
    pub(super) figures: Vec<(&'static str, Amount)>,
    pub(super) verdict: Option<(String, Amount)>,
    pub(super) bar: Option<Svg>,
    pub(super) resets: When,
    pub(super) is_limit: bool,
}

pub(super) fn answer(unit: Unit, at: &str, asked: Option<Result<List<Decision>, Failure>>) -> Option<Answer> {
    if at.is_empty() {
        return None;
    }
    let (Some(at), Some(asked)) = (time_of(at), asked) else { return Some(Answer::NotATime) };
    Some(match asked.map(|list| list.items.into_iter().next()) {
        Err(failure) => Answer::Failed(failure),
        Ok(None) => Answer::Nothing,
        Ok(Some(found)) => {
            let explained = Box::new(explained(unit, &found));
            let is_near = at.minus(found.decided_at) <= NEAR_MICROS;
            if is_near { Answer::Found(explained) } else { Answer::Earlier(explained) }
        }
    })
}

pub(super) fn explained(unit: Unit, one: &Decision) -> Explained {
    let is_limit = one.code.as_deref() == Some("user_limit_reached");
    let asked = one.amount.unwrap_or(Sum::ZERO);
    let (figures, verdict, bar) = match (is_limit, one.limit, one.available) {
        (true, Some(limit), _) => by_limit(unit, one, asked, limit),
        (false, _, Some(available)) => by_balance(unit, one, asked, available),
        _ => (vec![("Used", unit.show(one.used)), ("Held", unit.show(one.held))], None, None),
    };
    let heading = match one.code.as_deref() {
        None => "Allowed".to_owned(),
        Some("user_limit_reached") => "Refused: the limit of this user is reached".to_owned(),
        Some("credits_exhausted") => "Refused: the account has not enough credits".to_owned(),
        Some(other) => format!("Refused: {}", format::words(other).to_lowercase()),
    };
    let kind = match one.kind.as_str() {
        "check" => "asked whether work may start",
        "reserve" => "asked for a hold",
        "extend" => "asked for a larger hold",
        other => other,
    };
    Explained {
        at: format::exactly(&one.decided_at),
        allowed: one.allowed,
        heading,
        message: one.message.clone().unwrap_or_default(),
        feature: one.feature.clone().unwrap_or_default(),
        kind: kind.to_owned(),
        reservation: one.reservation_id.clone(),
        figures,
        verdict: verdict.filter(|_| !one.allowed),
        bar,
        resets: format::when(&one.resets_at),
        is_limit,
    }
}

/// The figures of a decision, what was missing, and a picture of both.
pub(super) type Reckoned = (Vec<(&'static str, Amount)>, Option<(String, Amount)>, Option<Svg>);

pub(super) fn by_limit(unit: Unit, one: &Decision, asked: Sum, limit: Sum) -> Reckoned {
    let all = one.used.plus(one.held).plus(asked);
    let mut figures = vec![("Used", unit.show(one.used)), ("Held for work in progress", unit.show(one.held))];
    if one.amount.is_some() {
        figures.push(("Asked for", unit.show(asked)));
    }
    figures.push(("Together", unit.show(all)));
    figures.push(("Limit", unit.show(limit)));
    let over = all.minus(limit);
    let verdict = match over.is_positive() {
        true => ("Too much by".to_owned(), unit.show(over)),
        false => ("Left of the limit".to_owned(), unit.show(limit.minus(all))),
    };
    let part =
        |class, sum, label: &str| Part { class, sum, label: format!("{label}: {}", unit.show(sum).text()) };
    let parts = [
        part("allowance", one.used, "Used"),
        part("held", one.held, "Held"),
        part("depleted", asked, "Asked for"),
    ];
    let title = format!("{} against a limit of {}", unit.show(all).text(), unit.show(limit).text());
    (figures, Some(verdict), Some(chart::bar(&title, &parts, all.max(limit))))
}

pub(super) fn by_balance(unit: Unit, one: &Decision, asked: Sum, available: Sum) -> Reckoned {
    let mut figures = Vec::new();
    if let Some(settled) = one.settled {
        figures.push(("Balance of the account", unit.show(settled)));
        figures.push(("Held by all", unit.show(settled.minus(available))));
    }
    figures.push(("Available", unit.show(available)));
    if one.amount.is_some() {
        figures.push(("Asked for", unit.show(asked)));
    }
    let floor = one.floor.unwrap_or(Sum::ZERO);
    if floor.is_negative() {
        figures.push(("Lowest balance that is allowed", unit.show(floor)));
    }
    let missing = asked.minus(available.minus(floor));
    let verdict = missing.is_positive().then(|| ("Missing".to_owned(), unit.show(missing)));
    (figures, verdict, None)
}

/// Reads the time of a form: in UTC, where it names no zone.
pub(super) fn time_of(text: &str) -> Option<Time> {
    let seconds = if text.matches(':').count() == 1 { ":00" } else { "" };
    text.parse().or_else(|_| format!("{text}{seconds}Z").parse()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decision(text: &str) -> Decision {
        let mut fields = json!({"decided_at": "2026-03-03T10:04:05Z", "kind": "reserve", "allowed": false,
            "used": "488", "held": "5", "resets_at": "2026-04-01T00:00:00Z"});
        let more: serde_json::Value = serde_json::from_str(text).expect("JSON");
        for (name, value) in more.as_object().expect("an object") {
            fields[name] = value.clone();
        }
        serde_json::from_value(fields).expect("a decision")
    }

    fn check(fields: &str, expected: &str) {
        let explained = explained(Unit::Credits, &decision(fields));
        let mut said: Vec<String> =
            explained.figures.iter().map(|(name, amount)| format!("{name} {}", amount.text())).collect();
        said.extend(explained.verdict.iter().map(|(name, amount)| format!("{name} {}", amount.text())));
        assert_eq!(said.join(", "), expected, "{fields}");
    }

    #[test]
    fn a_refusal_is_a_sum_that_can_be_checked() {
        check(
            r#"{"code":"user_limit_reached","limit":"500","amount":"12"}"#,
            "Used 488, Held for work in progress 5, Asked for 12, Together 505, Limit 500, Too much by 5",
        );
        check(
            r#"{"code":"user_limit_reached","limit":"493"}"#,
            "Used 488, Held for work in progress 5, Together 493, Limit 493, Left of the limit 0",
        );
        check(
            r#"{"code":"credits_exhausted","settled":"30","available":"10","floor":"-5","amount":"40"}"#,
            "Balance of the account 30, Held by all 20, Available 10, Asked for 40, \
             Lowest balance that is allowed \u{2212}5, Missing 25",
        );
        // A member is not shown the account's figures.
        check(r#"{"code":"credits_exhausted","amount":"40"}"#, "Used 488, Held 5");
    }

    #[test]
    fn a_time_without_a_zone_is_utc() {
        let expected: Time = "2026-03-03T10:04:00Z".parse().expect("a time");
        for typed in ["2026-03-03T10:04", "2026-03-03T10:04:00", "2026-03-03T11:04:00+01:00"] {
            assert_eq!(time_of(typed), Some(expected), "{typed}");
        }
        assert_eq!(time_of("at ten"), None);
    }
}
