//! Field errors: one field that breaks one rule, as callers are told of it.

/// One field that breaks one rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// Path as sent: `plan.anchor`, `data.credits`.
    pub field: String,
    /// Stable code of the rule.
    pub code: String,
    /// The rule in words.
    pub detail: String,
}

impl FieldError {
    /// Names a field, the code of the rule it breaks, and the rule.
    pub fn new(field: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        Self { field: field.into(), code: code.into(), detail: detail.into() }
    }
}
