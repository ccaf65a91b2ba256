//! Runs librdkafka's blocking calls where they hold up no other task.

use super::error::Error;

/// Runs `work` on a thread that may block. A panic in it becomes [`Error::Internal`].
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_this_call_alone() {
        let failed = blocking(|| -> Result<(), Error> { panic!("of a test") }).await;
        assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
        assert_eq!(blocking(|| Ok(7)).await.ok(), Some(7));
    }
}
