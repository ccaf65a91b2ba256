//! Promo codes: their value, validity and number of uses.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use ledger_core::event::field_error::FieldError;
use ledger_core::event::{Data, Grant, GrantSource};
use ledger_core::request::Body;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, GrantId, PromoCode};
use ledger_core::value::schema::Cursor;
use ledger_core::value::time::Time;
use platform::pg::columns::parsed;
use platform::pg::{self, PgConnection, credits_of, numeric_text, time_of, timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use web::auth::{Action, Principal};
use web::http::{ETag, Path, Problem, Query};
use web::openapi::{self, Created, Route, Sent, Tagged, delete, post};

use crate::app::App;
use crate::paging::PageQuery;
use crate::request_context::{RequestContext, conditional};
use crate::write::Draft;

/// Longest promo code; the id of its lot contains it.
const CODE_CHARS_MAX: usize = 100;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPromoCode {
    pub(super) code: PromoCode,
    pub(super) amount: Credits,
    #[serde(default)]
    pub(super) valid_from: Option<Time>,
    #[serde(default)]
    /// Exclusive; after `valid_from`.
    pub(super) valid_until: Option<Time>,
    #[serde(default)]
    /// Most accounts that redeem it; by default any number.
    #[schemars(with = "Option<Redemptions>")]
    pub(super) max_redemptions: Option<i32>,
    #[serde(default)]
    /// When its credits end; by default never.
    pub(super) expires_at: Option<Time>,
}

/// A number of redemptions.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "stands for its schema")]
pub(super) struct Redemptions(#[schemars(range(min = 1))] i32);

impl Body for NewPromoCode {
    const GOOD: &'static str = r#"{"code":"c","amount":"1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        let mut refuse = |bad: bool, field: &str, code: &str, detail: &str| {
            if bad {
                errors.push(FieldError::new(field, code, detail));
            }
        };
        let too_long = self.code.as_str().len() > CODE_CHARS_MAX;
        refuse(too_long, "code", "too_long", "is at most 100 characters");
        refuse(!self.amount.is_positive(), "amount", "not_positive", "must be above 0");
        let most = self.max_redemptions.is_some_and(|most| most < 1);
        refuse(most, "max_redemptions", "out_of_range", "must be 1 or more");
        let backwards = self.valid_from.zip(self.valid_until).is_some_and(|(from, until)| until <= from);
        refuse(backwards, "valid_until", "not_after", "must be after valid_from");
    }
}

impl NewPromoCode {
    fn grant(&self) -> Result<Grant, Problem> {
        Ok(Grant {
            grant_id: GrantId::new(&format!("promo:{}", self.code)).map_err(Problem::internal)?,
            source: GrantSource::Promo,
            amount: self.amount,
            priority: None,
            effective_at: None,
            expires_at: self.expires_at,
            reason: None,
        })
    }

    pub(super) fn draft(&self, account: &AccountId) -> Result<Draft, Problem> {
        let grant = self.grant()?;
        Ok(Draft::lot(account, &grant.grant_id.clone(), Data::CreditsGranted(grant)))
    }
}

struct PromoCodeRow {
    code: String,
    amount: String,
    valid_from: Option<DateTime<Utc>>,
    valid_until: Option<DateTime<Utc>>,
    max_redemptions: Option<i32>,
    expires_at: Option<DateTime<Utc>>,
    redemptions: i32,
    ended_at: Option<DateTime<Utc>>,
}

impl TryFrom<PromoCodeRow> for NewPromoCode {
    type Error = sqlx::Error;

    fn try_from(row: PromoCodeRow) -> Result<NewPromoCode, sqlx::Error> {
        Ok(NewPromoCode {
            code: parsed(&row.code)?,
            amount: credits_of(&row.amount)?,
            valid_from: row.valid_from.map(time_of),
            valid_until: row.valid_until.map(time_of),
            max_redemptions: row.max_redemptions,
            expires_at: row.expires_at.map(time_of),
        })
    }
}

/// Selects the row of one code; the suffix follows the condition.
macro_rules! query_code {
    ($code:expr, $after:literal) => {
        sqlx::query_as!(
            PromoCodeRow,
            r#"select code, amount::text as "amount!", valid_from, valid_until, max_redemptions, expires_at, redemptions,
                      ended_at
               from control.promo_code
               where code = $1 "# + $after,
            $code
        )
    };
}

/// Returns a code as it was created.
pub(super) async fn find(
    connection: &mut PgConnection,
    code: &PromoCode,
) -> Result<Option<NewPromoCode>, sqlx::Error> {
    let row = query_code!(code.as_str(), "").fetch_optional(connection).await?;
    row.map(NewPromoCode::try_from).transpose()
}

/// Returns the name of the lock on a code among [`Turns`](platform::pg::Turns).
pub(crate) fn lock_name(code: &PromoCode) -> String {
    format!("promo/{code}")
}

/// Locks a code, and returns it with its number of redemptions.
pub(super) async fn lock(
    connection: &mut PgConnection,
    code: &PromoCode,
) -> Result<Option<Locked>, sqlx::Error> {
    let Some(row) = query_code!(code.as_str(), "for update").fetch_optional(connection).await? else {
        return Ok(None);
    };
    let redemptions = row.redemptions;
    let is_ended = row.ended_at.is_some();
    Ok(Some(Locked { promo: row.try_into()?, redemptions, is_ended }))
}

pub(super) struct Locked {
    pub promo: NewPromoCode,
    pub redemptions: i32,
    /// An operator has ended it.
    pub is_ended: bool,
}

/// Stores a new code unless its name exists, and returns the stored one.
async fn keep(
    connection: &mut PgConnection,
    new: &NewPromoCode,
) -> Result<Option<NewPromoCode>, sqlx::Error> {
    sqlx::query!(
        "insert into control.promo_code (code, amount, valid_from, valid_until, max_redemptions, expires_at,
                                         redemptions, created_at)
         values ($1, $2::text::numeric, $3, $4, $5, $6, 0, clock_timestamp())
         on conflict (code) do nothing",
        new.code.as_str(),
        numeric_text(new.amount),
        new.valid_from.map(timestamp),
        new.valid_until.map(timestamp),
        new.max_redemptions,
        new.expires_at.map(timestamp)
    )
    .execute(&mut *connection)
    .await?;
    find(connection, &new.code).await
}

pub(super) async fn count_redemption(
    connection: &mut PgConnection,
    code: &PromoCode,
) -> Result<(), sqlx::Error> {
    sqlx::query!("update control.promo_code set redemptions = redemptions + 1 where code = $1", code.as_str())
        .execute(connection)
        .await
        .map(drop)
}

pub(super) fn unknown(code: &PromoCode) -> Problem {
    Problem::not_found("promo_code_unknown", format!("there is no promo code {code}"))
}

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/promo-codes", create)
            .named("createPromoCode", "Makes a promo code, which gives credits once to each account.")
            .says("By the operator. The same code again gets the same answer."),
        openapi::get("/v1/promo-codes", list)
            .named("listPromoCodes", "Lists the promo codes and what has become of them, newest first.")
            .says("By the operator and auditors."),
        openapi::get("/v1/promo-codes/{code}", get)
            .named("getPromoCode", "Returns a promo code and what has become of it.")
            .says("By the operator and auditors.")
            .refuses(&["promo_code_unknown"]),
        delete("/v1/promo-codes/{code}", end)
            .named("endPromoCode", "Ends a promo code: it redeems no more.")
            .says("By the operator. Accounts that redeemed it keep the credits. A repeat gets the first answer.")
            .refuses(&["promo_code_unknown", "changed_meanwhile"])
            .with(conditional),
    ]
}

/// `POST /v1/promo-codes`
async fn create(
    State(app): State<App>,
    context: RequestContext,
    sent: Sent<NewPromoCode>,
) -> Result<Tagged<Created<Made>>, Problem> {
    context.principal.require_role(Action::PromoCodes)?;
    let new: NewPromoCode = sent.read().await?;
    let lock = lock_name(&new.code);
    let stored = app.write(&lock, {
        let new = new.clone();
        move |connection| Box::pin(async move { keep(connection, &new).await })
    });
    let stored = stored.await.map_err(Problem::from)?;
    match stored {
        Some(stored) if stored == new => {
            let state = state(&new, None)?;
            Ok(Tagged(Created(Made { made: new }), Some(state)))
        }
        _ => Err(Problem::conflict("this code was made before, with other content")),
    }
}

/// A code as it was made.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "MadePromoCode")]
pub struct Made {
    #[serde(flatten)]
    made: NewPromoCode,
}

/// A code as it was made, and what has become of it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "PromoCodeDetails")]
pub struct PromoCodeView {
    #[serde(flatten)]
    made: NewPromoCode,
    redemptions: i32,
    ended_at: Option<Time>,
}

impl TryFrom<PromoCodeRow> for PromoCodeView {
    type Error = sqlx::Error;

    fn try_from(row: PromoCodeRow) -> Result<PromoCodeView, sqlx::Error> {
        let (redemptions, ended_at) = (row.redemptions, row.ended_at.map(time_of));
        Ok(PromoCodeView { made: row.try_into()?, redemptions, ended_at })
    }
}

/// Makes the tag of a code's state; its redemptions are no part of it.
fn state(made: &NewPromoCode, ended_at: Option<Time>) -> Result<ETag, Problem> {
    ETag::of(&(made, ended_at))
}

impl PromoCodeView {
    fn answer(self) -> Result<Tagged<Json<PromoCodeView>>, Problem> {
        let state = state(&self.made, self.ended_at)?;
        Ok(Tagged(Json(self), Some(state)))
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PromoCodePage")]
struct Page {
    items: Vec<PromoCodeView>,
    /// The cursor of the next page; null at the end.
    #[schemars(with = "Option<Cursor>")]
    next_cursor: Option<String>,
}

/// `GET /v1/promo-codes`
async fn list(
    State(app): State<App>,
    principal: Principal,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page>, Problem> {
    principal.require_role(Action::Catalog)?;
    let size = query.size()?;
    let (before, before_code) = query.cursor.as_deref().map(place_of).transpose()?.unzip();
    let rows = sqlx::query!(
        r#"select code, amount::text as "amount!", valid_from, valid_until, max_redemptions, expires_at, redemptions,
                  ended_at, created_at
           from control.promo_code
           where $1::timestamptz is null or (created_at, code) < ($1, $2)
           order by created_at desc, code desc
           limit $3"#,
        before.map(timestamp),
        before_code,
        size.rows_to_ask()
    );
    let rows = rows.fetch_all(pg::bounded(&app.pool)).await?;
    let (rows, next_cursor) =
        size.cut(rows, |last| format!("{}.{}", time_of(last.created_at).micros(), last.code));
    let views = rows.into_iter().map(|row| {
        PromoCodeView::try_from(PromoCodeRow {
            code: row.code,
            amount: row.amount,
            valid_from: row.valid_from,
            valid_until: row.valid_until,
            max_redemptions: row.max_redemptions,
            expires_at: row.expires_at,
            redemptions: row.redemptions,
            ended_at: row.ended_at,
        })
    });
    Ok(Json(Page { items: views.collect::<Result<_, _>>()?, next_cursor }))
}

/// Reads a cursor: when the last code of the page before was made, and the code.
fn place_of(cursor: &str) -> Result<(Time, String), Problem> {
    let bad = || Problem::bad_field("cursor", "bad_cursor", "is not a cursor of this list");
    let (micros, code) = cursor.split_once('.').ok_or_else(bad)?;
    let made = micros.parse().ok().map(Time::from_micros).ok_or_else(bad)?;
    let code: PromoCode = code.parse().map_err(|_| bad())?;
    Ok((made, code.to_string()))
}

/// `GET /v1/promo-codes/{code}`
async fn get(
    State(app): State<App>,
    principal: Principal,
    Path(code): Path<PromoCode>,
) -> Result<Tagged<Json<PromoCodeView>>, Problem> {
    principal.require_role(Action::Catalog)?;
    let row = query_code!(code.as_str(), "").fetch_optional(pg::bounded(&app.pool)).await?;
    PromoCodeView::try_from(row.ok_or_else(|| unknown(&code))?)?.answer()
}

/// `DELETE /v1/promo-codes/{code}`
///
/// It redeems no more; who has redeemed it keeps the credits. A repeat gets the first answer.
async fn end(
    State(app): State<App>,
    context: RequestContext,
    Path(code): Path<PromoCode>,
) -> Result<Tagged<Json<PromoCodeView>>, Problem> {
    context.principal.require_role(Action::PromoCodes)?;
    let (if_match, lock_name) = (context.if_match, lock_name(&code));
    let ended = app.write(&lock_name, move |connection| {
        Box::pin(async move {
            let Some(known) = lock(connection, &code).await? else { return Err(unknown(&code)) };
            if let Some(if_match) = if_match.filter(|_| !known.is_ended) {
                if_match.require(&state(&known.promo, None)?)?;
            }
            let row = sqlx::query_as!(
                PromoCodeRow,
                r#"update control.promo_code
                   set ended_at = coalesce(ended_at, clock_timestamp())
                   where code = $1
                   returning code, amount::text as "amount!", valid_from, valid_until, max_redemptions, expires_at,
                             redemptions, ended_at"#,
                code.as_str()
            );
            Ok(PromoCodeView::try_from(row.fetch_one(connection).await?)?)
        })
    });
    ended.await?.answer()
}
