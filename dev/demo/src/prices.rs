//! Prices: the demo's two rate cards, and the charge for a quantity.
//!
//! The demo computes its expected sums here and in `reference`, never from what the ledger charged.

use ledger_core::value::credits::{Credits, OutOfRange};
use serde_json::{Value, json};

/// Tokens are priced by the million.
const MILLION: i64 = 1_000_000;
/// Seconds in a minute.
const MINUTE: i64 = 60;
/// What a credit is worth: 0.01 USD.
const CREDITS_PER_USD: i128 = 100;

/// What one kind of work costs.
#[derive(Debug, PartialEq, Eq)]
pub struct Meter {
    /// The usage's category.
    pub category: &'static str,
    /// The model, where there is one.
    pub model: Option<Model>,
    /// The kind of image.
    pub kind: Option<&'static str>,
    /// Price of each quantity, in credits.
    pub prices: &'static [Price],
}

/// A model as the demo sells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    pub name: &'static str,
    /// The company that runs it.
    pub provider: &'static str,
    pub tier: &'static str,
}

/// `credits` for every `per` of a quantity.
#[derive(Debug, PartialEq, Eq)]
pub struct Price {
    /// What is counted.
    pub quantity: &'static str,
    /// Price in credits.
    pub credits: Credits,
    /// For how many.
    pub per: i64,
}

/// The unit of an account's amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Credits of 0.01 USD.
    Credits,
    /// US dollars.
    Usd,
}

const fn price(quantity: &'static str, thousandths: i128, per: i64) -> Price {
    Price { quantity, credits: Credits::from_units(thousandths * 1_000_000), per }
}

const fn llm(
    name: &'static str,
    provider: &'static str,
    tier: &'static str,
    prices: &'static [Price],
) -> Meter {
    Meter { category: "ai_usage", model: Some(Model { name, provider, tier }), kind: None, prices }
}

const fn other(category: &'static str, prices: &'static [Price]) -> Meter {
    Meter { category, model: None, kind: None, prices }
}

const fn tokens(input: i128, output: i128) -> [Price; 2] {
    [price("input_tokens", input * 1_000, MILLION), price("output_tokens", output * 1_000, MILLION)]
}

/// The models, cheapest first. Example prices; the local one is free and has price 0.
pub static MODELS: [Meter; 7] = [
    llm("llama-local", "own", "local", &const { tokens(0, 0) }),
    llm("gpt-4o-mini", "openai", "basic", &const { tokens(15, 60) }),
    llm("claude-haiku", "anthropic", "basic", &const { tokens(80, 400) }),
    llm("gpt-4o", "openai", "advanced", &const { tokens(250, 1_000) }),
    llm("claude-sonnet", "anthropic", "advanced", &const { tokens(300, 1_500) }),
    llm("o1", "openai", "premium", &const { tokens(1_500, 6_000) }),
    llm("claude-opus", "anthropic", "premium", &const { tokens(1_500, 7_500) }),
];

const IMAGE_MODEL: Model = Model { name: "gpt-image", provider: "openai", tier: "images" };

pub static IMAGE_SD: Meter = Meter {
    category: "ai_usage",
    model: Some(IMAGE_MODEL),
    kind: Some("image_sd"),
    prices: &[price("images", 4_000, 1)],
};
pub static IMAGE_HD: Meter = Meter {
    category: "ai_usage",
    model: Some(IMAGE_MODEL),
    kind: Some("image_hd"),
    prices: &[price("images", 8_000, 1)],
};
/// A running sandbox: 1 a minute.
pub static RUNTIME: Meter = other("compute_runtime", &[price("seconds", 1_000, MINUTE)]);
/// A finished task: 0.25.
pub static TASK: Meter = other("tasks_completed", &[price("tasks", 250, 1)]);
/// A phone call: 3 a minute.
pub static VOICE: Meter = other("voice_calls", &[price("seconds", 3_000, MINUTE)]);
/// A meeting attended: 1.5 a minute.
pub static MEETING: Meter = other("meetings", &[price("seconds", 1_500, MINUTE)]);
/// A call of a connected app: 0.05.
pub static APP_CALL: Meter = other("tool_calls", &[price("calls", 50, 1)]);
/// Internal work: free.
pub static INTERNAL: Meter = other("internal", &[price("calls", 0, 1)]);

impl Meter {
    /// Prices quantities: each line rounded half-even to 9 places, then added.
    pub fn charge(&self, quantities: &[(&'static str, u64)], unit: Unit) -> Result<Credits, OutOfRange> {
        let mut total = Credits::ZERO;
        for &(name, count) in quantities {
            let price = self.prices.iter().find(|price| price.quantity == name).ok_or(OutOfRange)?;
            let count = Credits::whole(i64::try_from(count).map_err(|_| OutOfRange)?);
            let line = count.mul_div_half_even(in_unit(price.credits, unit), Credits::whole(price.per))?;
            total = total.plus(line)?;
        }
        Ok(total)
    }

    /// Returns the meter as the rate card's JSON.
    fn json(&self, unit: Unit) -> Value {
        let mut matches = serde_json::Map::new();
        if let Some(model) = self.model {
            matches.insert("model".into(), json!(model.name));
            matches.insert("tier".into(), json!(model.tier));
        }
        if let Some(kind) = self.kind {
            matches.insert("kind".into(), json!(kind));
        }
        let prices: serde_json::Map<String, Value> =
            self.prices.iter().map(|price| (price.quantity.into(), price.json(unit))).collect();
        json!({ "category": self.category, "match": matches, "prices": prices })
    }
}

impl Price {
    fn json(&self, unit: Unit) -> Value {
        json!({ "credits": in_unit(self.credits, unit), "per": Credits::whole(self.per) })
    }
}

fn in_unit(credits: Credits, unit: Unit) -> Credits {
    match unit {
        Unit::Credits => credits,
        // Exact: no price of the demo is finer than a thousandth of a credit.
        Unit::Usd => Credits::from_units(credits.units() / CREDITS_PER_USD),
    }
}

/// Returns the body of `PUT /v1/rate-cards/{card}`.
pub fn rate_card(unit: Unit) -> Value {
    let others = [&IMAGE_SD, &IMAGE_HD, &RUNTIME, &TASK, &VOICE, &MEETING, &APP_CALL, &INTERNAL];
    let meters: Vec<Value> = MODELS.iter().chain(others).map(|meter| meter.json(unit)).collect();
    json!({ "meters": meters })
}

#[cfg(test)]
mod tests {
    use ledger_core::event::Usage;
    use ledger_core::policy::rate_card::RateCard;
    use ledger_core::value::id::RateCardId;

    use super::*;

    fn check(meter: &Meter, unit: Unit, quantities: &[(&'static str, u64)], expected: &str) {
        let charged = meter.charge(quantities, unit).expect("a price");
        assert_eq!(charged.to_string(), expected, "{meter:?}");
        assert_eq!(by_the_ledger(meter, unit, quantities), expected, "{meter:?} by the ledger's own rules");
    }

    fn by_the_ledger(meter: &Meter, unit: Unit, quantities: &[(&'static str, u64)]) -> String {
        let card: RateCard = serde_json::from_value(rate_card(unit)).expect("a card");
        let counts: serde_json::Map<String, Value> =
            quantities.iter().map(|(name, count)| ((*name).into(), json!(count))).collect();
        let mut usage = json!({ "category": meter.category, "quantities": counts, "kind": meter.kind });
        if let Some(model) = meter.model {
            usage["model"] = json!(model.name);
            usage["tier"] = json!(model.tier);
        }
        let usage: Usage = serde_json::from_value(usage).expect("usage");
        let (_, credits) = card.price(&usage, &RateCardId::new("demo").expect("an id"), 1).expect("priced");
        credits.to_string()
    }

    #[test]
    fn work_costs_what_the_card_says() {
        check(&MODELS[3], Unit::Credits, &[("input_tokens", 4_808), ("output_tokens", 10)], "1.212");
        check(&MODELS[3], Unit::Usd, &[("input_tokens", 4_808), ("output_tokens", 10)], "0.01212");
        check(&MODELS[0], Unit::Credits, &[("input_tokens", 4_808), ("output_tokens", 10)], "0");
        check(&RUNTIME, Unit::Credits, &[("seconds", 100)], "1.666666667");
        check(&TASK, Unit::Credits, &[("tasks", 1)], "0.25");
        check(&VOICE, Unit::Credits, &[("seconds", 90)], "4.5");
        check(&MEETING, Unit::Credits, &[("seconds", 60)], "1.5");
        check(&IMAGE_SD, Unit::Credits, &[("images", 1)], "4");
        check(&IMAGE_HD, Unit::Credits, &[("images", 1)], "8");
        check(&APP_CALL, Unit::Credits, &[("calls", 3)], "0.15");
        check(&INTERNAL, Unit::Credits, &[("calls", 1)], "0");
    }
}
