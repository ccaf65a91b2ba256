//! Lots: what is left of an account's credits, by where they come from.

use ledger_core::value::time::Time;
use serde::Deserialize;

use crate::format::Sum;

/// A lot, as the balance lists it.
#[derive(Debug, Clone, Deserialize)]
pub struct Lot {
    source: String,
    remaining: Sum,
    effective_at: Time,
}

/// Where credits come from, in the order in which they burn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Allowance,
    Rollover,
    Bought,
    Given,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Allowance, Kind::Rollover, Kind::Bought, Kind::Given];

    fn of(source: &str) -> Kind {
        match source {
            "plan" => Kind::Allowance,
            "rollover" => Kind::Rollover,
            "purchase" | "top_up" => Kind::Bought,
            _ => Kind::Given,
        }
    }

    /// Returns its class in charts and its label.
    pub const fn shown(self) -> (&'static str, &'static str) {
        match self {
            Kind::Allowance => ("allowance", "Allowance"),
            Kind::Rollover => ("rollover", "Rollover"),
            Kind::Bought => ("bought", "Bought"),
            Kind::Given => ("given", "Given"),
        }
    }
}

/// Returns what is left of each kind in the lots in force at this time.
pub fn left(lots: &[Lot], now: Time) -> [(Kind, Sum); Kind::ALL.len()] {
    let in_force =
        |kind: Kind| lots.iter().filter(move |lot| lot.effective_at <= now && Kind::of(&lot.source) == kind);
    let sum = |kind| in_force(kind).fold(Sum::ZERO, |sum, lot| sum.plus(lot.remaining));
    Kind::ALL.map(|kind| (kind, sum(kind)))
}

/// Returns what is left of one kind.
pub fn left_of(lots: &[Lot], now: Time, kind: Kind) -> Sum {
    left(lots, now).into_iter().find(|(of, _)| *of == kind).map_or(Sum::ZERO, |(_, sum)| sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_in_force_are_summed_by_where_they_come_from() {
        let lot = |source: &str, remaining: &str, effective_at: &str| {
            let lot =
                serde_json::json!({"source": source, "remaining": remaining, "effective_at": effective_at});
            serde_json::from_value::<Lot>(lot).expect("a lot")
        };
        let (past, next) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let lots = [
            lot("plan", "5", past),
            lot("purchase", "1", past),
            lot("top_up", "2", past),
            lot("welcome", "3", past),
            lot("promo", "4", next),
        ];
        let now = "2026-01-15T00:00:00Z".parse().expect("a time");
        let sums = left(&lots, now).map(|(_, sum)| sum.0.to_string());
        assert_eq!(sums, ["5", "0", "3", "3"]);
        let later = next.parse().expect("a time");
        assert_eq!(left_of(&lots, later, Kind::Given).0.to_string(), "7");
    }
}
