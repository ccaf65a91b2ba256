//! Resets: ten thousand idle accounts roll within seconds of their boundary, whichever scheduler appends the events.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ledger_core::value::time::Time;
use platform::kafka::Journal;
use platform::{clock, pg};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fleet::Fleet;
use crate::verify::LIVE;

const ACCOUNTS: usize = 10_000;
/// From now to the boundary: all accounts must be open by then.
const AHEAD: Duration = Duration::from_secs(45);
/// The claim, for an optimised build; one without optimisation gets three times as long, or as long as opening took, should
/// the machine be that slow. The bench `resets` measures it.
const ROLLED_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 15 } else { 5 });
const POLL: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_accounts_roll_within_seconds_of_their_boundary() -> Result<()> {
    // Three schedulers: one may append again, without effect, what another has appended.
    let services = ["projector", "command-api", "alert-worker", "alert-worker.2", "alert-worker.3"];
    let fleet = Fleet::start_alone(&services).await?;
    let boundary = clock::now().micros() + i64::try_from(AHEAD.as_micros())?;
    let opening = Instant::now();
    open_accounts(&fleet, Time::from_micros(boundary)).await?;
    while rolled(&fleet, 0).await? < ACCOUNTS {
        ensure!(clock::now().micros() < boundary, "opening took longer than {AHEAD:?}");
        sleep(POLL).await;
    }
    let rolled_max = ROLLED_MAX.max(opening.elapsed());
    let left = boundary - clock::now().micros();
    sleep(Duration::from_micros(u64::try_from(left)?)).await;
    let since = Instant::now();
    while rolled(&fleet, 1).await? < ACCOUNTS {
        ensure!(since.elapsed() < rolled_max * 4, "not rolled at all");
        sleep(POLL).await;
    }
    let took = since.elapsed();
    ensure!(took < rolled_max, "rolled only after {took:?}");

    let mut tx = pg::begin_read(&fleet.pool, LIVE).await?;
    let exact: i64 = sqlx::query_scalar("select count(*) from period where ends_at = $1")
        .bind(pg::timestamp(Time::from_micros(boundary)))
        .fetch_one(&mut *tx)
        .await?;
    ensure!(usize::try_from(exact)? == ACCOUNTS, "{exact} periods ended at the boundary itself");
    let again: i64 = sqlx::query_scalar(
        "select coalesce(max(resets), 0) from (select count(*) as resets from event
         where type = 'ledger.period.reset.v1' and outcome = 'applied' group by account_id) as counted",
    )
    .fetch_one(&mut *tx)
    .await?;
    ensure!(again <= 1, "{again} resets of one account had an effect");
    drop(tx);
    fleet.replays_equal().await
}

/// Opens accounts whose period ends at `boundary`, directly in the journal: the API's speed is not tested here.
async fn open_accounts(fleet: &Fleet, boundary: Time) -> Result<()> {
    let now = clock::now().to_string();
    let records = (0..ACCOUNTS).map(|number| {
        let account = format!("idle-{number}");
        let event = json!({
            "specversion": "1.0", "id": "open", "source": "/faults", "type": "ledger.account.opened.v1",
            "subject": account, "time": now, "recordedat": now, "actor": "test",
            "datacontenttype": "application/json", "dataschema": "schemas/account.opened.v1.json",
            "data": {"clock": "live", "plan": {"cycle": "daily", "anchor": boundary.to_string(), "allowance": "10"}},
        });
        (account, event.to_string().into_bytes())
    });
    let journal = Journal::new(&fleet.kafka, fleet.identity)?;
    for appended in journal.append_all(&records.collect::<Vec<_>>()).await {
        appended?;
    }
    Ok(())
}

/// Counts the accounts that have closed this many periods.
async fn rolled(fleet: &Fleet, periods: i64) -> Result<usize> {
    let mut tx = pg::begin_read(&fleet.pool, LIVE).await?;
    let count: i64 = if periods == 0 {
        sqlx::query_scalar("select count(*) from account").fetch_one(&mut *tx).await?
    } else {
        sqlx::query_scalar("select count(*) from period").fetch_one(&mut *tx).await?
    };
    usize::try_from(count).context("a count")
}
