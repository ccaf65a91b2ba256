//! Referrals: counts and credits from an account's invitations.

use axum::extract::State;
use ledger_core::value::credits::Credits;
use platform::pg::credits_of;
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row};
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Answer, Now};
use crate::app::App;
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReferralsQuery {
    at_least: Option<AtLeast>,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
struct Referrals {
    /// People invited by e-mail, and accounts that opened by the account's id alone.
    invited: i32,
    /// Accounts that opened.
    accepted: i32,
    /// Accounts that brought a reward: the first 10 of those that opened.
    rewarded: i32,
    credits_earned: Credits,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/referrals", read)
            .named("getReferrals", "Returns what inviting others has brought the account."),
    ]
}

/// `GET /v1/accounts/{account}/referrals`
async fn read(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<ReferralsQuery>,
) -> Result<Answer<Now<Referrals>>, Problem> {
    let (reflects, referrals) = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(load(connection, account))
    })
    .await?;
    answer::object(&reflects, referrals)
}

async fn load(connection: &mut PgConnection, account: &Account) -> Result<Referrals, Problem> {
    let row = sqlx::query(
        "select invited, accepted, rewarded, credits_earned::text
           from control.referrer
          where account_id = $1",
    )
    .bind(account.id())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(Referrals::default()) };
    Ok(Referrals {
        invited: row.try_get("invited")?,
        accepted: row.try_get("accepted")?,
        rewarded: row.try_get("rewarded")?,
        credits_earned: credits_of(row.try_get("credits_earned")?)?,
    })
}
