//! Failures: why a webhook was not called, or did not answer.

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Another attempt may succeed.
    #[error("{0}")]
    Retry(String),
    /// No attempt can succeed before a person changes something.
    #[error("{0}")]
    Park(String),
}

impl Failure {
    pub(crate) fn retry(reason: impl std::fmt::Display) -> Failure {
        Failure::Retry(reason.to_string())
    }

    pub(crate) fn park(reason: impl std::fmt::Display) -> Failure {
        Failure::Park(reason.to_string())
    }
}
