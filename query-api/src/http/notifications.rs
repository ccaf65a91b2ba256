//! Notifications: messages sent to recipients, and those that could not be sent.

use axum::extract::State;
use ledger_core::event::Channel;
use ledger_core::policy::alert::Kind;
use ledger_core::value::id::Text;
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

use crate::access::Seen;
use crate::answer::{self, Answer, Now};
use crate::app::App;
use crate::list::{self, Limit, Page};
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NotificationsQuery {
    /// Only notifications by this channel.
    channel: Option<Channel>,
    /// Only notifications in this state.
    status: Option<Status>,
    /// Only notifications to this admin or user.
    recipient: Option<String>,
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NotificationStatus")]
#[serde(rename_all = "snake_case")]
enum Status {
    Pending,
    Delivered,
    Parked,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Delivered => "delivered",
            Status::Parked => "parked",
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct Notification {
    notification_id: String,
    #[schemars(with = "String", extend("format" = "uuid"))]
    firing_id: Uuid,
    #[schemars(with = "Kind")]
    kind: String,
    channel: Channel,
    /// An admin or user; `webhook` for the account's webhook.
    recipient: String,
    status: Status,
    /// Attempts begun so far.
    attempts: i32,
    sent_at: Option<Time>,
    subject: String,
    text: String,
    /// Why the last attempt failed, or why the notification is parked.
    #[schemars(with = "Option<Text>")]
    last_error: Option<String>,
    #[serde(skip)]
    cursor: (Time, String),
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/notifications", list)
            .named("listNotifications", "Lists what was sent to whom, newest first.")
            .says("Members see what was sent to them. The position is the alert worker's own, and `at_least` waits for it."),
    ]
}

/// `GET /v1/accounts/{account}/notifications`
async fn list(
    State(app): State<App>,
    seen: Seen,
    Query(query): Query<NotificationsQuery>,
) -> Result<Answer<Now<Page<Notification>>>, Problem> {
    let recipient = seen.user(query.recipient.clone())?;
    let before: Option<(Time, String)> = list::decode(query.cursor.as_deref())?;
    let at_least = query.at_least;
    let (reflects, page) = reading::of_alerts(&app, seen.account, at_least, move |connection, account| {
        Box::pin(async move { load(connection, account, query, recipient, before).await })
    })
    .await?;
    answer::object(&reflects, page)
}

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    query: NotificationsQuery,
    recipient: Option<String>,
    before: Option<(Time, String)>,
) -> Result<Page<Notification>, Problem> {
    let (before_at, before_id) = before.unzip();
    // A condition that may not apply would hide the recipient's index from the planner.
    let of_recipient = if recipient.is_some() { "and recipient = $6" } else { "and $6::text is null" };
    let sql = format!(
        "select notification_id, firing_id, kind, channel, recipient, status, attempts, sent_at, subject, text,
                last_error, created_at
           from delivery.notification
          where account_id = $1
            and ($2::timestamptz is null or (created_at, notification_id) < ($2, $3))
            and ($4::text is null or channel = $4)
            and ($5::text is null or status = $5)
            {of_recipient}
            and kind <> 'referral_invitation'
          order by created_at desc, notification_id desc
          limit {}",
        query.limit.rows_to_ask()
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(account.id())
        .bind(before_at.map(platform::pg::timestamp))
        .bind(before_id)
        .bind(query.channel.as_ref().map(Channel::as_str))
        .bind(query.status.map(Status::as_str))
        .bind(recipient)
        .fetch_all(connection)
        .await?;
    let notifications = rows.iter().map(notification_of).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::cut(notifications, query.limit, |notification| notification.cursor.clone()))
}

fn notification_of(row: &PgRow) -> Result<Notification, sqlx::Error> {
    let notification_id: String = row.try_get("notification_id")?;
    let cursor = (columns::time(row, "created_at")?, notification_id.clone());
    Ok(Notification {
        notification_id,
        firing_id: row.try_get("firing_id")?,
        kind: row.try_get("kind")?,
        channel: columns::variant(row, "channel")?,
        recipient: row.try_get("recipient")?,
        status: columns::variant(row, "status")?,
        attempts: row.try_get("attempts")?,
        sent_at: columns::optional_time(row, "sent_at")?,
        subject: row.try_get("subject")?,
        text: row.try_get("text")?,
        last_error: row.try_get("last_error")?,
        cursor,
    })
}
