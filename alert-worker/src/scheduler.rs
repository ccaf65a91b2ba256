//! The scheduler: appends a reset or tick for every live account whose next crossing has passed.
//!
//! The fold is exact without it; this is what makes idle accounts roll soon and the log show it. Ids are derived,
//! so schedulers may overlap; an advisory lock keeps them from doing the same work at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;
use ledger_core::account::Core;
use ledger_core::due::due;
use ledger_core::event::Event;
use ledger_core::id::Id;
use ledger_core::time::Time;
use ledger_core::wire;
use runtime::kafka::Journal;
use runtime::pg::{self, Model, PgConnection, PgPool, Schema};
use runtime::{clock, shutdown::CancellationToken};
use sqlx::Row;
use tracing::{info, warn};

/// Accounts that one round looks at: their cores stay within some tens of megabytes.
pub const ACCOUNTS_PER_ROUND_MAX: i64 = 20_000;
/// A full page is followed by the next look this much sooner.
const HURRY: u32 = 10;
/// How long an appended event may stay unprojected before it is appended again.
const APPEND_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Held while a round reads and appends; any number will do, as long as it is this one everywhere.
const ROUND_LOCK: i64 = 0x6c65_6467_6572_0001;

/// Milliseconds between two looks, unless told otherwise.
const INTERVAL_MS: u64 = 500;

/// How the scheduler runs.
#[derive(Debug, Clone, Args)]
pub struct SchedulerConfig {
    /// Milliseconds between two looks for accounts whose boundary has passed
    #[arg(long, env = "LEDGER_SCHEDULER_INTERVAL_MS", default_value_t = INTERVAL_MS, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub scheduler_interval_ms: u64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { scheduler_interval_ms: INTERVAL_MS }
    }
}

/// Appends what is due, round after round, until `shutdown`.
///
/// Errors of a round are logged and the next round tries again: nothing is lost by lateness.
pub async fn run(config: SchedulerConfig, journal: Journal, pool: PgPool, shutdown: CancellationToken) {
    let pause = Duration::from_millis(config.scheduler_interval_ms);
    let mut appended = Appended::default();
    loop {
        let found = match round(&journal, &pool, &mut appended).await {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "scheduler round failed");
                0
            }
        };
        let full = usize::try_from(ACCOUNTS_PER_ROUND_MAX).is_ok_and(|most| found >= most);
        // A full page means more are waiting: look again soon, past those just appended.
        let wait = if full { pause / HURRY } else { pause };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// An account whose next crossing has passed.
struct Due {
    core: Core,
    next_crossing: Time,
}

/// Which crossings were appended lately, so that a projector that lags doesn't make us repeat ourselves.
#[derive(Default)]
struct Appended(HashMap<Id, (Time, Instant)>);

impl Appended {
    fn is_recent(&self, account: &Id, crossing: Time) -> bool {
        self.0.get(account).is_some_and(|(at, when)| *at == crossing && when.elapsed() < APPEND_AGAIN_AFTER)
    }

    fn prune(&mut self) {
        self.0.retain(|_, (_, when)| when.elapsed() < APPEND_AGAIN_AFTER);
    }
}

/// One round; returns how many accounts were due.
async fn round(journal: &Journal, pool: &PgPool, appended: &mut Appended) -> Result<usize, sqlx::Error> {
    let Some(schema) = pg::live_generation(pool, Model::ReadModel).await? else { return Ok(0) };
    let now = clock::now();
    appended.prune();
    let due_accounts = due_accounts(pool, schema, now).await?;
    let found = due_accounts.len();
    let mut events: Vec<Event> = Vec::new();
    for account in due_accounts {
        if appended.is_recent(&account.core.account, account.next_crossing) {
            continue;
        }
        events.extend(due(&account.core, account.next_crossing, now));
        appended.0.insert(account.core.account, (account.next_crossing, Instant::now()));
    }
    if events.is_empty() {
        return Ok(found);
    }
    let records: Vec<_> = events.iter().map(|event| (event.account.clone(), wire::encode(event))).collect();
    let results = journal.append_all(&records).await;
    for ((account, _), result) in records.iter().zip(&results) {
        if let Err(error) = result {
            warn!(account_id = %account, %error, "reset not appended; the next round tries again");
            appended.0.remove(account);
        }
    }
    metrics::counter!("ledger_scheduler_events_total").increment(records.len() as u64);
    info!(events = records.len(), accounts = found, "resets appended");
    Ok(found)
}

async fn due_accounts(pool: &PgPool, schema: Schema, now: Time) -> Result<Vec<Due>, sqlx::Error> {
    pg::read(pool, schema, move |connection| Box::pin(read_due(connection, now))).await
}

async fn read_due(connection: &mut PgConnection, now: Time) -> Result<Vec<Due>, sqlx::Error> {
    let first: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock($1)")
        .bind(ROUND_LOCK)
        .fetch_one(&mut *connection)
        .await?;
    if !first {
        return Ok(Vec::new());
    }
    // A halted account can't roll before a newer binary runs, so it is owed nothing until then.
    let rows = sqlx::query(
        "select core::text, next_crossing
         from account
         where clock = 'live' and next_crossing <= $1
           and not exists (select from parked where parked.account_id = account.account_id)
         order by next_crossing
         limit $2",
    )
    .bind(pg::timestamp(now))
    .bind(ACCOUNTS_PER_ROUND_MAX)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let core: String = row.try_get(0)?;
            let core = serde_json::from_str(&core).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok(Due { core, next_crossing: pg::time_of(row.try_get(1)?) })
        })
        .collect()
}
