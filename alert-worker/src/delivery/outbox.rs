//! Outbox: firings that are to be delivered, written in the transaction that records them.

use ledger_core::event::{Basis, Unit};
use ledger_core::policy::alert::{Firing, Kind};
use ledger_core::value::id::{Id, Text};
use ledger_core::value::time::{Time, Zone};
use platform::pg::PgConnection;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Firings that one statement inserts: with a hundred recipients each, some tens of megabytes.
const INSERT_MAX: usize = 2_000;

/// What the words need to know of the account as the rule fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub name: Option<Text>,
    pub unit: Unit,
    /// The zone in which times are shown.
    pub timezone: Zone,
    /// When the billing period began.
    pub period_starts_at: Time,
    /// When it ends; exclusive.
    pub period_ends_at: Time,
    /// What the org alert looks at; none for other kinds.
    pub basis: Option<Basis>,
}

/// Tells whether the subject is a user.
pub(super) const fn is_about_a_user(kind: Kind) -> bool {
    matches!(kind, Kind::UserAlert | Kind::UserLimitReached)
}

/// A firing with all that its notifications need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    pub account_id: Id,
    /// What fired, and who is notified.
    pub firing: Firing,
    pub about: About,
}

/// Puts firings into the outbox, in the caller's transaction; those that are there already notify nobody again.
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
    let inserted = sqlx::query(
        "insert into delivery.outbox (account_id, firing_id, firing, audience, about, created_at)
         select account_id, firing_id, firing::json, audience::json, about::json, clock_timestamp()
         from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[])
              with ordinality as rows (account_id, firing_id, firing, audience, about, place)
         order by place
         on conflict (firing_id) do nothing",
    )
    .bind(account_ids)
    .bind(firing_ids)
    .bind(firings)
    .bind(audiences)
    .bind(abouts)
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected())
}

fn json(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// A row as it is selected: account, firing, audience and about, the last three as text.
pub(super) type Columns = (String, String, String, String);

/// Reads a row back.
pub(super) fn row_of((account_id, firing, audience, about): &Columns) -> Result<OutboxRow, sqlx::Error> {
    Ok(OutboxRow {
        account_id: Id::new(account_id).map_err(|error| sqlx::Error::Decode(error.into()))?,
        firing: Firing { audience: parsed(audience)?, ..parsed(firing)? },
        about: parsed(about)?,
    })
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
