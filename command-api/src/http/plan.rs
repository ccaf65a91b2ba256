//! Plan: changes it now or at the next period, and says which waiting plan that replaces.

use axum::extract::State;
use ledger_core::event::{ChangePlan, Data};
use ledger_core::fold::Outcome;
use ledger_core::value::id::AccountId;
use tracing::warn;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{self, Route, Sent, Tagged};

use crate::admission::rate_cards::require_published;
use crate::app::App;
use crate::request_context::{RequestContext, conditional, timed};
use crate::write::answer::{Written, Wrote};
use crate::write::outcome::{self, Progress};
use crate::write::{self, Draft};

pub fn routes() -> Vec<Route<App>> {
    vec![
        openapi::put("/v1/accounts/{account}/plan", put)
            .named("changePlan", "Changes the plan, now or at the next boundary.")
            .says(
                "By the operator. It replaces a plan that waits; the answer says which. Where cycle, anchor or time zone \
                 change, the plan waits for the next boundary also with `at` now, and its allowance begins there; until \
                 then name, allowance and rollover stay as they are. A change equal to the last accepted one gets its \
                 answer.",
            )
            .refuses(&["changed_meanwhile"])
            .with(timed)
            .with(conditional),
    ]
}

/// `PUT /v1/accounts/{account}/plan`
async fn put(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<ChangePlan>,
) -> Result<Tagged<Wrote>, Problem> {
    context.require(Action::Terms, &account)?;
    let change: ChangePlan = sent.read().await?;
    let card = change.plan.rate_card.clone();
    let draft = Draft::setting(&account, "plan", Data::PlanChanged(change), context.now);
    let admission = async {
        let recorded_at = write::time_while_open(&app, &context, &account).await?;
        require_published(&app.pool, card.as_ref()).await?;
        Ok(recorded_at)
    };
    let (kept, position, progress) = write::put_setting(&app, &context, &draft, admission).await?;
    let mut replaced = None;
    if progress == Progress::Folded(Outcome::Applied) {
        let found = outcome::replaced_plan(&app.pool, app.waiter.schema(), &account, &kept.event_id).await;
        replaced = found.unwrap_or_else(|error| {
            warn!(%error, "the plan that a change replaced could not be read");
            None
        });
    }
    let answer = Written::answer_replacing(account.as_str(), &kept.event_id, position, &progress, replaced);
    write::mark(&app, &draft, &progress, answer).await
}
