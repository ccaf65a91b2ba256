//! Idempotency: what was accepted under an id of its own, kept before it is appended.
//!
//! A repeat finds the same bytes here: it is answered from them, or, where nobody knows whether they reached the
//! journal, they are appended again under the same event id, which folds to one effect.

use platform::pg::{PgConnection, PgPool};
use platform::position::Position;

/// Names a write among those of its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The account; empty where none is concerned.
    pub account: String,
    /// One id space per kind.
    pub kind: &'static str,
    /// The body's own id, the target, or the `Idempotency-Key`; empty for settings, of which one is in force.
    pub key: String,
}

/// A write as kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Hash of what the caller sent.
    pub content: Vec<u8>,
    pub event_id: String,
    pub event: Vec<u8>,
    /// Where the journal has it, once that is known.
    pub position: Option<Position>,
}

/// A row of `control.idempotency` that keeps a write.
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

/// A statement that returns [`KeptRow`]s, whose columns go between its two parts.
macro_rules! query_kept {
    ($before:literal, $after:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            KeptRow,
            $before + r#" content, event_id as "event_id!", event as "event!", "partition", "offset" "# + $after,
            $($argument),+
        )
    };
}

/// Returns what is kept under a name.
pub async fn find(pool: &PgPool, name: &Name) -> Result<Option<Kept>, sqlx::Error> {
    let kept = query_kept!(
        "select",
        "from control.idempotency
         where account_id = $1 and kind = $2 and key = $3 and event is not null",
        name.account,
        name.kind,
        name.key
    );
    Ok(kept.fetch_optional(pool).await?.map(Kept::from))
}

/// Keeps a write unless one is kept under its name, and returns the one that is.
pub async fn keep(pool: &PgPool, name: &Name, new: &Kept) -> Result<Kept, sqlx::Error> {
    // The update changes nothing: it makes a row that came first visible to `returning`.
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
    kept.fetch_one(pool).await.map(Kept::from)
}

/// Keeps a write in the transaction of a decision; says whether nothing was kept under its name before.
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

/// Keeps a setting instead of the one before it.
pub async fn replace(pool: &PgPool, name: &Name, new: &Kept) -> Result<Kept, sqlx::Error> {
    let kept = query_kept!(
        r#"insert into control.idempotency (account_id, kind, key, content, event_id, event, created_at)
           values ($1, $2, $3, $4, $5, $6, clock_timestamp())
           on conflict (account_id, kind, key) do update
           set content     = excluded.content,
               event_id    = excluded.event_id,
               event       = excluded.event,
               "partition" = null,
               "offset"    = null,
               created_at  = excluded.created_at,
               answered_at = null
           returning"#,
        "",
        name.account,
        name.kind,
        name.key,
        new.content,
        new.event_id,
        new.event
    );
    kept.fetch_one(pool).await.map(Kept::from)
}

/// Notes where the journal has a write that was kept by [`keep`].
pub async fn acknowledge(
    pool: &PgPool,
    name: &Name,
    event_id: &str,
    at: Position,
) -> Result<(), sqlx::Error> {
    // The earliest position counts: what was appended twice had its effect there.
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
    .execute(pool)
    .await
    .map(drop)
}

/// Notes where the journal has a setting that was kept by [`replace`].
pub async fn acknowledge_setting(
    pool: &PgPool,
    name: &Name,
    kept: &Kept,
    at: Position,
) -> Result<(), sqlx::Error> {
    // Of settings sent at once, the one that the journal has last is in force, whichever was kept last.
    sqlx::query!(
        r#"update control.idempotency
           set content     = $4,
               event_id    = $5,
               event       = $6,
               "partition" = $7,
               "offset"    = $8,
               answered_at = clock_timestamp()
           where account_id = $1 and kind = $2 and key = $3
             and (event_id = $5 or "offset" is null or "offset" < $8)"#,
        name.account,
        name.kind,
        name.key,
        kept.content,
        kept.event_id,
        kept.event,
        at.partition,
        at.offset
    )
    .execute(pool)
    .await
    .map(drop)
}

/// Forgets a write that had no effect and that the fold does not remember either.
pub async fn forget(pool: &PgPool, name: &Name, event_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from control.idempotency
         where account_id = $1 and kind = $2 and key = $3 and event_id = $4",
        name.account,
        name.kind,
        name.key,
        event_id
    )
    .execute(pool)
    .await
    .map(drop)
}

/// Claims an `Idempotency-Key` for making an API key; says whether it was free.
///
/// Waits for another request of the same name, and claims nothing where that came first.
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

/// Keeps the answer, as JSON, of a request that claimed its `Idempotency-Key`.
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

/// The first answer to a request that made an API key.
pub struct FirstAnswer {
    /// Hash of what the caller sent.
    pub content: Vec<u8>,
    /// JSON.
    pub answer: String,
}

/// Returns the answer that [`keep_answer`] kept.
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
