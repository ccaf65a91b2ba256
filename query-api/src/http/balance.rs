//! Balance: the figures of an account, now or at an instant.

use axum::extract::State;
use engine::tables::commitments;
use ledger_core::policy::balance::Balance;
use ledger_core::value::credits::Credits;
use ledger_core::value::time::Time;
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::Deserialize;
use sqlx::PgConnection;
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Answer, Now};
use crate::app::App;
use crate::as_of::{self, At};
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BalanceQuery {
    /// Shows the account as it stood at this ledger time, without holds. A time beyond the account's ledger time means
    /// the present; one before its opening is refused.
    as_of: Option<Time>,
    at_least: Option<AtLeast>,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/balance", balance)
            .named("getBalance", "Returns what the account may still spend, now or at an instant."),
    ]
}

/// `GET /v1/accounts/{account}/balance`
async fn balance(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<BalanceQuery>,
) -> Result<Answer<Now<Balance>>, Problem> {
    let (reflects, balance) = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(load(connection, account, query.as_of))
    })
    .await?;
    answer::object(&reflects, balance)
}

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    instant: Option<Time>,
) -> Result<Balance, Problem> {
    if let Some(at) = At::asked(account, instant)? {
        return Ok(Balance::of(&as_of::core_at(connection, account, at).await?, Credits::ZERO));
    }
    // Holds exist only in the present: a read at an instant has none.
    let held = match instant {
        Some(_) => Credits::ZERO,
        None => commitments::held(connection, &account.core.account, Vec::new()).await?.0,
    };
    Ok(Balance::of(&reading::whole(connection, account).await?, held))
}
