//! Resends: usage whose id the projection has already, with equal content. It is answered, and not appended again.
//!
//! A caller that sends one id over and over would else fill the journal and the read model with records that have no
//! effect. Only ids that this process saw lately are looked up, so that usage under new ids costs no query; what is
//! not recognised here is appended, and the fold calls it a duplicate all the same.

use ledger_core::event::key::content_hash;
use ledger_core::event::{Event, wire};
use metrics::counter;
use platform::position::Position;
use tracing::warn;

use super::admitted::{Admitted, NamedHold};
use crate::app::App;
use crate::stored::stored;

/// Sets the position of the first record in each usage that is a resend.
///
/// Usage that settles a hold is not looked up: its hold has yet to learn the usage's position.
pub async fn note_resends(app: &App, admitted: Vec<&mut Admitted>) {
    let seen = app.recent_ids.insert(admitted.iter().map(|one| (&one.account, &one.source, &one.id)));
    let candidates =
        admitted.into_iter().zip(seen).filter(|(one, seen)| *seen && one.hold == NamedHold::None);
    let mut asked: Vec<(&mut Admitted, Event)> =
        candidates.filter_map(|(one, _)| wire::decode(&one.bytes).ok().map(|event| (one, event))).collect();
    if asked.is_empty() {
        return;
    }
    let events: Vec<&Event> = asked.iter().map(|(_, event)| event).collect();
    let firsts = match stored(&app.pool, app.waiter.schema(), &events).await {
        Ok(firsts) => firsts,
        // Then they are appended, and the fold recognises them.
        Err(error) => return warn!(%error, "resends could not be looked up"),
    };
    let mut resent = 0;
    for ((one, event), first) in asked.iter_mut().zip(firsts) {
        let Some(first) = first.filter(|first| first.content == content_hash(event)) else { continue };
        let partition = app.journal.partition_of(one.account.as_str());
        one.first = Some(Position { partition, offset: first.offset });
        resent += 1;
    }
    counter!("ledger_usage_resent_total").increment(resent);
}
