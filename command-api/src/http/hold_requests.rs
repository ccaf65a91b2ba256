//! Requests on holds: waits for the position that the caller names, then sends the request to the batcher.

use ledger_core::value::id::AccountId;
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::Deserialize;
use web::http::Problem;

use crate::app::App;
use crate::holds::request::{Answer, Ask, Fault, HoldView, Request};
use crate::request_context::{RequestContext, Waits};

/// The query of a decision, which is made at this position or later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecideQuery {
    /// The position that must be projected.
    pub at_least: Option<AtLeast>,
    /// Accepted as in every write, and ignored: a decision is not in the journal.
    pub wait: Option<bool>,
}

impl Waits for DecideQuery {
    fn wait(&self) -> Option<bool> {
        self.wait
    }
}

/// Returns 503 unless the projection reaches the position of the query in time.
pub async fn require_projected(app: &App, context: &RequestContext<DecideQuery>) -> Result<(), Problem> {
    let Some(AtLeast(position)) = context.query.at_least else { return Ok(()) };
    let partitions = app.journal.partitions();
    if !(0..partitions).contains(&position.partition) {
        let detail = format!("the journal has {partitions} partitions");
        return Err(Problem::bad_field("at_least", "no_such_partition", detail));
    }
    if app.waiter.wait_for(position, context.deadline).await {
        return Ok(());
    }
    Err(Problem::behind(format!("position {position} is not projected yet")))
}

/// Changes a hold, and returns it.
pub async fn on_hold<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    account: &AccountId,
    change: Ask,
) -> Result<HoldView, Problem> {
    let Answer::Hold(view) = ask(app, context, account, change).await? else {
        return Err(Problem::internal("a request on a hold was answered otherwise"));
    };
    Ok(*view)
}

/// Sends a request on an account, and again if the account was absent and the projection lagged.
pub async fn ask<Q: Waits>(
    app: &App,
    context: &RequestContext<Q>,
    account: &AccountId,
    ask: Ask,
) -> Result<Answer, Problem> {
    let request = || -> Result<Request, Problem> {
        Ok(Request {
            account: account.clone(),
            at: context.ledger_time,
            actor: context.actor()?,
            ask: ask.clone(),
        })
    };
    let first = app.holds.ask(request()?).await;
    if first.as_ref().is_err_and(|fault| *fault == Fault::AccountAbsent) {
        // Waits for a projection that does not know the account yet; 404 if there is none.
        app.account(account, None, context.deadline).await?;
        return app.holds.ask(request()?).await.map_err(|fault| fault.problem(account));
    }
    first.map_err(|fault| fault.problem(account))
}
