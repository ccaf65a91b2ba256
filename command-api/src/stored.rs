//! Stored: the first event under an id, as the projection has it.

use engine::tables::event;
use ledger_core::event::Event;
use ledger_core::event::key::ContentHash;
use platform::pg::{self, PgPool, Schema};
use sqlx::Row;

/// The first event that the projection has under an account, id and source.
pub struct Stored {
    pub event: Event,
    pub content: ContentHash,
    pub offset: i64,
    /// The usage that had charged the same call.
    pub duplicate_of: Option<String>,
}

/// Returns for each event the one stored under its id, if there is one.
pub async fn stored(
    pool: &PgPool,
    schema: Schema,
    asked: &[&Event],
) -> Result<Vec<Option<Stored>>, sqlx::Error> {
    let text = |of: fn(&Event) -> &str| asked.iter().map(|event| of(event).to_owned()).collect::<Vec<_>>();
    let accounts = text(|event| event.account.as_str());
    let (ids, sources) = (text(|event| event.id.as_str()), text(|event| event.source.as_str()));
    let statement = format!(
        r#"select record.n, "offset", duplicate_of, {}
           from unnest($1::text[], $2::text[], $3::text[]) with ordinality as record (account_id, event_id, source, n)
           join event using (account_id, event_id, source)"#,
        event::COLUMNS
    );
    let rows = pg::read(pool, schema, |connection| {
        Box::pin(async move {
            let query = sqlx::query(sqlx::AssertSqlSafe(statement));
            query.bind(accounts).bind(ids).bind(sources).fetch_all(connection).await
        })
    })
    .await?;
    let mut found: Vec<Option<Stored>> = asked.iter().map(|_| None).collect();
    for row in &rows {
        let n: i64 = row.try_get("n")?;
        let Some(at) = usize::try_from(n - 1).ok().filter(|at| *at < asked.len()) else { continue };
        found[at] = Some(Stored {
            event: event::read_event(row, &asked[at].account)?,
            content: event::read_content(row)?,
            offset: row.try_get("offset")?,
            duplicate_of: row.try_get("duplicate_of")?,
        });
    }
    Ok(found)
}
