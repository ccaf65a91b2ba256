//! First: what the answer to a repeat or a conflict says about the event that came before.

use ledger_core::event::differs::differs;
use ledger_core::event::{Data, Event, wire};
use ledger_core::fold::Outcome;
use platform::pg::{PgPool, Schema};
use tracing::warn;

use super::outcome::Progress;
use crate::admission::Form;
use crate::stored::stored;

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
    let events: Vec<&Event> = asked.iter().map(|(_, event)| event).collect();
    match stored(pool, schema, &events).await {
        Ok(firsts) => {
            for ((at, sent), first) in asked.iter().zip(firsts) {
                let Some(first) = first else { continue };
                found[*at].duplicate_of = first.duplicate_of;
                if matches!(records[*at].1, Progress::Folded(Outcome::Conflict)) {
                    found[*at].differs = as_sent(differs(&first.event, sent), form);
                }
            }
        }
        Err(error) => warn!(%error, "what came before could not be read"),
    }
    found
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
