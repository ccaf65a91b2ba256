//! `delivery.outbox`: firings to deliver, written in the transaction that records them.

use ledger_core::event::{Basis, Unit};
use ledger_core::policy::alert::{Firing, Kind};
use ledger_core::value::id::{AccountId, Text};
use ledger_core::value::time::{Time, Zone};
use platform::pg::PgConnection;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Firings inserted by one statement: with a hundred recipients each, some tens of megabytes.
const INSERT_MAX: usize = 2_000;

/// What notices need to know about the account at the time of the firing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub name: Option<Text>,
    pub unit: Unit,
    /// The zone in which notices show times.
    pub timezone: Zone,
    pub period_starts_at: Time,
    /// When it ends; exclusive.
    pub period_ends_at: Time,
    /// What the org alert compares; none for other kinds.
    pub basis: Option<Basis>,
}

pub(super) const fn is_about_a_user(kind: Kind) -> bool {
    matches!(kind, Kind::UserAlert | Kind::UserLimitReached)
}

/// A firing with everything that its notifications need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    pub account_id: AccountId,
    /// Carries the recipients too.
    pub firing: Firing,
    pub about: About,
    /// It fired before this database was restored from a backup, and may have been sent then.
    pub is_from_before: bool,
}

/// Puts firings into the outbox, in the caller's transaction; existing ones are not sent again.
///
/// Returns how many are new.
pub async fn enqueue(connection: &mut PgConnection, rows: &[OutboxRow]) -> Result<u64, sqlx::Error> {
    let mut inserted = 0;
    for some in rows.chunks(INSERT_MAX) {
        inserted += insert(connection, some).await?;
    }
    Ok(inserted)
}

async fn insert(connection: &mut PgConnection, rows: &[OutboxRow]) -> Result<u64, sqlx::Error> {
    let account_ids: Vec<&str> = rows.iter().map(|row| row.account_id.as_str()).collect();
    let firing_ids: Vec<Uuid> = rows.iter().map(|row| row.firing.firing_id).collect();
    let firings = rows.iter().map(|row| json(&row.firing)).collect::<Result<Vec<_>, _>>()?;
    let audiences = rows.iter().map(|row| json(&row.firing.audience)).collect::<Result<Vec<_>, _>>()?;
    let abouts = rows.iter().map(|row| json(&row.about)).collect::<Result<Vec<_>, _>>()?;
    let from_before: Vec<bool> = rows.iter().map(|row| row.is_from_before).collect();
    let inserted = sqlx::query_file!(
        "src/delivery/sql/insert_firings.sql",
        &account_ids as &[&str],
        &firing_ids,
        &firings,
        &audiences,
        &abouts,
        &from_before,
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected())
}

fn json(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// The columns that are read, the JSON ones as text.
struct Columns {
    account_id: String,
    firing: String,
    audience: String,
    about: String,
    is_from_before: bool,
}

impl Columns {
    fn parse(&self) -> Result<OutboxRow, sqlx::Error> {
        Ok(OutboxRow {
            account_id: AccountId::new(&self.account_id)
                .map_err(|error| sqlx::Error::Decode(error.into()))?,
            firing: Firing { audience: parsed(&self.audience)?, ..parsed(&self.firing)? },
            about: parsed(&self.about)?,
            is_from_before: self.is_from_before,
        })
    }
}

/// Returns whether any firing waits to be published.
pub(super) async fn has_unpublished(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // With `exists` the planner would scan the table, including everything published before the first match.
    let first = sqlx::query_scalar!(
        "select seq from delivery.outbox where published_at is null order by seq limit 1"
    );
    Ok(first.fetch_optional(connection).await?.is_some())
}

/// Reads unpublished firings, oldest first.
pub(super) async fn unpublished(
    connection: &mut PgConnection,
    rows_max: i64,
) -> Result<Vec<OutboxRow>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Columns,
        r#"select account_id, firing::text as "firing!", audience::text as "audience!", about::text as "about!", is_from_before
           from delivery.outbox
           where published_at is null
           order by seq
           limit $1"#,
        rows_max,
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(Columns::parse).collect()
}

/// Locks firings that are not expanded and that no other worker is expanding, oldest first.
pub(super) async fn lock_unexpanded(
    connection: &mut PgConnection,
    rows_max: i64,
) -> Result<Vec<OutboxRow>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Columns,
        r#"select account_id, firing::text as "firing!", audience::text as "audience!", about::text as "about!", is_from_before
           from delivery.outbox
           where expanded_at is null
           order by seq
           limit $1
           for update skip locked"#,
        rows_max,
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(Columns::parse).collect()
}

/// Records that `ledger.alerts` has these firings.
pub(super) async fn mark_published(
    connection: &mut PgConnection,
    firings: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update delivery.outbox set published_at = clock_timestamp() where firing_id = any($1)",
        firings,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Records that the notifications of these firings exist.
pub(super) async fn mark_expanded(
    connection: &mut PgConnection,
    firings: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update delivery.outbox set expanded_at = clock_timestamp() where firing_id = any($1)",
        firings,
    )
    .execute(connection)
    .await
    .map(drop)
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
