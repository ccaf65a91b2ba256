//! Check: answers whether work may begin, without changing anything.
//!
//! A check sees projected usage and open holds, not usage that is not projected yet, and holds nothing. A refusal is
//! stored with its figures, so that it can be explained later.

use axum::Json;
use axum::extract::State;
use ledger_core::policy::decide::{Decision, Refusal, Work};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, Text};
use ledger_core::value::time::Time;
use schemars::JsonSchema;
use serde::Serialize;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Route, Sent, post};

use super::hold_requests::{self, DecideQuery, require_projected};
use crate::app::App;
use crate::holds::request::{Answer, Ask};
use crate::request_context::{RequestContext, timed};

/// Whether work may begin, with the figures behind the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Checked {
    pub allowed: bool,
    pub code: Option<Refusal>,
    /// The reason as a sentence for the refused user.
    #[schemars(with = "Option<Text>")]
    pub message: Option<String>,
    /// What the account may still spend, in its unit.
    pub available: Credits,
    /// The limit that applies; null if there is none.
    pub limit: Option<Credits>,
    /// The usage that counts toward it.
    pub used: Credits,
    /// The user's open holds, which count in addition.
    pub held: Credits,
    pub resets_at: Time,
}

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/check", check)
            .named("checkWork", "Answers whether work may begin, without changing anything.")
            .says(
                "By producers. It sees what is projected and what is held, and holds nothing. Without an amount it asks \
                 for the smallest work. A refusal is kept with its figures.",
            )
            .with(timed),
    ]
}

/// `POST /v1/accounts/{account}/check`
async fn check(
    State(app): State<App>,
    context: RequestContext<DecideQuery>,
    Path(account): Path<AccountId>,
    sent: Sent<Work>,
) -> Result<Json<Checked>, Problem> {
    context.require(Action::CheckAndHold, &account)?;
    let work: Work = sent.read().await?;
    require_projected(&app, &context).await?;
    let answered = hold_requests::ask(&app, &context, &account, Ask::Check(work)).await?;
    let Answer::Checked(decision, message) = answered else {
        return Err(Problem::internal("a check was answered otherwise"));
    };
    Ok(Json(answer(*decision, message)))
}

fn answer(decision: Decision, message: Option<String>) -> Checked {
    let Decision { refusal, available, limit, used, held, resets_at, .. } = decision;
    Checked { allowed: refusal.is_none(), code: refusal, message, available, limit, used, held, resets_at }
}
