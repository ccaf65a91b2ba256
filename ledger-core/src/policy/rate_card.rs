//! Rate cards: what each quantity of usage costs.
//!
//! A version of a card never changes, and a usage event carries the lines it was charged by, so a replay never re-prices.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::event::{Line, Usage};
use crate::value::credits::{Credits, OutOfRange, Quantity};
use crate::value::id::{Label, OutsideName, RateCardId, Slug};

/// Prices of an account's usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NewRateCard")]
#[serde(deny_unknown_fields)]
pub struct RateCard {
    /// The most specific matching meter applies.
    #[serde(deserialize_with = "crate::event::shape::objects")]
    pub meters: Vec<Meter>,
}

/// Prices of one category, or of one model, tier, provider or kind within it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Meter {
    pub category: Slug,
    /// Further conditions of the meter.
    #[serde(
        default,
        rename = "match",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::event::shape::object_or_null"
    )]
    pub matches: Option<Match>,
    #[serde(deserialize_with = "crate::event::shape::objects_by_name")]
    #[schemars(with = "Prices")]
    pub prices: BTreeMap<Slug, Price>,
}

/// Conditions on usage; absent keys match anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "MeterMatch")]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "named as in the contract")]
pub struct Match {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<OutsideName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<OutsideName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Label>,
}

/// `credits` for every `per` units of a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "UnitPrice")]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// In the account's unit.
    pub credits: Credits,
    pub per: Credits,
}

/// Prices by the quantity's name, as the documents of the APIs name them.
pub struct Prices;

impl JsonSchema for Prices {
    fn schema_name() -> Cow<'static, str> {
        "Prices".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let price = generator.subschema_for::<Price>();
        json_schema!({
            "description": "What each quantity costs, by the quantity's name.",
            "type": "object",
            "additionalProperties": price,
        })
    }
}

/// Why usage has no price. Such usage is refused; free usage needs a price of 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpriced {
    #[error("neither credits nor quantities are given")]
    NothingToPrice,
    #[error("rate card {card} has no meter for category {category}")]
    NoMeter { card: RateCardId, category: String },
    #[error("rate card {card} has no price for quantity {quantity} of category {category}")]
    NoPrice { card: RateCardId, category: String, quantity: Slug },
    /// The price exceeds the largest amount.
    #[error("the price of quantity {0} is out of range")]
    OutOfRange(Slug),
}

impl Meter {
    /// Returns the quality of the match: the number of matching keys, then model over tier over provider over
    /// kind; `None` if the meter does not match.
    fn fit(&self, usage: &Usage) -> Option<(u32, u32)> {
        if usage.category.as_ref() != Some(&self.category) {
            return None;
        }
        let Some(matches) = &self.matches else { return Some((0, 0)) };
        let keys = [
            (text(&matches.model), text(&usage.model), 8),
            (text(&matches.tier), text(&usage.tier), 4),
            (text(&matches.provider), text(&usage.provider), 2),
            (text(&matches.kind), text(&usage.kind), 1),
        ];
        let (mut count, mut weight) = (0, 0);
        for (wanted, given, key_weight) in keys {
            if wanted.is_none() {
                continue;
            }
            if wanted != given {
                return None;
            }
            count += 1;
            weight += key_weight;
        }
        Some((count, weight))
    }
}

fn text<T: AsRef<str>>(name: &Option<T>) -> Option<&str> {
    name.as_ref().map(AsRef::as_ref)
}

impl RateCard {
    /// Returns the pairs of meters that match the same usage, by their places: the second of a pair never applies.
    pub fn same_matches(&self) -> Vec<(usize, usize)> {
        let mut first: BTreeMap<(&Slug, [Option<&str>; 4]), usize> = BTreeMap::new();
        let mut pairs = Vec::new();
        for (at, meter) in self.meters.iter().enumerate() {
            let keys = meter.matches.as_ref().map_or([None; 4], |matches| {
                [text(&matches.model), text(&matches.tier), text(&matches.provider), text(&matches.kind)]
            });
            match first.entry((&meter.category, keys)) {
                Entry::Vacant(entry) => drop(entry.insert(at)),
                Entry::Occupied(entry) => pairs.push((*entry.get(), at)),
            }
        }
        pairs
    }

    /// Prices the quantities of a usage by version `version` of the card named `card`.
    ///
    /// Quantities of 0 need no price and add no line.
    pub fn price(
        &self,
        usage: &Usage,
        card: &RateCardId,
        version: u32,
    ) -> Result<(Vec<Line>, Credits), Unpriced> {
        let quantities =
            usage.quantities.as_ref().filter(|q| !q.is_empty()).ok_or(Unpriced::NothingToPrice)?;
        let category = || usage.category.as_ref().map_or_else(|| "(none)".into(), ToString::to_string);
        let meter = self
            .best_meter(usage)
            .ok_or_else(|| Unpriced::NoMeter { card: card.clone(), category: category() })?;
        let mut lines = Vec::with_capacity(quantities.len());
        let mut total = Credits::ZERO;
        for (quantity, amount) in quantities {
            if amount.amount().is_zero() {
                continue;
            }
            let price = meter.prices.get(quantity).ok_or_else(|| Unpriced::NoPrice {
                card: card.clone(),
                category: category(),
                quantity: quantity.clone(),
            })?;
            let out_of_range = |_: OutOfRange| Unpriced::OutOfRange(quantity.clone());
            let credits = charge(*amount, price).map_err(out_of_range)?;
            total = total.plus(credits).map_err(out_of_range)?;
            if total > Credits::MAX_AMOUNT {
                return Err(Unpriced::OutOfRange(quantity.clone()));
            }
            lines.push(Line {
                quantity: quantity.clone(),
                amount: *amount,
                unit_credits: price.credits,
                per: price.per,
                credits,
                rate_card: card.clone(),
                version,
            });
        }
        Ok((lines, total))
    }

    /// Returns the best match; among equals the first in the card.
    fn best_meter(&self, usage: &Usage) -> Option<&Meter> {
        let mut best: Option<(&Meter, (u32, u32))> = None;
        for meter in &self.meters {
            let Some(fit) = meter.fit(usage) else { continue };
            if best.is_none_or(|(_, best_fit)| fit > best_fit) {
                best = Some((meter, fit));
            }
        }
        best.map(|(meter, _)| meter)
    }
}

fn charge(amount: Quantity, price: &Price) -> Result<Credits, OutOfRange> {
    amount.amount().mul_div_half_even(price.credits, price.per)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str = r#"{"meters":[
        {"category":"ai_usage","prices":{"input_tokens":{"credits":"1","per":"1000"}}},
        {"category":"ai_usage","match":{"tier":"pro"},"prices":{"input_tokens":{"credits":"2","per":"1000"}}},
        {"category":"ai_usage","match":{"model":"m"},"prices":{"input_tokens":{"credits":"3","per":"1000"}}},
        {"category":"ai_usage","match":{"tier":"pro","kind":"k"},"prices":{"input_tokens":{"credits":"4","per":"1000"}}},
        {"category":"free","prices":{"calls":{"credits":"0","per":"1"}}},
        {"category":"thirds","prices":{"x":{"credits":"1","per":"3"},"half":{"credits":"0.000000001","per":"2"}}}]}"#;

    fn check(usage: &str, expected: &str) {
        let card: RateCard = serde_json::from_str(CARD).expect("a card");
        let usage: Usage = serde_json::from_str(usage).expect("usage");
        let actual = match card.price(&usage, &RateCardId::new("std").expect("an id"), 7) {
            Ok((lines, total)) => format!("{total} in {} lines", lines.len()),
            Err(error) => error.to_string(),
        };
        assert_eq!(actual, expected, "{usage:?}");
    }

    #[test]
    fn the_meter_with_the_most_matching_keys_wins() {
        check(r#"{"category":"ai_usage","quantities":{"input_tokens":1000}}"#, "1 in 1 lines");
        check(r#"{"category":"ai_usage","tier":"pro","quantities":{"input_tokens":1000}}"#, "2 in 1 lines");
        check(
            r#"{"category":"ai_usage","tier":"pro","kind":"k","model":"m","quantities":{"input_tokens":1000}}"#,
            "4 in 1 lines",
        );
    }

    #[test]
    fn on_a_tie_model_wins_over_tier() {
        check(
            r#"{"category":"ai_usage","tier":"pro","model":"m","quantities":{"input_tokens":1000}}"#,
            "3 in 1 lines",
        );
    }

    #[test]
    fn a_quantity_without_a_price_refuses_the_event() {
        check(
            r#"{"category":"ai_usage","quantities":{"input_tokens":1000,"images":1}}"#,
            "rate card std has no price for quantity images of category ai_usage",
        );
        check(r#"{"category":"ai_usage","quantities":{"input_tokens":1000,"images":0}}"#, "1 in 1 lines");
    }

    #[test]
    fn unpriced_usage_is_refused_and_free_usage_stands_at_0() {
        check(
            r#"{"category":"other","quantities":{"x":1}}"#,
            "rate card std has no meter for category other",
        );
        check(r#"{"category":"ai_usage"}"#, "neither credits nor quantities are given");
        check(r#"{"category":"free","quantities":{"calls":9}}"#, "0 in 1 lines");
    }

    #[test]
    fn each_line_is_rounded_half_even_to_nine_places() {
        check(r#"{"category":"thirds","quantities":{"x":1}}"#, "0.333333333 in 1 lines");
        check(r#"{"category":"thirds","quantities":{"x":2}}"#, "0.666666667 in 1 lines");
        check(r#"{"category":"thirds","quantities":{"half":1}}"#, "0 in 1 lines");
        check(r#"{"category":"thirds","quantities":{"half":3}}"#, "0.000000002 in 1 lines");
    }
}
