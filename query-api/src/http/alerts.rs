//! Alerts: the rules of an account with their state, and its firings.

use axum::extract::State;
use axum::http::HeaderMap;
use ledger_core::event::{Channel, Recipients};
use ledger_core::policy::alert::{AlertView, Kind, Watch};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AlertId, EventId, SubjectId};
use ledger_core::value::time::Time;
use platform::pg::columns;
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Answer, Format, Now, Record};
use crate::app::App;
use crate::list::{self, Limit, Page};
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlertsQuery {
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/alerts", list)
            .named("listAlerts", "Lists the alerts on the account's figures with their state, by id.")
            .says(
                "The position is the alert worker's own, and `at_least` waits for it. Answers with CSV if `Accept` \
                 prefers `text/csv`.",
            ),
        answer::csv(get("/v1/accounts/{account}/alerts.csv", list))
            .named("exportAlerts", "Lists the alerts on the account's figures with their state as CSV, by id."),
        get("/v1/accounts/{account}/firings", firings)
            .named("listFirings", "Lists what fired when, and at what figure, newest first.")
            .says("The position is the alert worker's own, and `at_least` waits for it."),
    ]
}

const HEADER: [&str; 8] =
    ["alert_id", "basis", "threshold", "threshold_version", "recipients", "channels", "state", "fired_at"];

impl Record for AlertView {
    fn values(&self) -> Vec<String> {
        let recipients = match &self.recipients {
            Recipients::AllAdmins => word(&self.recipients),
            Recipients::These(ids) => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        };
        let channels: Vec<&str> = self.channels.iter().map(Channel::as_str).collect();
        vec![
            self.alert_id.to_string(),
            word(&self.basis),
            self.threshold.to_string(),
            self.threshold_version.to_string(),
            recipients,
            channels.join(" "),
            word(&self.state),
            self.fired_at.map(|at| at.to_string()).unwrap_or_default(),
        ]
    }
}

/// Returns the word that a value is in JSON.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// `GET /v1/accounts/{account}/alerts`
async fn list(
    State(app): State<App>,
    Whole(account): Whole,
    headers: HeaderMap,
    Query(query): Query<AlertsQuery>,
) -> Result<Answer<Now<Page<AlertView>>>, Problem> {
    let format = Format::of(&headers);
    let after: Option<AlertId> = list::decode(query.cursor.as_deref())?;
    let limit = query.limit;
    let (reflects, page) = reading::of_alerts(&app, account, query.at_least, move |connection, account| {
        Box::pin(async move {
            let watch = watch_of(connection, account).await?;
            let rest = watch.alerts(&account.core).filter(|alert| Some(&alert.alert_id) > after.as_ref());
            let rows = rest.take(usize::try_from(limit.rows_to_ask()).unwrap_or_default()).collect();
            Ok(Page::cut(rows, limit, |alert| alert.alert_id.clone()))
        })
    })
    .await?;
    answer::page(&reflects, &format, &HEADER, page)
}

async fn watch_of(connection: &mut PgConnection, account: &Account) -> Result<Watch, Problem> {
    let row = sqlx::query("select watch::text from account where account_id = $1")
        .bind(account.id())
        .fetch_one(connection)
        .await?;
    Ok(columns::json_of(&row, "watch")?)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FiringsQuery {
    kind: Option<Kind>,
    alert_id: Option<AlertId>,
    subject: Option<SubjectId>,
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

/// A firing, as admins read it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Firing")]
pub(crate) struct FiringView {
    #[schemars(with = "String", extend("format" = "uuid"))]
    firing_id: Uuid,
    pub kind: Kind,
    pub alert_id: Option<AlertId>,
    pub subject: SubjectId,
    threshold: Credits,
    threshold_version: i32,
    period_index: i64,
    pub figure: Credits,
    pub fired_at: Time,
    pub event_id: EventId,
    /// Its position among the firings of its account.
    #[serde(skip)]
    pub cursor: Cursor,
}

/// Offset of the folded event, and order within it.
pub(crate) type Cursor = (i64, i32);

/// `GET /v1/accounts/{account}/firings`
async fn firings(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<FiringsQuery>,
) -> Result<Answer<Now<Page<FiringView>>>, Problem> {
    let before: Option<Cursor> = list::decode(query.cursor.as_deref())?;
    let (reflects, page) = reading::of_alerts(&app, account, query.at_least, move |connection, account| {
        Box::pin(async move { load_firings(connection, account, query, before).await })
    })
    .await?;
    answer::object(&reflects, page)
}

const FIRING_COLUMNS: &str = r#"firing_id, kind, alert_id, subject, threshold::text, threshold_version, period_index,
    figure::text, fired_at, event_id, "offset", seq"#;

async fn load_firings(
    connection: &mut PgConnection,
    account: &Account,
    query: FiringsQuery,
    before: Option<Cursor>,
) -> Result<Page<FiringView>, Problem> {
    let (offset, seq) = before.unwrap_or((i64::MAX, 0));
    // A condition that may not apply would hide the subject's index from the planner.
    let of_subject = if query.subject.is_some() { "and subject = $6" } else { "and $6::text is null" };
    let sql = format!(
        r#"select {FIRING_COLUMNS}
             from firing
            where account_id = $1
              and ("offset", seq) < ($2, $3)
              and ($4::text is null or kind = $4)
              and ($5::text is null or alert_id = $5)
              {of_subject}
            order by "offset" desc, seq desc
            limit {}"#,
        query.limit.rows_to_ask()
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(account.id())
        .bind(offset)
        .bind(seq)
        .bind(query.kind.map(|kind| kind.as_str()))
        .bind(query.alert_id.as_ref().map(AlertId::as_str))
        .bind(query.subject.as_ref().map(SubjectId::as_str))
        .fetch_all(connection)
        .await?;
    let firings = rows.iter().map(firing_of).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::cut(firings, query.limit, |firing| firing.cursor))
}

/// Returns the firings after a cursor, oldest first.
pub(crate) async fn firings_after(
    connection: &mut PgConnection,
    account: &Account,
    (offset, seq): Cursor,
    rows_max: usize,
) -> Result<Vec<FiringView>, sqlx::Error> {
    let sql = format!(
        r#"select {FIRING_COLUMNS}
             from firing
            where account_id = $1
              and ("offset", seq) > ($2, $3)
            order by "offset", seq
            limit {rows_max}"#
    );
    let rows =
        sqlx::query(AssertSqlSafe(sql)).bind(account.id()).bind(offset).bind(seq).fetch_all(connection);
    rows.await?.iter().map(firing_of).collect()
}

/// Returns one firing, if the account has one of this id.
pub(crate) async fn with_id(
    connection: &mut PgConnection,
    account: &Account,
    firing_id: Uuid,
) -> Result<Option<FiringView>, sqlx::Error> {
    let sql = format!("select {FIRING_COLUMNS} from firing where account_id = $1 and firing_id = $2");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(account.id()).bind(firing_id);
    query.fetch_optional(connection).await?.as_ref().map(firing_of).transpose()
}

fn firing_of(row: &PgRow) -> Result<FiringView, sqlx::Error> {
    let alert_id: Option<&str> = row.try_get("alert_id")?;
    Ok(FiringView {
        firing_id: row.try_get("firing_id")?,
        kind: columns::variant(row, "kind")?,
        alert_id: alert_id.map(columns::parsed).transpose()?,
        subject: columns::name(row, "subject")?,
        threshold: columns::amount(row, "threshold")?,
        threshold_version: row.try_get("threshold_version")?,
        period_index: row.try_get("period_index")?,
        figure: columns::amount(row, "figure")?,
        fired_at: columns::time(row, "fired_at")?,
        event_id: columns::name(row, "event_id")?,
        cursor: (row.try_get("offset")?, row.try_get("seq")?),
    })
}
