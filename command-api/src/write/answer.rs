//! Answer: the response to a write, with its outcome if that is known.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ledger_core::event::PlanBody;
use ledger_core::fold::{Outcome, Reason};
use ledger_core::policy::hold::State;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{EventId, ReservationId};
use platform::position::Position;
use schemars::JsonSchema;
use serde::Serialize;
use web::http::Problem;
use web::openapi::{Answers, Operation};

use super::first::Earlier;
use super::outcome::Progress;
use crate::holds::request::SettledHold;

/// What became of a write: its position in the journal and, once that is known, its outcome.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Written {
    #[schemars(with = "EventId")]
    pub event_id: String,
    pub position: Position,
    /// The outcome, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Outcome>")]
    pub outcome: Option<&'static str>,
    /// The usage that had charged the same call.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<EventId>")]
    pub duplicate_of: Option<String>,
    /// The hold that the usage settles.
    #[serde(flatten)]
    pub settles: Option<SettlementView>,
    /// The waiting plan that a change of the plan replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<PlanBody>,
}

/// The response to a write: 200 with its outcome, or 202 while it is not projected.
#[derive(Debug)]
pub struct Wrote(Response);

impl Wrote {
    pub fn is_success(&self) -> bool {
        self.0.status().is_success()
    }
}

impl IntoResponse for Wrote {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Answers for Wrote {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers_json::<Written>(200, "Projected.");
        operation.answers_json::<Written>(202, "Stored, and not projected yet.");
    }
}

/// How usage settles a hold, as the API returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Settlement")]
pub struct SettlementView {
    pub reservation_id: ReservationId,
    /// `settled` once the usage is projected.
    pub state: State,
    /// The amount that was held.
    pub held: Credits,
    /// What the usage charges above the held amount.
    pub over_hold: Credits,
}

impl SettlementView {
    fn of(settled: &SettledHold, progress: &Progress) -> SettlementView {
        let state = match progress {
            Progress::Folded(Outcome::Applied | Outcome::Duplicate) => State::Settled,
            Progress::Folded(Outcome::Conflict | Outcome::Rejected(_))
            | Progress::Halted
            | Progress::Waiting => State::Settling,
        };
        let (reservation_id, held) = (settled.reservation_id.clone(), settled.held);
        SettlementView { reservation_id, state, held, over_hold: settled.over_hold }
    }
}

impl Written {
    /// Answers by the record's progress: 200, 202 while it waits, 409, 422, or 503 if its account is halted.
    pub fn answer(account: &str, event_id: &str, position: Position, progress: &Progress) -> Wrote {
        Written::answer_usage(account, event_id, position, progress, None, Earlier::default())
    }

    /// Like [`Written::answer`], for a change of the plan.
    pub fn answer_replacing(
        account: &str,
        event_id: &str,
        position: Position,
        progress: &Progress,
        replaced: Option<PlanBody>,
    ) -> Wrote {
        let written = Written { replaced, ..Written::of(event_id, position, progress) };
        written.respond(account, progress, &Earlier::default().differs)
    }

    /// Like [`Written::answer`], for usage, which may settle a hold or repeat what came before.
    pub fn answer_usage(
        account: &str,
        event_id: &str,
        position: Position,
        progress: &Progress,
        settled: Option<&SettledHold>,
        earlier: Earlier,
    ) -> Wrote {
        let settles = settled.map(|settled| SettlementView::of(settled, progress));
        let Earlier { differs, duplicate_of } = earlier;
        let written = Written { settles, duplicate_of, ..Written::of(event_id, position, progress) };
        written.respond(account, progress, &differs)
    }

    fn of(event_id: &str, position: Position, progress: &Progress) -> Written {
        let outcome = match progress {
            Progress::Folded(outcome) => Some(outcome.as_str()),
            Progress::Waiting | Progress::Halted => None,
        };
        Written {
            event_id: event_id.to_owned(),
            position,
            outcome,
            duplicate_of: None,
            settles: None,
            replaced: None,
        }
    }

    fn respond(self, account: &str, progress: &Progress, differs: &[String]) -> Wrote {
        let written = self;
        Wrote(match progress {
            Progress::Waiting => (StatusCode::ACCEPTED, axum::Json(written)).into_response(),
            Progress::Halted => Problem::account_halted(account).into_response(),
            Progress::Folded(outcome) => match outcome {
                Outcome::Applied | Outcome::Duplicate => axum::Json(written).into_response(),
                Outcome::Conflict => {
                    let problem = Problem::conflict("this id was used before, with other content");
                    placed(problem.with("differs", differs), &written)
                }
                Outcome::Rejected(Reason::AccountClosed) => {
                    let reason = Reason::AccountClosed;
                    placed(Problem::conflicting(reason.code(), detail(reason)), &written)
                }
                Outcome::Rejected(reason) => {
                    placed(Problem::unprocessable(reason.code(), detail(*reason)), &written)
                }
            },
        })
    }
}

/// Adds the position of a refused record, which the journal has, to the problem.
fn placed(problem: Problem, written: &Written) -> Response {
    problem
        .with("event_id", &written.event_id)
        .with("position", written.position)
        .with("outcome", written.outcome)
        .into_response()
}

/// Describes in a sentence why an event was rejected.
pub fn detail(reason: Reason) -> &'static str {
    match reason {
        Reason::AccountNotOpen => "the account is not open",
        Reason::AccountClosed => "the account is closed",
        Reason::AccountExists => "the account is open already",
        Reason::ClockJump => {
            "one move of a test clock may not cross so many boundaries, lot starts and lot ends"
        }
        Reason::EventUnknown => "there is no such usage event",
        Reason::AlreadyReversed => "the usage was reversed, or the dispute won, before",
        Reason::GrantUnknown => "there is no such grant",
        Reason::GrantNotVoidable => "plan and rollover lots, and lots that have ended, can't be voided",
        Reason::GrantExists => "another grant or payment has this id",
        Reason::GrantIdMalformed => "the id of this event can't name a grant",
        Reason::GrantReserved => "this id is one that only the ledger gives",
        Reason::GrantExpired => "the grant would end before it counts",
        Reason::TooManyLots => "the account has its most open lots, or this would return credits to too many",
        Reason::PaymentUnknown => "there is no such payment",
        Reason::PaymentExists => "the payment is credited already",
        Reason::RefundExceedsPayment => "more would go back than was paid",
        Reason::AttemptOutOfOrder => "this is not the next attempt",
        Reason::TopUpNotDue => "no top-up was due any more",
        Reason::AttemptNotOpen => "this attempt is not open",
        Reason::DisputeUnknown => "there is no such dispute of this payment",
        Reason::RefundUnknown => "there is no such refund of this payment",
        Reason::PeriodNotBegun => "the period has not begun",
        Reason::AlertUnknown => "there is no such alert",
        Reason::TooManyAlerts => "the account has its most org alerts",
        Reason::UnpricedUsage => "the usage has no price",
        Reason::OutOfRange => "the account's sums would leave their range",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { partition: 3, offset: 1041 };

    async fn check(progress: Progress, status: u16, expected: &str) {
        let response = Written::answer("acme", "e1", AT, &progress).into_response();
        assert_eq!(response.status().as_u16(), status, "{progress:?}");
        let body = axum::body::to_bytes(response.into_body(), 4096).await.expect("small");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let said = format!("{} {} {}", body["outcome"], body["code"], body["position"]);
        assert_eq!(said, expected, "{body}");
    }

    #[tokio::test]
    async fn an_answer_says_what_the_write_came_to() {
        let folded = Progress::Folded;
        let at = r#"{"partition":3,"offset":1041}"#;
        let at_ordered = serde_json::from_str::<serde_json::Value>(at).expect("JSON").to_string();
        check(folded(Outcome::Applied), 200, &format!(r#""applied" null {at_ordered}"#)).await;
        check(folded(Outcome::Duplicate), 200, &format!(r#""duplicate" null {at_ordered}"#)).await;
        check(folded(Outcome::Conflict), 409, &format!(r#""conflict" "conflict" {at_ordered}"#)).await;
        let rejected = folded(Outcome::Rejected(Reason::PaymentUnknown));
        check(rejected, 422, &format!(r#""rejected" "payment_unknown" {at_ordered}"#)).await;
        check(Progress::Waiting, 202, &format!("null null {at_ordered}")).await;
        check(Progress::Halted, 503, r#"null "account_halted" null"#).await;
    }
}
