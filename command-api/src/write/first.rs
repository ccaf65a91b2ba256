//! First: the stored event that a repeat or a conflict is told about.

use ledger_core::event::differs::differs;
use ledger_core::event::{Data, Event, wire};
use ledger_core::fold::Outcome;
use platform::pg::{self, PgPool, Schema};
use sqlx::Row;
use tracing::warn;

use super::outcome::Progress;
use crate::admission::Form;

/// Most conflicts and duplicates of one batch that name what they differ from.
const NAMED_MAX: usize = 200;

/// What an answer says about the event that came before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Earlier {
    /// In a conflict, the fields that differ, as sent.
    pub differs: Vec<String>,
    /// The usage that had charged the same call.
    pub duplicate_of: Option<String>,
}

const FIRST: &str = "
    select record.n, event.type, event.occurred_at, event.data::text, event.duplicate_of
    from unnest($1::text[], $2::text[], $3::text[]) with ordinality as record (account_id, event_id, source, n)
    join event using (account_id, event_id, source)
";

/// Reads what the answers to these records say about earlier events. An answer without it is still true, so errors are
/// only logged.
pub async fn earlier(
    pool: &PgPool,
    schema: Schema,
    records: &[(&[u8], &Progress)],
    form: Form,
) -> Vec<Earlier> {
    let mut found = vec![Earlier::default(); records.len()];
    let repeats =
        |progress: &Progress| matches!(progress, Progress::Folded(Outcome::Conflict | Outcome::Duplicate));
    let asked: Vec<(usize, Event)> = (0..records.len())
        .filter(|at| repeats(records[*at].1))
        .filter_map(|at| Some((at, wire::decode(records[at].0).ok()?)))
        .take(NAMED_MAX)
        .collect();
    if asked.is_empty() {
        return found;
    }
    match firsts(pool, schema, &asked).await {
        Ok(firsts) => {
            for ((at, sent), first) in asked.iter().zip(firsts) {
                let Some((first, duplicate_of)) = first else { continue };
                found[*at].duplicate_of = duplicate_of;
                if matches!(records[*at].1, Progress::Folded(Outcome::Conflict)) {
                    found[*at].differs = as_sent(differs(&first, sent), form);
                }
            }
        }
        Err(error) => warn!(%error, "what came before could not be read"),
    }
    found
}

type First = Option<(Event, Option<String>)>;

async fn firsts(pool: &PgPool, schema: Schema, asked: &[(usize, Event)]) -> Result<Vec<First>, sqlx::Error> {
    let text =
        |of: fn(&Event) -> &str| asked.iter().map(|(_, event)| of(event).to_owned()).collect::<Vec<_>>();
    let accounts = text(|event| event.account.as_str());
    let (ids, sources) = (text(|event| event.id.as_str()), text(|event| event.source.as_str()));
    let rows = pg::read(pool, schema, |connection| {
        Box::pin(async move {
            sqlx::query(FIRST).bind(accounts).bind(ids).bind(sources).fetch_all(connection).await
        })
    })
    .await?;
    let mut firsts: Vec<First> = vec![None; asked.len()];
    for row in &rows {
        let n: i64 = row.try_get("n")?;
        let Some(at) = usize::try_from(n - 1).ok().filter(|at| *at < asked.len()) else { continue };
        let (event_type, data): (&str, &str) = (row.try_get("type")?, row.try_get("data")?);
        let Some(Ok(data)) = wire::data(event_type, data) else { continue };
        let occurred_at = pg::time_of(row.try_get("occurred_at")?);
        let first = Event { occurred_at, data, ..asked[at].1.clone() };
        firsts[at] = Some((first, row.try_get("duplicate_of")?));
    }
    Ok(firsts)
}

/// Names fields as the caller's form of usage has them.
fn as_sent(paths: Vec<String>, form: Form) -> Vec<String> {
    match form {
        Form::CloudEvent => paths,
        Form::Plain => paths
            .into_iter()
            .map(|path| match path.strip_prefix("data.") {
                Some(field) => field.to_owned(),
                None if path == "time" => "occurred_at".to_owned(),
                None => path,
            })
            .collect(),
    }
}

/// Names the fields in which a write differs from the one stored under its name, as its body has them.
pub fn differs_from_kept(kept: &[u8], data: &Data) -> Vec<String> {
    let Ok(kept) = wire::decode(kept) else { return Vec::new() };
    let sent = Event { data: data.clone(), ..kept.clone() };
    as_sent(differs(&kept, &sent), Form::Plain)
}
