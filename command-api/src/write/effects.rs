//! Effects: events that follow from a decision in Postgres.
//!
//! They enter the outbox in the decision's transaction and are appended at once, in order. After a crash the relay
//! appends them. The same record twice folds once.

use std::time::Duration;

use engine::outbox;
use ledger_core::event::{Data, Event, wire};
use ledger_core::value::id::{AccountId, EventId, Label, Source};
use ledger_core::value::time::Time;
use platform::failpoint;
use platform::pg::PgConnection;
use platform::position::Position;
use tokio::time::{Instant, sleep};
use web::http::Problem;

use super::append::not_appended;
use crate::app::App;

/// The parts of an effect besides its account and time.
#[derive(Debug, Clone)]
pub struct Effect {
    pub account: AccountId,
    /// The event's producer, always one of the ledger's own.
    pub source: &'static str,
    pub event_id: EventId,
    pub data: Data,
}

impl Effect {
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

/// The relay skips an event for this long, while the deciding process appends it. If that takes longer, both append it.
const LEAD_SECONDS: f64 = 5.0;
/// Longest wait for older events of the account; shorter than the lead, so that the relay takes over from there.
const OLDER_WAIT_MAX: Duration = Duration::from_secs(2);
/// Pause between two searches for older events that are being appended.
const OLDER_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Put {
    /// The position in the outbox.
    pub outbox_id: i64,
    pub event: Event,
}

/// Puts events into the outbox, in order.
pub async fn enqueue(connection: &mut PgConnection, events: Vec<Event>) -> Result<Vec<Put>, sqlx::Error> {
    let mut put = Vec::with_capacity(events.len());
    for event in events {
        let outbox_id = outbox::put(connection, &event, LEAD_SECONDS).await?;
        put.push(Put { outbox_id, event });
    }
    Ok(put)
}

/// Appends events from the outbox, in order, and returns their positions. A failed event stays there, and so do all
/// later events if older ones of their account are not appended in time.
pub async fn append(app: &App, put: &[Put]) -> Result<Vec<Position>, Problem> {
    let deadline = Instant::now() + OLDER_WAIT_MAX;
    let mut positions = Vec::with_capacity(put.len());
    for Put { outbox_id, event } in put {
        failpoint::hit("effects.before_append");
        if !nothing_before(app, &event.account, *outbox_id, deadline).await? {
            return Ok(positions);
        }
        let appended = app.journal.append(event.account.as_str(), wire::encode(event)).await;
        positions.push(appended.map_err(not_appended)?);
        outbox::done(&app.pool, vec![*outbox_id]).await?;
    }
    Ok(positions)
}

/// Waits until the journal has all of the account's effects now in the outbox; false if not in time.
pub async fn all_appended(app: &App, account: &AccountId, deadline: Instant) -> Result<bool, Problem> {
    nothing_before(app, account, i64::MAX, deadline).await
}

/// Waits until no older event of the account is in the outbox.
async fn nothing_before(
    app: &App,
    account: &AccountId,
    outbox_id: i64,
    deadline: Instant,
) -> Result<bool, Problem> {
    while !outbox::is_first(&app.pool, account, outbox_id).await? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(OLDER_PAUSE).await;
    }
    Ok(true)
}
