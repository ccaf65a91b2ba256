//! The outbox: records of an account leave it in their order.

use anyhow::{Result, ensure};
use engine::outbox;
use ledger_core::event::{Data, Event};
use ledger_core::value::id::{AccountId, EventId, Label, Source};
use platform::clock;
use platform::pg::PgPool;
use serde_json::json;

use crate::database;

fn usage(account: &str, id: &str) -> Result<Event> {
    let (now, usage) = (clock::now(), json!({"credits": "1"}));
    Ok(Event {
        id: EventId::new(id)?,
        source: Source::new("/app")?,
        account: AccountId::new(account)?,
        occurred_at: now,
        recorded_at: now,
        actor: Label::new("k")?,
        data: Data::UsageRecorded(serde_json::from_value(usage)?),
    })
}

async fn taken(pool: &PgPool) -> Result<Vec<outbox::Waiting>> {
    Ok(outbox::take_due(pool).await?)
}

fn named(waiting: &[outbox::Waiting]) -> Vec<String> {
    waiting.iter().map(|one| format!("{}/{}", one.account, one.event_id)).collect()
}

#[tokio::test]
async fn records_of_an_account_leave_the_outbox_in_their_order() -> Result<()> {
    let database = database().await?;
    ensure!(outbox::oldest_seconds(&database.pool).await? == 0.0, "nothing waits");
    let mut connection = database.pool.acquire().await?;
    let mut ids = Vec::new();
    for (account, id) in [("acme", "u1"), ("acme", "u2"), ("beta", "u3"), ("acme", "u4")] {
        ids.push(outbox::put(&mut connection, &usage(account, id)?, 0.0).await?);
    }
    // A record that settles a hold waits for no other.
    sqlx::query("update control.outbox set reservation_id = 'r' where outbox_id = $1")
        .bind(ids[3])
        .execute(&mut *connection)
        .await?;
    ensure!(outbox::oldest_seconds(&database.pool).await? > 0.0);
    let acme = AccountId::new("acme")?;
    ensure!(outbox::is_first(&database.pool, &acme, ids[0]).await?);
    ensure!(!outbox::is_first(&database.pool, &acme, ids[1]).await?);
    let first = taken(&database.pool).await?;
    ensure!(named(&first) == ["acme/u1", "beta/u3", "acme/u4"], "{first:?}");
    // The process that took the first appends it, or has failed: no other process may take the second yet.
    ensure!(taken(&database.pool).await?.is_empty());
    outbox::done(&database.pool, vec![ids[0], ids[3]]).await?;
    ensure!(outbox::is_first(&database.pool, &acme, ids[1]).await?);
    let second = taken(&database.pool).await?;
    ensure!(named(&second) == ["acme/u2"], "{second:?}");
    Ok(())
}
