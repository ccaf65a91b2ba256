//! Reservations: the open holds of an account, and what became of one.

use axum::extract::State;
use chrono::{DateTime, Utc};
use engine::tables::commitments;
use ledger_core::event::Clock;
use ledger_core::policy::balance::Balance;
use ledger_core::policy::hold::State as HoldState;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{EventId, Label, ReservationId, Source, UserId};
use ledger_core::value::time::Time;
use platform::pg::columns::{parsed, variant_of};
use platform::pg::{self, credits_of, time_of};
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use web::http::{Path, Problem, Query};
use web::openapi::{Route, get};

use crate::access::Seen;
use crate::answer::{self, Answer, Now};
use crate::app::App;
use crate::list::{self, Limit, Page};
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReservationsQuery {
    /// Only holds of this user.
    user: Option<String>,
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

/// A hold, in the state that its time and the usage seen so far give it.
#[derive(Debug, Serialize, JsonSchema)]
struct Reservation {
    reservation_id: ReservationId,
    state: HoldState,
    amount: Credits,
    user_id: Option<UserId>,
    #[schemars(with = "Option<Label>")]
    feature: Option<String>,
    created_at: Time,
    /// Of a settling one: when it ends should its usage come to nothing.
    expires_at: Time,
    /// The usage that settles it, from when it settles.
    #[schemars(with = "Option<EventId>")]
    event_id: Option<String>,
    /// The source of that usage.
    #[schemars(with = "Option<Source>")]
    source: Option<String>,
}

/// The position of a row in the list: those that end first come first.
type Cursor = (Time, ReservationId);

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/reservations", list)
            .named("listReservations", "Lists the open holds; those that end first come first.")
            .says("A hold is open until it expires, is released, or the usage that ends it is projected. Members see their own."),
        get("/v1/accounts/{account}/reservations/{reservation}", one)
            .named("getReservation", "Returns a hold, and what became of it.")
            .says("An ended hold is kept for some weeks. Members see their own.")
            .refuses(&["reservation_not_found"]),
    ]
}

/// `GET /v1/accounts/{account}/reservations`
async fn list(
    State(app): State<App>,
    seen: Seen,
    Query(query): Query<ReservationsQuery>,
) -> Result<Answer<Now<Page<Reservation>>>, Problem> {
    let user = seen.user(query.user)?;
    let after: Option<Cursor> = list::decode(query.cursor.as_deref())?;
    let limit = query.limit;
    let (reflects, page) = reading::of(&app, seen.account, query.at_least, move |connection, account| {
        Box::pin(async move { Ok(load_open(connection, account, user, after, limit).await?) })
    })
    .await?;
    answer::object(&reflects, page)
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ReservationPath {
    reservation: ReservationId,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReservationQuery {
    at_least: Option<AtLeast>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReservationDetails")]
struct WithAvailable {
    #[serde(flatten)]
    reservation: Reservation,
    /// What the account may still spend; for those who may read that.
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<Credits>,
}

/// `GET /v1/accounts/{account}/reservations/{reservation}`
async fn one(
    State(app): State<App>,
    seen: Seen,
    Path(ReservationPath { reservation }): Path<ReservationPath>,
    Query(query): Query<ReservationQuery>,
) -> Result<Answer<Now<WithAvailable>>, Problem> {
    let own = seen.user(None)?;
    let (reflects, found) = reading::of(&app, seen.account, query.at_least, move |connection, account| {
        Box::pin(load_one(connection, account, reservation, own))
    })
    .await?;
    answer::object(&reflects, found)
}

async fn load_one(
    connection: &mut PgConnection,
    account: &Account,
    id: ReservationId,
    own: Option<String>,
) -> Result<WithAvailable, Problem> {
    let now = instant(&mut *connection, account).await?;
    let sql = format!("{HOLDS} and hold.reservation_id = $3");
    let row: Option<ReservationRow> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(account.id())
        .bind(pg::timestamp(now))
        .bind(id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let reservation = row.map(Reservation::try_from).transpose()?;
    let absent = || Problem::not_found("reservation_not_found", format!("no reservation has the id {id}"));
    let reservation = reservation.ok_or_else(absent)?;
    if own.is_some() {
        let is_own = reservation.user_id.as_ref().map(UserId::as_str) == own.as_deref();
        return if is_own {
            Ok(WithAvailable { reservation, available: None })
        } else {
            Err(Problem::forbidden())
        };
    }
    let (held, _) = commitments::held(connection, &account.core.account, Vec::new()).await?;
    let balance = Balance::of(&reading::whole(connection, account).await?, held);
    Ok(WithAvailable { reservation, available: Some(balance.available) })
}

/// Above every id: they begin with a letter or digit.
const ABOVE_EVERY_ID: &str = "~";

/// Holds of account `$1` at `$2`.
const HOLDS: &str = r#"
    select hold.reservation_id, hold.amount::text, hold.user_id, hold.feature, hold.created_at, hold.expires_at,
           hold.event_id, hold.source,
           case
               when hold.state = 'held' and hold.expires_at <= $2 then 'expired'
               when hold.state = 'settling' and ended.event_id is not null then 'settled'
               else hold.state
           end as state
    from control.hold
    left join ended_hold as ended
         on ended.account_id = hold.account_id and ended.reservation_id = hold.reservation_id
    where hold.account_id = $1"#;

/// Returns the instant that holds of an account are judged at: the database's clock, or a test account's ledger time.
async fn instant(connection: &mut PgConnection, account: &Account) -> Result<Time, sqlx::Error> {
    if account.core.clock == Clock::Test {
        return Ok(account.core.ledger_time);
    }
    sqlx::query_scalar("select clock_timestamp()").fetch_one(connection).await.map(pg::time_of)
}

/// Each kind of open hold is found in order by an index of its own, whatever has ended. Those that are held begin after
/// the present instant: one comparison, so that no plan gathers all of them to sort them.
async fn load_open(
    connection: &mut PgConnection,
    account: &Account,
    user: Option<String>,
    after: Option<Cursor>,
    limit: Limit,
) -> Result<Page<Reservation>, sqlx::Error> {
    let now = instant(&mut *connection, account).await?;
    let after = after.map_or((Time::MIN, String::new()), |(at, id)| (at, id.to_string()));
    let held_after = after.clone().max((now, ABOVE_EVERY_ID.to_owned()));
    let rows_max = limit.rows_to_ask();
    let of_user = if user.is_some() { "and hold.user_id = $7" } else { "" };
    let order = format!("{of_user} order by hold.expires_at, hold.reservation_id limit {rows_max}");
    let sql = format!(
        "select *
         from (({HOLDS} and hold.state = 'held' and (hold.expires_at, hold.reservation_id) > ($3, $4) {order})
               union all
               ({HOLDS} and hold.state = 'settling' and ended.event_id is null
                        and (hold.expires_at, hold.reservation_id) > ($5, $6) {order})) as open
         order by expires_at, reservation_id
         limit {rows_max}"
    );
    let mut query = sqlx::query_as(AssertSqlSafe(sql))
        .bind(account.id())
        .bind(pg::timestamp(now))
        .bind(pg::timestamp(held_after.0))
        .bind(held_after.1)
        .bind(pg::timestamp(after.0))
        .bind(after.1);
    if let Some(user) = user {
        query = query.bind(user);
    }
    let rows: Vec<ReservationRow> = query.fetch_all(connection).await?;
    let open = rows.into_iter().map(Reservation::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::cut(open, limit, |hold| (hold.expires_at, hold.reservation_id.clone())))
}

/// A row of `control.hold`, in the state that it has with `ended_hold`.
#[derive(FromRow)]
struct ReservationRow {
    reservation_id: String,
    amount: String,
    user_id: Option<String>,
    feature: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    event_id: Option<String>,
    source: Option<String>,
    state: String,
}

impl TryFrom<ReservationRow> for Reservation {
    type Error = sqlx::Error;

    fn try_from(row: ReservationRow) -> Result<Reservation, sqlx::Error> {
        Ok(Reservation {
            reservation_id: parsed(&row.reservation_id)?,
            state: variant_of(&row.state)?,
            amount: credits_of(&row.amount)?,
            user_id: row.user_id.as_deref().map(parsed).transpose()?,
            feature: row.feature,
            created_at: time_of(row.created_at),
            expires_at: time_of(row.expires_at),
            event_id: row.event_id,
            source: row.source,
        })
    }
}
