//! Idempotency: stores a write under an id of its own before it is appended.
//!
//! A repeat finds the same bytes here: it gets the stored answer or, if the append was not acknowledged, appends them
//! again under the same event id, which folds to one effect.

use ledger_core::value::id::AccountId;
use platform::pg::{self, PgConnection, PgPool};
use platform::position::Position;

use crate::app::App;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Empty if the write concerns no account.
    pub account: String,
    /// One id space per kind.
    pub kind: &'static str,
    /// The body's own id, the target, or the `Idempotency-Key`; empty for a setting, of which only one is in force.
    pub key: String,
}

impl Name {
    /// Returns the name of the lock on its row among [`Turns`](platform::pg::Turns).
    fn lock(&self) -> String {
        format!("write/{}/{}/{}", self.account, self.kind, self.key)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Hash of the request's content.
    pub content: Vec<u8>,
    pub event_id: String,
    pub event: Vec<u8>,
    /// The journal position, once it is known.
    pub position: Option<Position>,
}

/// A row of `control.idempotency` with a write.
struct KeptRow {
    content: Vec<u8>,
    event_id: String,
    event: Vec<u8>,
    partition: Option<i32>,
    offset: Option<i64>,
}

impl From<KeptRow> for Kept {
    fn from(row: KeptRow) -> Kept {
        let position =
            row.partition.zip(row.offset).map(|(partition, offset)| Position { partition, offset });
        Kept { content: row.content, event_id: row.event_id, event: row.event, position }
    }
}

/// A statement that returns [`KeptRow`]s; their columns go between its two parts.
macro_rules! query_kept {
    ($before:literal, $after:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            KeptRow,
            $before + r#" content, event_id as "event_id!", event as "event!", "partition", "offset" "# + $after,
            $($argument),+
        )
    };
}

pub async fn find(pool: &PgPool, name: &Name) -> Result<Option<Kept>, sqlx::Error> {
    let kept = query_kept!(
        "select",
        "from control.idempotency
         where account_id = $1 and kind = $2 and key = $3 and event is not null",
        name.account,
        name.kind,
        name.key
    );
    Ok(kept.fetch_optional(pg::bounded(pool)).await?.map(Kept::from))
}

/// Stores a write unless its name exists, and returns the stored one.
pub async fn keep(app: &App, name: &Name, new: &Kept) -> Result<Kept, sqlx::Error> {
    let _turn = app.turns.take(&name.lock()).await?;
    // The update changes nothing: it makes an existing row visible to `returning`.
    let kept = query_kept!(
        "insert into control.idempotency as kept (account_id, kind, key, content, event_id, event, created_at)
         values ($1, $2, $3, $4, $5, $6, clock_timestamp())
         on conflict (account_id, kind, key) do update
         set created_at = kept.created_at
         returning",
        "",
        name.account,
        name.kind,
        name.key,
        new.content,
        new.event_id,
        new.event
    );
    kept.fetch_one(pg::bounded(&app.pool)).await.map(Kept::from)
}

/// Stores a write in the transaction of a decision; returns whether its name was new.
pub async fn keep_in(connection: &mut PgConnection, name: &Name, new: &Kept) -> Result<bool, sqlx::Error> {
    let kept = sqlx::query!(
        "insert into control.idempotency (account_id, kind, key, content, event_id, event, created_at)
         values ($1, $2, $3, $4, $5, $6, clock_timestamp())
         on conflict (account_id, kind, key) do nothing",
        name.account,
        name.kind,
        name.key,
        new.content,
        new.event_id,
        new.event
    )
    .execute(connection)
    .await?;
    Ok(kept.rows_affected() > 0)
}

/// Stores a setting in place of the last one, unless another has taken that place since; returns whether it has.
pub async fn replace(app: &App, name: &Name, last: Option<&Kept>, new: &Kept) -> Result<bool, sqlx::Error> {
    let _turn = app.turns.take(&name.lock()).await?;
    let replaced = sqlx::query!(
        r#"insert into control.idempotency as last (account_id, kind, key, content, event_id, event, created_at)
           values ($1, $2, $3, $4, $5, $6, clock_timestamp())
           on conflict (account_id, kind, key) do update
           set content     = excluded.content,
               event_id    = excluded.event_id,
               event       = excluded.event,
               "partition" = null,
               "offset"    = null,
               created_at  = excluded.created_at,
               answered_at = null
           where last.event_id = $7"#,
        name.account,
        name.kind,
        name.key,
        new.content,
        new.event_id,
        new.event,
        last.map(|last| last.event_id.as_str())
    );
    Ok(replaced.execute(pg::bounded(&app.pool)).await?.rows_affected() > 0)
}

/// Records the journal position of a write stored by [`keep`] or [`replace`].
pub async fn acknowledge(app: &App, name: &Name, event_id: &str, at: Position) -> Result<(), sqlx::Error> {
    let _turn = app.turns.take(&name.lock()).await?;
    // The earliest position counts: a record appended twice had its effect there.
    sqlx::query!(
        r#"update control.idempotency
           set "partition" = $5,
               "offset"    = least("offset", $6),
               answered_at = clock_timestamp()
           where account_id = $1 and kind = $2 and key = $3 and event_id = $4"#,
        name.account,
        name.kind,
        name.key,
        event_id,
        at.partition,
        at.offset
    )
    .execute(pg::bounded(&app.pool))
    .await
    .map(drop)
}

/// Deletes a write that had no effect and that the fold does not remember.
pub async fn forget(app: &App, name: &Name, event_id: &str) -> Result<(), sqlx::Error> {
    let _turn = app.turns.take(&name.lock()).await?;
    sqlx::query!(
        "delete from control.idempotency
         where account_id = $1 and kind = $2 and key = $3 and event_id = $4",
        name.account,
        name.kind,
        name.key,
        event_id
    )
    .execute(pg::bounded(&app.pool))
    .await
    .map(drop)
}

/// Deletes the settings of a kind, so that what was last sent becomes a new event when it is sent again: another kind
/// of setting has changed what is in force.
pub async fn forget_settings(
    pool: &PgPool,
    account: &AccountId,
    kind: &'static str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from control.idempotency where account_id = $1 and kind = $2",
        account.as_str(),
        kind
    )
    .execute(pg::bounded(pool))
    .await
    .map(drop)
}

/// Claims an `Idempotency-Key` for the creation of an API key; returns whether it was free.
///
/// Waits for a concurrent request of the same name, and claims nothing if that one succeeds.
pub async fn claim_key(
    connection: &mut PgConnection,
    key: &str,
    content: &[u8],
) -> Result<bool, sqlx::Error> {
    let claimed = sqlx::query!(
        "insert into control.idempotency (account_id, kind, key, content, created_at)
         values ('', 'key', $1, $2, clock_timestamp())
         on conflict do nothing",
        key,
        content
    )
    .execute(connection)
    .await?;
    Ok(claimed.rows_affected() > 0)
}

/// Stores the answer, as JSON, of a request that claimed its `Idempotency-Key`.
pub async fn keep_answer(connection: &mut PgConnection, key: &str, answer: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update control.idempotency
         set answer = $2::text::json, answered_at = clock_timestamp()
         where account_id = '' and kind = 'key' and key = $1",
        key,
        answer
    )
    .execute(connection)
    .await
    .map(drop)
}

/// The first answer to the creation of an API key.
pub struct FirstAnswer {
    pub content: Vec<u8>,
    /// JSON.
    pub answer: String,
}

/// Returns the answer stored by [`keep_answer`].
pub async fn first_answer(connection: &mut PgConnection, key: &str) -> Result<FirstAnswer, sqlx::Error> {
    sqlx::query_as!(
        FirstAnswer,
        r#"select content, answer::text as "answer!"
           from control.idempotency
           where account_id = '' and kind = 'key' and key = $1"#,
        key
    )
    .fetch_one(connection)
    .await
}
