//! Appends admitted usage, waits for it, and answers.

use platform::failpoint;
use platform::kafka::AppendError;
use platform::position::Position;
use web::http::Problem;

use super::answer::{Written, Wrote};
use super::append::{append, not_appended};
use super::first::earlier;
use super::outcome::{self, Outcome, Progress};
use super::wait::{known_or_waiting, once_projected, reopen_hold};
use crate::admission::{Admitted, Form};
use crate::app::App;

/// Appends a record and answers with its outcome, if the caller waits for it.
pub async fn append_and_answer(
    app: &App,
    admitted: Admitted,
    form: Form,
    waits: bool,
) -> Result<Wrote, Problem> {
    let position = append_one(app, &admitted).await?;
    let found = outcomes(app, std::slice::from_ref(&admitted), &[position], waits).await;
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

/// Waits until usage is projected, if the caller requests it, and returns the outcomes; none if they are not known.
pub async fn outcomes(
    app: &App,
    admitted: &[Admitted],
    positions: &[Position],
    waits: bool,
) -> Vec<Progress> {
    let records = || admitted.iter().zip(positions).map(|(one, position)| (one.account.clone(), *position));
    let progress = async {
        let records: Vec<_> = records().collect();
        outcome::progress(&app.pool, app.waiter.schema(), &records).await
    };
    let mut found = known_or_waiting(once_projected(app, waits, positions, progress).await, Vec::new());
    for (one, progress) in admitted.iter().zip(&mut found) {
        // The outcome at that position is its first record's.
        if one.first.is_some() {
            *progress = Progress::Folded(Outcome::Duplicate);
        }
    }
    found
}

/// Appends a record, and records its position in the hold that it settles; returns the first record's position for a
/// resend, which is not appended.
pub async fn append_one(app: &App, admitted: &Admitted) -> Result<Position, Problem> {
    if let Some(first) = admitted.first {
        return Ok(first);
    }
    let position = append(app, &admitted.account, &admitted.bytes).await?;
    admitted.landed(app, position).await;
    Ok(position)
}

/// Appends all records but resends, like [`append_one`]. An error does not say which one failed: sending all of them
/// again is always safe.
pub async fn append_all(app: &App, admitted: &[Admitted]) -> Result<Vec<Position>, Problem> {
    failpoint::hit("api.before_append");
    let outcomes = append_new(app, &admitted.iter().collect::<Vec<_>>()).await;
    failpoint::hit("api.after_append");
    outcomes.into_iter().map(|outcome| outcome.map_err(not_appended)).collect()
}

/// Appends all records but resends, for which it returns the first record's position.
pub async fn append_new(app: &App, admitted: &[&Admitted]) -> Vec<Result<Position, AppendError>> {
    let records: Vec<_> =
        admitted.iter().filter(|one| one.first.is_none()).map(|one| (&one.account, &one.bytes)).collect();
    let mut appended = app.journal.append_all(&records).await.into_iter();
    let mut outcomes = Vec::with_capacity(admitted.len());
    for one in admitted {
        if let Some(first) = one.first {
            outcomes.push(Ok(first));
            continue;
        }
        let Some(outcome) = appended.next() else { break };
        if let Ok(position) = outcome {
            one.landed(app, position).await;
        }
        outcomes.push(outcome);
    }
    outcomes
}
