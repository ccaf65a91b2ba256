//! Referrals: counts and credits from an account's invitations.

use axum::extract::State;
use axum::response::Response;
use ledger_core::value::credits::Credits;
use platform::pg::credits_of;
use platform::position::AtLeast;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row};
use web::http::{Problem, Query};

use crate::access::Whole;
use crate::answer;
use crate::app::App;
use crate::reading::{self, Account};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReferralsQuery {
    at_least: Option<AtLeast>,
}

#[derive(Debug, Default, Serialize)]
struct Referrals {
    invited: i32,
    accepted: i32,
    rewarded: i32,
    credits_earned: Credits,
}

/// `GET /v1/accounts/{account}/referrals`
pub(crate) async fn read(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<ReferralsQuery>,
) -> Result<Response, Problem> {
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
