//! Grants: every lot of an account's history, newest first.

use axum::extract::State;
use engine::tables::lot;
use ledger_core::account::Core;
use ledger_core::account::lot::{Lot, LotCategory};
use ledger_core::event::{LotSource, Price};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{GrantId, Text};
use ledger_core::value::time::Time;
use platform::pg;
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Answer, Now};
use crate::app::App;
use crate::as_of::{self, At};
use crate::list::{self, Limit, Page};
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantsQuery {
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Shows the lots as they stood at this ledger time.
    as_of: Option<Time>,
    at_least: Option<AtLeast>,
}

#[derive(Serialize, JsonSchema)]
struct Grant {
    grant_id: GrantId,
    source: LotSource,
    category: LotCategory,
    amount: Credits,
    remaining: Credits,
    priority: i32,
    effective_at: Time,
    expires_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Price>,
    voided_at: Option<Time>,
    granted_at: Time,
    reason: Option<Text>,
    #[serde(skip)]
    cursor: Cursor,
}

/// Offset and order of the lot's creation; the id if one event created two without an entry between them.
type Cursor = (i64, i32, GrantId);

impl From<Lot> for Grant {
    fn from(lot: Lot) -> Self {
        Self {
            category: lot.category(),
            cursor: (lot.offset, lot.seq, lot.grant_id.clone()),
            grant_id: lot.grant_id,
            source: lot.source,
            amount: lot.amount,
            remaining: lot.remaining,
            priority: lot.priority,
            effective_at: lot.effective_at,
            expires_at: lot.expires_at,
            price: lot.price,
            voided_at: lot.voided_at,
            granted_at: lot.granted_at,
            reason: lot.reason,
        }
    }
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/grants", list)
            .named("listGrants", "Lists every lot of credits that the account ever had, newest first."),
    ]
}

/// `GET /v1/accounts/{account}/grants`
async fn list(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<GrantsQuery>,
) -> Result<Answer<Now<Page<Grant>>>, Problem> {
    let before: Option<Cursor> = list::decode(query.cursor.as_deref())?;
    let (limit, as_of) = (query.limit, query.as_of);
    let (reflects, page) = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(async move {
            let at = At::asked(account, as_of)?;
            load(connection, account, before, limit, at).await
        })
    })
    .await?;
    answer::object(&reflects, page)
}

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    before: Option<Cursor>,
    limit: Limit,
    at: Option<At>,
) -> Result<Page<Grant>, Problem> {
    let core = match at {
        Some(at) => Some(as_of::core_at(connection, account, at).await?),
        None => None,
    };
    let (offset, seq, grant_id) = match &before {
        Some((offset, seq, id)) => (*offset, *seq, id.as_str()),
        None => (i64::MAX, i32::MAX, ""),
    };
    let sql = format!(
        r#"select {}
             from lot
            where account_id = $1
              and ("offset", seq, grant_id) < ($2, $3, $4)
              and granted_at <= $5
            order by "offset" desc, seq desc, grant_id desc
            limit {}"#,
        lot::COLUMNS,
        limit.rows_to_ask()
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(account.id())
        .bind(offset)
        .bind(seq)
        .bind(grant_id)
        .bind(pg::timestamp(at.map_or(Time::MAX, |at| at.time)))
        .fetch_all(connection)
        .await?;
    let lots: Result<Vec<Lot>, sqlx::Error> = rows.iter().map(lot::read).collect();
    let past = |lot| match &core {
        Some(core) => as_it_stood(core, lot),
        None => lot,
    };
    let grants = lots?.into_iter().map(|lot| Grant::from(past(lot))).collect();
    Ok(Page::cut(grants, limit, |grant: &Grant| grant.cursor.clone()))
}

/// Returns a lot as it stood when the account was in this state. One that the state does not have was used up or
/// closed.
fn as_it_stood(core: &Core, lot: Lot) -> Lot {
    if let Some(open) = core.lots.get(&lot.grant_id) {
        // Its place in the list is that of the row: a lot of a period may have been made anew.
        return Lot { offset: lot.offset, seq: lot.seq, event_id: lot.event_id, ..open.clone() };
    }
    let is_open_plan = lot.grant_id.as_str() == format!("plan:{}", core.period.index);
    Lot {
        amount: if is_open_plan { core.plan.allowance } else { lot.amount },
        remaining: Credits::ZERO,
        voided_at: lot.voided_at.filter(|at| *at <= core.ledger_time),
        ..lot
    }
}
