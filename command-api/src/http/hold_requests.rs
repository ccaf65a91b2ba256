//! Requests on holds: waits for the position that a caller names, and passes the request on to be decided.

use ledger_core::value::id::AccountId;
use platform::position::AtLeast;
use serde::Deserialize;
use web::http::Problem;

use crate::app::App;
use crate::holds::request::{Answer, Ask, Fault, HoldView, Request};
use crate::request_context::{RequestContext, Waits};

/// The query of a decision, which is made at this position or a later one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecideQuery {
    /// Where it must be projected to.
    pub at_least: Option<AtLeast>,
    /// Taken as with every write. A decision is not in the journal, and there is nothing to wait for.
    pub wait: Option<bool>,
}

impl Waits for DecideQuery {
    fn wait(&self) -> Option<bool> {
        self.wait
    }
}

/// 503 unless the projection reaches the position in the query in time.
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

/// Asks for a change of a hold, and returns the hold.
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

/// Asks of an account, again where it was not there and the projection lagged.
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
        // Waits for a projection that does not know the account yet; 404 where there is none.
        app.account(account, None, context.deadline).await?;
        return app.holds.ask(request()?).await.map_err(|fault| fault.problem(account));
    }
    first.map_err(|fault| fault.problem(account))
}
