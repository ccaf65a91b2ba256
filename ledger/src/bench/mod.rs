//! Benchmarks: each a ratio to a ceiling measured in the same run, printed as one line of JSON.
//!
//! Absolute figures say more about the machine than about the ledger; ratios travel.

pub mod fold;

use serde::Serialize;

/// One measured figure beside what bounds it.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Which benchmark.
    pub bench: &'static str,
    /// What the figure counts, such as `events/s`.
    pub unit: &'static str,
    /// Ours.
    pub value: f64,
    /// What the ceiling is, in words.
    pub ceiling_is: &'static str,
    /// The ceiling, in the same unit and run.
    pub ceiling: f64,
    /// Value ÷ ceiling.
    pub ratio: f64,
    /// What we want: of the ratio, or of the value where the unit says so.
    pub aim: &'static str,
    /// What else was measured.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub more: serde_json::Value,
}

impl Measured {
    /// Puts a figure beside its ceiling.
    pub fn new(
        bench: &'static str,
        unit: &'static str,
        value: f64,
        ceiling: (&'static str, f64),
        aim: &'static str,
    ) -> Self {
        Self {
            bench,
            unit,
            value: value.round(),
            ceiling_is: ceiling.0,
            ceiling: ceiling.1.round(),
            ratio: (value / ceiling.1 * 1000.0).round() / 1000.0,
            aim,
            more: serde_json::Value::Null,
        }
    }
}
