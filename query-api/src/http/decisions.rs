//! Decisions: why work was refused or allowed, with the figures behind the decision.

use axum::extract::State;
use ledger_core::policy::decide::{Decision, Refusal};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{Label, ReservationId, Text, UserId};
use ledger_core::value::time::Time;
use platform::pg::{self, columns};
use platform::position::{AtLeast, Position};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Seen;
use crate::answer::{self, Answer, Now};
use crate::app::App;
use crate::list::{self, Limit, Page};
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecisionsQuery {
    /// Only decisions about this user.
    user: Option<String>,
    /// Only decisions at this time or later.
    from: Option<Time>,
    /// Only decisions before this time.
    to: Option<Time>,
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

/// The request that was decided.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[allow(dead_code, reason = "stands for its schema")]
enum DecisionKind {
    Check,
    Reserve,
    Extend,
}

/// A decision with the figures that it was made from. Members are not shown those of the account.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Decision")]
struct Kept {
    /// What `explain?decision=` takes.
    id: String,
    /// By the database's clock; on test accounts ledger time.
    decided_at: Time,
    /// The request: `check`, `reserve` or `extend`.
    #[schemars(with = "DecisionKind")]
    kind: String,
    allowed: bool,
    code: Option<Refusal>,
    /// The reason of a refusal, as a sentence for the user.
    #[schemars(with = "Option<Text>")]
    message: Option<String>,
    #[schemars(with = "Option<ReservationId>")]
    reservation_id: Option<String>,
    #[schemars(with = "Option<UserId>")]
    user_id: Option<String>,
    #[schemars(with = "Option<Label>")]
    feature: Option<String>,
    /// The requested credits, for an extension the growth; null for the smallest work.
    amount: Option<Credits>,
    /// The account's figures; hidden from members.
    #[serde(flatten)]
    of_account: Option<OfAccount>,
    limit: Option<Credits>,
    used: Credits,
    held: Credits,
    period_index: i64,
    resets_at: Time,
    /// The projected position at the decision.
    position: Position,
    #[serde(skip)]
    cursor: Cursor,
}

/// The account's figures at a decision, and the user of the request.
#[derive(Debug, Serialize, JsonSchema)]
struct OfAccount {
    settled: Credits,
    /// Settled minus all open holds.
    available: Credits,
    /// The lowest allowed value of available; null if unlimited.
    #[schemars(extend("nullable" = true))]
    floor: Option<Credits>,
    /// The id of the key that asked.
    actor: String,
}

/// Time, and order among decisions of one instant.
type Cursor = (Time, i64);

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/decisions", list)
            .named("listDecisions", "Lists why work was refused or allowed, newest first.")
            .says(
                "Every refusal is kept with the figures behind it; what was allowed is kept too where the deployment \
                 sets `LEDGER_DECISIONS_KEEP_ALLOWED`. Members see their own.",
            ),
    ]
}

/// `GET /v1/accounts/{account}/decisions`
async fn list(
    State(app): State<App>,
    seen: Seen,
    Query(query): Query<DecisionsQuery>,
) -> Result<Answer<Now<Page<Kept>>>, Problem> {
    let user = seen.user(query.user)?;
    let cursor: Option<Cursor> = list::decode(query.cursor.as_deref())?;
    // The end is a position before all decisions of its instant.
    let end = query.to.map(|to| (to, i64::MIN));
    let before = cursor.into_iter().chain(end).min().unwrap_or((Time::MAX, i64::MAX));
    let from = query.from.unwrap_or(Time::MIN);
    let wanted = Wanted { user, of_account: seen.sees_account(), from, before, limit: query.limit };
    let (reflects, page) = reading::of(&app, seen.account, query.at_least, move |connection, account| {
        Box::pin(async move { Ok(load(connection, account, wanted).await?) })
    })
    .await?;
    answer::object(&reflects, page)
}

struct Wanted {
    user: Option<String>,
    /// Whether to include the account's own figures.
    of_account: bool,
    from: Time,
    before: Cursor,
    limit: Limit,
}

const COLUMNS: &str = r#"decided_at, seq, kind, reservation_id, user_id, feature, amount::text, code, settled::text,
    available::text, floor::text, user_limit::text, used::text, held::text, period_index, resets_at, "partition",
    "offset", actor"#;

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    wanted: Wanted,
) -> Result<Page<Kept>, sqlx::Error> {
    // The condition on the user is present only if one is named, so that either index can be used.
    let of_user = if wanted.user.is_some() { "and user_id = $5" } else { "and $5::text is null" };
    let sql = format!(
        r#"select {COLUMNS}
           from control.decision
           where account_id = $1
             and (decided_at, seq) < ($2, $3)
             and decided_at >= $4
             {of_user}
           order by decided_at desc, seq desc
           limit {}"#,
        wanted.limit.rows_to_ask()
    );
    let (at, seq) = wanted.before;
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(account.id())
        .bind(pg::timestamp(at))
        .bind(seq)
        .bind(pg::timestamp(wanted.from))
        .bind(wanted.user)
        .fetch_all(connection)
        .await?;
    let kept_of = |row| kept_of(row, account, wanted.of_account);
    let kept = rows.iter().map(kept_of).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::cut(kept, wanted.limit, |kept| kept.cursor))
}

fn kept_of(row: &PgRow, account: &Account, of_account: bool) -> Result<Kept, sqlx::Error> {
    let decision = decision_of(row)?;
    let Decision { settled, available, floor, .. } = decision;
    let actor = row.try_get("actor")?;
    let of_account = of_account.then_some(OfAccount { settled, available, floor, actor });
    let decided_at = columns::time(row, "decided_at")?;
    let cursor = (decided_at, row.try_get("seq")?);
    Ok(Kept {
        id: id_of(cursor),
        decided_at,
        kind: row.try_get("kind")?,
        allowed: decision.refusal.is_none(),
        code: decision.refusal,
        message: decision.message(&account.core),
        reservation_id: row.try_get("reservation_id")?,
        user_id: row.try_get("user_id")?,
        feature: row.try_get("feature")?,
        amount: decision.amount,
        of_account,
        limit: decision.limit,
        used: decision.used,
        held: decision.held,
        period_index: decision.period_index,
        resets_at: decision.resets_at,
        position: Position { partition: row.try_get("partition")?, offset: row.try_get("offset")? },
        cursor,
    })
}

/// Names a decision by its key: instant and order, so that it is found without an index of its own.
fn id_of((at, seq): Cursor) -> String {
    format!("{}-{seq}", at.micros())
}

fn key_of(id: &str) -> Option<Cursor> {
    let (micros, seq) = id.rsplit_once('-')?;
    Some((Time::from_micros(micros.parse().ok()?), seq.parse().ok()?))
}

/// A decision with where it was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub decision: Decision,
    pub decided_at: Time,
    pub user_id: Option<String>,
    /// The projected position of that moment.
    pub offset: i64,
}

/// Returns one decision that is kept, if there is one of this id.
pub(crate) async fn with_id(
    connection: &mut PgConnection,
    account: &Account,
    id: &str,
) -> Result<Option<Made>, sqlx::Error> {
    let Some((at, seq)) = key_of(id) else { return Ok(None) };
    let sql = format!(
        "select {COLUMNS} from control.decision where account_id = $1 and decided_at = $2 and seq = $3"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(account.id())
        .bind(pg::timestamp(at))
        .bind(seq)
        .fetch_optional(connection)
        .await?;
    let made = |row: PgRow| {
        Ok(Made {
            decision: decision_of(&row)?,
            decided_at: columns::time(&row, "decided_at")?,
            user_id: row.try_get("user_id")?,
            offset: row.try_get("offset")?,
        })
    };
    row.map(made).transpose()
}

/// Rebuilds the decision from its stored figures.
fn decision_of(row: &PgRow) -> Result<Decision, sqlx::Error> {
    let code: Option<&str> = row.try_get("code")?;
    Ok(Decision {
        refusal: code.map(|_| columns::variant(row, "code")).transpose()?,
        amount: columns::optional_amount(row, "amount")?,
        settled: columns::amount(row, "settled")?,
        available: columns::amount(row, "available")?,
        floor: columns::optional_amount(row, "floor")?,
        limit: columns::optional_amount(row, "user_limit")?,
        used: columns::amount(row, "used")?,
        held: columns::amount(row, "held")?,
        period_index: row.try_get("period_index")?,
        resets_at: columns::time(row, "resets_at")?,
    })
}
