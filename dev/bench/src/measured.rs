//! A measured figure next to its ceiling, and quantiles of samples.

use serde::Serialize;

/// One measured figure and its ceiling.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub bench: &'static str,
    /// What the figure counts, such as `events/s`.
    pub unit: &'static str,
    pub value: f64,
    /// What the ceiling is, in words.
    pub ceiling_is: &'static str,
    /// The ceiling, in the same unit and run.
    pub ceiling: f64,
    /// Value ÷ ceiling.
    pub ratio: f64,
    /// The target: for the ratio, or for the value where the unit says so.
    pub aim: &'static str,
    /// Further measurements.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub more: serde_json::Value,
}

impl Measured {
    /// Puts a figure next to its ceiling.
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

/// Returns the value below which this share of the samples lies; 0 without samples.
pub fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    // The first at or above the share, so that a share near 1 never flatters.
    let at = (0..=last).find(|at| *at as f64 >= last as f64 * share);
    at.and_then(|at| samples.get(at)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_sample_and_never_flatters() {
        let mut samples: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut samples, 0.5), 6.0);
        assert_eq!(quantile(&mut samples, 0.99), 10.0);
        assert_eq!(quantile(&mut [], 0.99), 0.0);
    }
}
