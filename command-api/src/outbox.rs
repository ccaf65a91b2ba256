//! Outbox: events that follow a decision in Postgres, appended again until the journal has them.
//!
//! They are stored in the transaction of their decision. Whoever decided appends at once; the relay takes what is left
//! behind by a crash or by a journal that did not answer, in the order that it was stored. The same record twice folds
//! once.

use std::time::Duration;

use ledger_core::id::{EventId, Id, Source};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::App;
use crate::holds::{Ask, Landed};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Records of one look.
const RECORDS_MAX: i64 = 500;

// Due again where this process does not come to an end with them. The clock is read once, and so the index is used.
const TAKE: &str = "
    with taken as (
        update control.outbox
        set due_at = clock_timestamp() + interval '10 seconds'
        where outbox_id = any(array(
            select outbox_id
            from control.outbox
            where due_at <= (select clock_timestamp())
            order by outbox_id
            limit $1
            for update skip locked))
        returning outbox_id, account_id, event_id, source, event, reservation_id
    )
    select *
    from taken
    order by outbox_id";

const DONE: &str = "delete from control.outbox where outbox_id = any($1)";

/// Number, account, event id, source, record, reservation.
type Row = (i64, String, String, String, Vec<u8>, Option<String>);

/// A record that the journal may not have.
struct Waiting {
    outbox_id: i64,
    account: Id,
    event_id: EventId,
    source: Source,
    event: Vec<u8>,
    /// The hold that it settles.
    reservation: Option<Id>,
}

impl Waiting {
    fn of(row: Row) -> Result<Waiting, sqlx::Error> {
        let (outbox_id, account, event_id, source, event, reservation) = row;
        Ok(Waiting {
            outbox_id,
            account: named(&account, Id::new)?,
            event_id: named(&event_id, EventId::new)?,
            source: named(&source, Source::new)?,
            event,
            reservation: reservation.map(|reservation| named(&reservation, Id::new)).transpose()?,
        })
    }
}

/// Relays what waits until `shutdown`.
pub async fn relay(app: App, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(PAUSE) => {}
        }
        if let Err(error) = relay_once(&app).await {
            warn!(%error, "the outbox could not be relayed, trying again");
        }
    }
}

async fn relay_once(app: &App) -> Result<(), sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(TAKE).bind(RECORDS_MAX).fetch_all(&app.pool).await?;
    let waiting: Vec<Waiting> = rows.into_iter().map(Waiting::of).collect::<Result<_, _>>()?;
    if waiting.is_empty() {
        return Ok(());
    }
    let records: Vec<(&Id, &Vec<u8>)> = waiting.iter().map(|one| (&one.account, &one.event)).collect();
    let appended = app.journal.append_all(&records).await;
    let (mut done, mut landed) = (Vec::new(), Vec::new());
    for (one, outcome) in waiting.iter().zip(appended) {
        match (outcome, &one.reservation) {
            (Err(error), _) => {
                warn!(%error, account_id = %one.account, "a record of the outbox was not acknowledged");
            }
            (Ok(_), None) => done.push(one.outbox_id),
            (Ok(position), Some(reservation)) => landed.push((one, reservation, position)),
        }
    }
    info!(done = done.len() + landed.len(), of = waiting.len(), "relayed from the outbox");
    sqlx::query(DONE).bind(done).execute(&app.pool).await?;
    // What is not noted is relayed again, and folds to a duplicate.
    for (one, reservation, position) in landed {
        let (event_id, source) = (one.event_id.clone(), one.source.clone());
        let landed = Landed { reservation: reservation.clone(), event_id, source, position };
        app.holds.tell(&one.account, Ask::Landed(landed)).await;
    }
    Ok(())
}

fn named<T, E>(text: &str, parse: fn(&str) -> Result<T, E>) -> Result<T, sqlx::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    parse(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
