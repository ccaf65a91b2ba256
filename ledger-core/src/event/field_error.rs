//! A field of a body that breaks a rule.

use crate::value::credits::Credits;

/// One field that breaks one rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// Path as sent: `plan.anchor`, `data.credits`.
    pub field: String,
    /// Stable code of the rule.
    pub code: String,
    pub detail: String,
}

impl FieldError {
    /// Names a field, the code of the rule it breaks, and the rule.
    pub fn new(field: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        Self { field: field.into(), code: code.into(), detail: detail.into() }
    }
}

/// Names a field where it is bad.
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
