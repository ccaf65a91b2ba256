//! Plan: changes it now or at the next period, and says which waiting plan that replaces.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::event::{ChangePlan, Data};
use ledger_core::fold::Outcome;
use ledger_core::value::id::AccountId;
use tracing::warn;
use web::auth::Action;
use web::http::{Path, Problem, read_body};

use crate::admission::rate_cards::require_published;
use crate::app::App;
use crate::request_context::RequestContext;
use crate::write::answer::Written;
use crate::write::outcome::{self, Progress};
use crate::write::{self, Draft};

/// `PUT /v1/accounts/{account}/plan`
pub async fn put(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Terms, &account)?;
    let change: ChangePlan = read_body(request).await?;
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
