//! A field of a body that breaks a rule.

use crate::value::credits::Credits;

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct FieldError {
    /// Path as sent: `plan.anchor`, `data.credits`.
    pub field: String,
    /// Stable code of the rule.
    pub code: String,
    pub detail: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        Self { field: field.into(), code: code.into(), detail: detail.into() }
    }
}

/// Adds an error for a field if `bad`.
pub(crate) fn refuse(errors: &mut Vec<FieldError>, bad: bool, field: &str, code: &str, detail: &str) {
    if bad {
        errors.push(FieldError::new(field, code, detail));
    }
}

pub(crate) fn not_negative(errors: &mut Vec<FieldError>, field: &str, amount: Option<Credits>) {
    refuse(errors, amount.is_some_and(Credits::is_negative), field, "negative", "must not be negative");
}

pub(crate) fn positive(errors: &mut Vec<FieldError>, field: &str, amount: Credits) {
    refuse(errors, !amount.is_positive(), field, "not_positive", "must be above 0");
}
