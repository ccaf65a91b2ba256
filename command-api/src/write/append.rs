//! Appends one record to the journal.

use ledger_core::value::id::AccountId;
use platform::failpoint;
use platform::kafka::AppendError;
use platform::position::Position;
use tracing::warn;
use web::http::Problem;

use crate::app::App;

/// Appends a record to the journal, and returns its position.
pub async fn append(app: &App, account: &AccountId, record: &[u8]) -> Result<Position, Problem> {
    failpoint::hit("api.before_append");
    let position = app.journal.append(account.as_str(), record.to_vec()).await.map_err(not_appended)?;
    failpoint::hit("api.after_append");
    Ok(position)
}

/// Returns 503: the journal can't take the record, or did not acknowledge it; a retry is harmless.
pub fn not_appended(error: AppendError) -> Problem {
    warn!(%error, "append failed");
    match error {
        AppendError::Unknown(_) => {
            Problem::unavailable("the journal did not acknowledge in time: send the same again")
        }
        AppendError::Busy => Problem::unavailable("the journal can't take it now: send the same again"),
        AppendError::Refused(reason) => Problem::internal(reason),
    }
}
