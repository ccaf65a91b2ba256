//! Why a round of delivery failed.

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("a notification can't be put in words: {0}")]
    Words(#[from] askama::Error),
    #[error("a firing can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}
