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

type Row = (Vec<u8>, String, Vec<u8>, Option<i32>, Option<i64>);

fn kept(row: Row) -> Kept {
    let (content, event_id, event, partition, offset) = row;
    let position = partition.zip(offset).map(|(partition, offset)| Position { partition, offset });
    Kept { content, event_id, event, position }
}

const FIND: &str = r#"
    select content, event_id, event, "partition", "offset"
    from control.idempotency
    where account_id = $1 and kind = $2 and key = $3 and event is not null
"#;

/// Returns what is kept under a name.
pub async fn find(pool: &PgPool, name: &Name) -> Result<Option<Kept>, sqlx::Error> {
    let row: Option<Row> =
        sqlx::query_as(FIND).bind(&name.account).bind(name.kind).bind(&name.key).fetch_optional(pool).await?;
    Ok(row.map(kept))
}

/// The update changes nothing: it makes a row that came first visible to `returning`.
const KEEP: &str = r#"
    insert into control.idempotency as kept (account_id, kind, key, content, event_id, event, created_at)
    values ($1, $2, $3, $4, $5, $6, clock_timestamp())
    on conflict (account_id, kind, key) do update
    set created_at = kept.created_at
    returning content, event_id, event, "partition", "offset"
"#;

/// Keeps a write unless one is kept under its name, and returns the one that is.
pub async fn keep(pool: &PgPool, name: &Name, new: &Kept) -> Result<Kept, sqlx::Error> {
    write(pool, KEEP, name, new).await
}

const KEEP_IN: &str = "
    insert into control.idempotency (account_id, kind, key, content, event_id, event, created_at)
    values ($1, $2, $3, $4, $5, $6, clock_timestamp())
    on conflict (account_id, kind, key) do nothing
";

/// Keeps a write in the transaction of a decision; says whether nothing was kept under its name before.
pub async fn keep_in(connection: &mut PgConnection, name: &Name, new: &Kept) -> Result<bool, sqlx::Error> {
    let kept = sqlx::query(KEEP_IN)
        .bind(&name.account)
        .bind(name.kind)
        .bind(&name.key)
        .bind(&new.content)
        .bind(&new.event_id)
        .bind(&new.event)
        .execute(connection)
        .await?;
    Ok(kept.rows_affected() > 0)
}

const REPLACE: &str = r#"
    insert into control.idempotency (account_id, kind, key, content, event_id, event, created_at)
    values ($1, $2, $3, $4, $5, $6, clock_timestamp())
    on conflict (account_id, kind, key) do update
    set content     = excluded.content,
        event_id    = excluded.event_id,
        event       = excluded.event,
        "partition" = null,
        "offset"    = null,
        created_at  = excluded.created_at,
        answered_at = null
    returning content, event_id, event, "partition", "offset"
"#;

/// Keeps a setting in place of the one before it.
pub async fn replace(pool: &PgPool, name: &Name, new: &Kept) -> Result<Kept, sqlx::Error> {
    write(pool, REPLACE, name, new).await
}

async fn write(pool: &PgPool, sql: &'static str, name: &Name, new: &Kept) -> Result<Kept, sqlx::Error> {
    let row: Row = sqlx::query_as(sql)
        .bind(&name.account)
        .bind(name.kind)
        .bind(&name.key)
        .bind(&new.content)
        .bind(&new.event_id)
        .bind(&new.event)
        .fetch_one(pool)
        .await?;
    Ok(kept(row))
}

/// The earliest place counts: what was appended twice had its effect there.
const ACKNOWLEDGE: &str = r#"
    update control.idempotency
    set "partition" = $5,
        "offset"    = least("offset", $6),
        answered_at = clock_timestamp()
    where account_id = $1 and kind = $2 and key = $3 and event_id = $4
"#;

/// Notes where the journal has a write that was kept by [`keep`].
pub async fn acknowledge(
    pool: &PgPool,
    name: &Name,
    event_id: &str,
    at: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query(ACKNOWLEDGE)
        .bind(&name.account)
        .bind(name.kind)
        .bind(&name.key)
        .bind(event_id)
        .bind(at.partition)
        .bind(at.offset)
        .execute(pool)
        .await?;
    Ok(())
}

/// Of settings sent at once, the one that the journal has last is in force, whichever was kept last.
const ACKNOWLEDGE_SETTING: &str = r#"
    update control.idempotency
    set content     = $4,
        event_id    = $5,
        event       = $6,
        "partition" = $7,
        "offset"    = $8,
        answered_at = clock_timestamp()
    where account_id = $1 and kind = $2 and key = $3
      and (event_id = $5 or "offset" is null or "offset" < $8)
"#;

/// Notes where the journal has a setting that was kept by [`replace`].
pub async fn acknowledge_setting(
    pool: &PgPool,
    name: &Name,
    kept: &Kept,
    at: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query(ACKNOWLEDGE_SETTING)
        .bind(&name.account)
        .bind(name.kind)
        .bind(&name.key)
        .bind(&kept.content)
        .bind(&kept.event_id)
        .bind(&kept.event)
        .bind(at.partition)
        .bind(at.offset)
        .execute(pool)
        .await?;
    Ok(())
}

const FORGET: &str = "
    delete from control.idempotency
    where account_id = $1 and kind = $2 and key = $3 and event_id = $4
";

/// Forgets a write that had no effect and that the fold does not remember either.
pub async fn forget(pool: &PgPool, name: &Name, event_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query(FORGET)
        .bind(&name.account)
        .bind(name.kind)
        .bind(&name.key)
        .bind(event_id)
        .execute(pool)
        .await?;
    Ok(())
}
