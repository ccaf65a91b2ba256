//! Appends admitted usage, waits for it, and answers.

use axum::response::Response;
use platform::failpoint;
use platform::position::Position;
use web::http::Problem;

use super::answer::Written;
use super::append::{append, not_appended};
use super::first::earlier;
use super::outcome::{self, Progress};
use super::wait::{known_or_waiting, once_projected, reopen_hold};
use crate::admission::{Admitted, Form};
use crate::app::App;

/// Appends a record and answers with its outcome, if the caller waits for it.
pub async fn append_and_answer(
    app: &App,
    admitted: Admitted,
    form: Form,
    waits: bool,
) -> Result<Response, Problem> {
    let position = append_one(app, &admitted).await?;
    let progress = async {
        let records = [(admitted.account.clone(), position)];
        outcome::progress(&app.pool, app.waiter.schema(), &records).await
    };
    let found = known_or_waiting(once_projected(app, waits, &[position], progress).await, Vec::new());
    let progress = match found.into_iter().next() {
        // Usage of a halted account is accepted: the work happened, and a newer program will fold it.
        None | Some(Progress::Halted) => Progress::Waiting,
        Some(progress) => progress,
    };
    let earlier = earlier(&app.pool, app.waiter.schema(), &[(&admitted.bytes, &progress)], form).await;
    let earlier = earlier.into_iter().next().unwrap_or_default();
    reopen_hold(app, &admitted, &progress, earlier.duplicate_of.is_some()).await;
    let Admitted { account, id, hold, .. } = admitted;
    Ok(Written::answer_usage(account.as_str(), id.as_str(), position, &progress, hold.settled(), earlier))
}

/// Appends a record, and records its position in the hold that it settles.
pub async fn append_one(app: &App, admitted: &Admitted) -> Result<Position, Problem> {
    let position = append(app, &admitted.account, &admitted.bytes).await?;
    admitted.landed(app, position).await;
    Ok(position)
}

/// Appends all records. An error does not say which one failed: sending all of them again is always safe.
pub async fn append_all(app: &App, admitted: &[Admitted]) -> Result<Vec<Position>, Problem> {
    failpoint::hit("api.before_append");
    let records: Vec<_> = admitted.iter().map(|one| (&one.account, &one.bytes)).collect();
    let outcomes = app.journal.append_all(&records).await;
    failpoint::hit("api.after_append");
    for (one, outcome) in admitted.iter().zip(&outcomes) {
        if let Ok(position) = outcome {
            one.landed(app, *position).await;
        }
    }
    outcomes.into_iter().map(|outcome| outcome.map_err(not_appended)).collect()
}
