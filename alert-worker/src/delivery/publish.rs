//! Publishing: writes firings as events to `ledger.alerts`, for other systems.

use std::collections::HashSet;

use ledger_core::policy::alert::Firing;
use ledger_core::value::time::Time;
use platform::kafka::{AppendError, Appender};
use platform::pg::{self, PgConnection, PgPool};
use serde::Serialize;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::outbox::{self, OutboxRow};

pub const FIRED: &str = "ledger.alert.fired.v1";
const SOURCE: &str = "urn:ledger:alerts";
const SCHEMA: &str = "schemas/alert.fired.v1.json";

const ROWS_MAX: i64 = 1_000;
/// Advisory lock of a publishing round, which keeps an account's firings in order; the number is arbitrary.
const PUBLISH_LOCK: i64 = 0x6c65_6467_6572_0002;

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: Uuid,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: &'a str,
    time: Time,
    datacontenttype: &'static str,
    dataschema: &'static str,
    data: &'a Firing,
}

/// Returns the firing as a CloudEvent: the record in `ledger.alerts`, and the body of webhooks.
pub fn event_of(row: &OutboxRow) -> Result<String, serde_json::Error> {
    serde_json::to_string(&CloudEvent {
        specversion: "1.0",
        id: row.firing.firing_id,
        source: SOURCE,
        kind: FIRED,
        subject: row.account_id.as_str(),
        time: row.firing.fired_at,
        datacontenttype: "application/json",
        dataschema: SCHEMA,
        data: &row.firing,
    })
}

/// Publishes waiting firings, under a lock that excludes all other workers; returns whether more may be waiting.
///
/// A record that is not acknowledged is sent again with the same id: consumers see it at least once.
pub(super) async fn round(pool: &PgPool, alerts: &Appender) -> anyhow::Result<bool> {
    let alerts = alerts.clone();
    // The transaction owns the lock, so the append is inside it; no one else waits for these rows.
    pg::write(pool, move |connection| {
        Box::pin(async move {
            let Some(rows) = take(connection).await? else { return Ok(false) };
            let records = rows
                .iter()
                .map(|row| Ok((row.account_id.as_str(), event_of(row)?)))
                .collect::<Result<Vec<_>, serde_json::Error>>()?;
            let results = alerts.append_all(&records).await;
            platform::failpoint::hit("delivery.after_publish");
            let published = published(&rows, &results);
            if let Some(error) = results.iter().find_map(|result| result.as_ref().err()) {
                let waiting = rows.len() - published.len();
                warn!(waiting, %error, "firings not published yet");
            }
            if !published.is_empty() {
                outbox::mark_published(connection, &published).await?;
                metrics::counter!("ledger_alerts_published_total").increment(published.len() as u64);
                info!(firings = published.len(), "firings published");
            }
            anyhow::Ok(i64::try_from(published.len()) == Ok(ROWS_MAX))
        })
    })
    .await
}

/// Reads unpublished firings, oldest first; none if another worker is publishing, or nothing waits.
async fn take(connection: &mut PgConnection) -> Result<Option<Vec<OutboxRow>>, sqlx::Error> {
    if !outbox::has_unpublished(connection).await? {
        return Ok(None);
    }
    let is_alone =
        sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "is_alone!""#, PUBLISH_LOCK)
            .fetch_one(&mut *connection)
            .await?;
    if !is_alone {
        return Ok(None);
    }
    Ok(Some(outbox::unpublished(connection, ROWS_MAX).await?))
}

/// Returns the firings that need not be sent again: after an account's first failure its later ones must, to keep the
/// order.
fn published<T>(rows: &[OutboxRow], results: &[Result<T, AppendError>]) -> Vec<Uuid> {
    let mut failed = HashSet::new();
    let mut published = Vec::with_capacity(rows.len());
    for (row, result) in rows.iter().zip(results) {
        let (account, firing) = (row.account_id.as_str(), row.firing.firing_id);
        match result {
            Err(AppendError::Refused(reason)) => {
                error!(account_id = account, firing_id = %firing, reason, "firing never published");
                published.push(firing);
            }
            Err(_) => {
                failed.insert(account);
            }
            Ok(_) if !failed.contains(account) => published.push(firing),
            Ok(_) => {}
        }
    }
    published
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::samples;

    #[test]
    fn what_follows_a_failure_of_the_same_account_is_sent_again() {
        let row = samples::row;
        let rows = [row("acme", 1), row("acme", 2), row("beta", 3), row("acme", 4)];
        let check = |results: &[Result<(), AppendError>], expected: &[u128]| {
            let expected: Vec<Uuid> = expected.iter().copied().map(Uuid::from_u128).collect();
            assert_eq!(published(&rows, results), expected);
        };
        check(&[Ok(()), Err(AppendError::Unknown("timed out".to_owned())), Ok(()), Ok(())], &[1, 3]);
        check(&[Err(AppendError::Busy), Ok(()), Ok(()), Ok(())], &[3]);
        check(&[Err(AppendError::Refused("too long".to_owned())), Ok(()), Ok(()), Ok(())], &[1, 2, 3, 4]);
    }
}
