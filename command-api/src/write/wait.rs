//! Waits until a record is projected, for answers that include its outcome.

use std::collections::HashMap;

use platform::position::Position;
use tracing::warn;

use super::outcome::Progress;
use crate::admission::Admitted;
use crate::app::App;

/// Waits until records are projected, if the caller requests it, and reads their outcomes.
///
/// None: the caller does not wait, or the projection did not get there in time.
pub async fn once_projected<T>(
    app: &App,
    waits: bool,
    records: &[Position],
    outcome: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<Option<T>, sqlx::Error> {
    if !waits || !are_projected(app, records).await {
        return Ok(None);
    }
    outcome.await.map(Some)
}

async fn are_projected(app: &App, records: &[Position]) -> bool {
    let mut last: HashMap<i32, Position> = HashMap::new();
    for position in records {
        let known = last.entry(position.partition).or_insert(*position);
        *known = (*known).max(*position);
    }
    let deadline = app.waiter.deadline();
    for position in last.into_values() {
        if !app.waiter.wait_for(position, deadline).await {
            return false;
        }
    }
    true
}

/// Returns the outcome, or `waiting` on an error: the record is stored, so an answer without its outcome is correct and
/// a refusal would not be.
pub fn known_or_waiting<T>(found: Result<Option<T>, sqlx::Error>, waiting: T) -> T {
    match found {
        Ok(found) => found.unwrap_or(waiting),
        Err(error) => {
            warn!(%error, "outcome could not be read");
            waiting
        }
    }
}

/// Reopens the hold at once, not at the next round of upkeep, if the usage that settles it had no effect.
pub async fn reopen_hold(app: &App, admitted: &Admitted, progress: &Progress, charged_before: bool) {
    if admitted.hold.settled().is_some() && (progress.came_to_nothing() || charged_before) {
        app.holds.sweep(&admitted.account).await;
    }
}
