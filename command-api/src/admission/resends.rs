//! Resends: usage whose id the projection has already, with equal content. It is answered, and not appended again.
//!
//! A caller that sends one id over and over would else fill the journal and the read model with records that have no
//! effect. Only ids that this process met lately are looked up, so that usage under new ids costs no query; what is
//! not recognised here is appended, and the fold calls it a duplicate all the same.

use ledger_core::event::key::content_hash;
use ledger_core::event::{Event, wire};
use metrics::counter;
use platform::pg::{self, PgPool, Schema};
use platform::position::Position;
use tracing::warn;

use super::admitted::{Admitted, NamedHold};
use crate::app::App;

const FIRST: &str = r#"
    select record.n, event."offset", event.content
    from unnest($1::text[], $2::text[], $3::text[]) with ordinality as record (account_id, event_id, source, n)
    join event using (account_id, event_id, source)
"#;

#[derive(sqlx::FromRow)]
struct FirstRow {
    /// The record's number, from 1.
    n: i64,
    offset: i64,
    content: Vec<u8>,
}

/// Sets the position of the first record in each usage that is a resend.
///
/// Usage that settles a hold is not looked up: its hold has yet to learn the usage's position.
pub async fn note_resends(app: &App, admitted: Vec<&mut Admitted>) {
    let met = app.recent_ids.meet(admitted.iter().map(|one| (&one.account, &one.source, &one.id)));
    let candidates = admitted.into_iter().zip(met).filter(|(one, met)| *met && one.hold == NamedHold::None);
    let mut asked: Vec<(&mut Admitted, Event)> =
        candidates.filter_map(|(one, _)| wire::decode(&one.bytes).ok().map(|event| (one, event))).collect();
    if asked.is_empty() {
        return;
    }
    let firsts = match firsts(&app.pool, app.waiter.schema(), &asked).await {
        Ok(firsts) => firsts,
        // Then they are appended, and the fold recognises them.
        Err(error) => return warn!(%error, "resends could not be looked up"),
    };
    let mut resent = 0;
    for FirstRow { n, offset, content } in firsts {
        let Some((one, event)) = usize::try_from(n - 1).ok().and_then(|at| asked.get_mut(at)) else {
            continue;
        };
        if content == content_hash(event).0 {
            let partition = app.journal.partition_of(one.account.as_str());
            one.first = Some(Position { partition, offset });
            resent += 1;
        }
    }
    counter!("ledger_usage_resent_total").increment(resent);
}

async fn firsts(
    pool: &PgPool,
    schema: Schema,
    asked: &[(&mut Admitted, Event)],
) -> Result<Vec<FirstRow>, sqlx::Error> {
    let text =
        |of: fn(&Event) -> &str| asked.iter().map(|(_, event)| of(event).to_owned()).collect::<Vec<_>>();
    let accounts = text(|event| event.account.as_str());
    let (ids, sources) = (text(|event| event.id.as_str()), text(|event| event.source.as_str()));
    pg::read(pool, schema, |connection| {
        Box::pin(async move {
            sqlx::query_as(FIRST).bind(accounts).bind(ids).bind(sources).fetch_all(connection).await
        })
    })
    .await
}
