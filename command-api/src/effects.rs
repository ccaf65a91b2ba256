//! Effects: events that follow a decision in Postgres. Put into the outbox in its transaction, then appended at once, in
//! their order; the relay appends what a crash has left behind. The same record twice folds once.

use ledger_core::event::{Data, Event};
use ledger_core::id::{EventId, Id, Label, Source};
use ledger_core::time::Time;
use ledger_core::wire;
use runtime::http::Problem;
use runtime::outbox;
use runtime::pg::PgConnection;
use runtime::position::Position;

use crate::App;
use crate::submit::not_appended;

/// What an effect says, beside its account and time.
#[derive(Debug, Clone)]
pub struct Effect {
    /// The account.
    pub account: Id,
    /// The event's producer: one of ours.
    pub source: &'static str,
    /// The event's id.
    pub event_id: EventId,
    /// What it says.
    pub data: Data,
}

impl Effect {
    /// Makes the event.
    pub fn event(self, at: Time, actor: &Label) -> Result<Event, Problem> {
        Ok(Event {
            id: self.event_id,
            source: Source::new(self.source).map_err(Problem::internal)?,
            account: self.account,
            occurred_at: at,
            recorded_at: at,
            actor: actor.clone(),
            data: self.data,
        })
    }
}

/// The relay leaves it to who decided for so long.
const LEAD_SECONDS: f64 = 5.0;

/// Puts events into the outbox, in their order.
pub async fn enqueue(connection: &mut PgConnection, events: &[Event]) -> Result<(), sqlx::Error> {
    for event in events {
        outbox::put(connection, event, LEAD_SECONDS).await?;
    }
    Ok(())
}

const DONE: &str = "
    delete from control.outbox
    where account_id = $1 and event_id = $2 and source = $3 and reservation_id is null";

/// Appends events that are in the outbox, in their order, and returns where they are. What fails stays there.
pub async fn append(app: &App, events: &[Event]) -> Result<Vec<Position>, Problem> {
    let mut positions = Vec::with_capacity(events.len());
    for event in events {
        let appended = app.journal.append(event.account.as_str(), wire::encode(event)).await;
        positions.push(appended.map_err(not_appended)?);
        done(app, event).await?;
    }
    Ok(positions)
}

/// Takes an event out of the outbox that the journal has.
pub async fn done(app: &App, event: &Event) -> Result<(), sqlx::Error> {
    sqlx::query(DONE)
        .bind(event.account.as_str())
        .bind(event.id.as_str())
        .bind(event.source.as_str())
        .execute(&app.pool)
        .await?;
    Ok(())
}
