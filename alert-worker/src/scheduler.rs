//! The scheduler: appends a reset or tick for every live account whose next crossing has passed.
//!
//! The fold is exact without it; the scheduler makes idle accounts roll soon and the log show it. Ids are derived, so
//! schedulers may overlap; an advisory lock, and waiting until an appended event is projected, keep them from repeating
//! each other's work.
//!
//! What is due is due by the database's clock, read in the statement that finds it. This machine's own clock decides
//! nothing; where it is wrong, this process appends nothing until it is right again.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use clap::Args;
use ledger_core::account::Core;
use ledger_core::event::{Event, wire};
use ledger_core::policy::due::due;
use ledger_core::value::id::AccountId;
use ledger_core::value::time::Time;
use platform::clock;
use platform::heartbeat::Heartbeat;
use platform::kafka::Journal;
use platform::periodic::{Rounds, every};
use platform::pg::{self, Model, PgConnection, PgPool};
use platform::shutdown::CancellationToken;
use sqlx::FromRow;
use tracing::{info, warn};

/// Accounts read by one round: their cores take some tens of megabytes.
pub const ACCOUNTS_PER_ROUND_MAX: i64 = 20_000;
/// If more accounts are waiting, the pause is divided by this.
const HURRY: u32 = 10;
/// How long an appended event may stay unprojected before it is appended again.
const APPEND_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Advisory lock of a round; the number is arbitrary, but must be the same in every process.
const ROUND_LOCK: i64 = 0x6c65_6467_6572_0001;

/// Milliseconds between two rounds by default.
const INTERVAL_MS: u64 = 500;

/// How the scheduler runs.
#[derive(Debug, Clone, Args)]
pub struct SchedulerConfig {
    /// Milliseconds between two searches for accounts whose boundary has passed
    #[arg(long, env = "LEDGER_SCHEDULER_INTERVAL_MS", default_value_t = INTERVAL_MS, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub scheduler_interval_ms: u64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { scheduler_interval_ms: INTERVAL_MS }
    }
}

/// Appends due events, round after round, until `shutdown`.
///
/// Errors of a round are logged and the next round retries: a late event loses nothing.
pub async fn run(
    config: SchedulerConfig,
    journal: Journal,
    pool: PgPool,
    heartbeat: Heartbeat,
    shutdown: CancellationToken,
) {
    run_by(clock::now, config, journal, pool, heartbeat, shutdown).await;
}

/// The same by another clock than this machine's, for tests.
pub async fn run_by(
    clock: fn() -> Time,
    config: SchedulerConfig,
    journal: Journal,
    pool: PgPool,
    heartbeat: Heartbeat,
    shutdown: CancellationToken,
) {
    let pause = Duration::from_millis(config.scheduler_interval_ms);
    let scheduler = Scheduler { clock, journal, pool, pause, known: Known::default() };
    every(pause, &shutdown, &heartbeat, scheduler).await;
}

struct Scheduler {
    clock: fn() -> Time,
    journal: Journal,
    pool: PgPool,
    pause: Duration,
    known: Known,
}

impl Rounds for Scheduler {
    async fn round(&mut self) -> anyhow::Result<Duration> {
        clock::agrees_with_database(self.clock, &self.pool).await?;
        let hurry = round(&self.journal, &self.pool, &mut self.known).await?;
        Ok(if hurry { self.pause / HURRY } else { self.pause })
    }
}

struct Due {
    /// By the database's clock, in the statement that found it due.
    now: Time,
    core: Core,
    next_due_at: Time,
}

/// The due accounts of one snapshot, and the projected offset of each partition in it.
#[derive(Default)]
struct Owed {
    accounts: Vec<Due>,
    next_offsets: HashMap<i32, i64>,
}

/// The state of accounts that the projection still shows as due.
#[derive(Default)]
struct Known(HashMap<AccountId, (Time, Step)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Found due while the projection was behind: another scheduler's event may be before this offset.
    Seen(i64),
    /// This scheduler has appended it.
    Appended(Instant),
}

impl Known {
    /// Returns whether a crossing is to be appended now.
    fn is_owed(&mut self, account: &AccountId, crossing: Time, next_offset: i64, end: i64) -> bool {
        match self.0.get(account) {
            Some((at, Step::Appended(when))) if *at == crossing => when.elapsed() >= APPEND_AGAIN_AFTER,
            Some((at, Step::Seen(before))) if *at == crossing => next_offset >= *before,
            _ if next_offset >= end => true,
            _ => {
                self.0.insert(account.clone(), (crossing, Step::Seen(end)));
                false
            }
        }
    }

    fn retain(&mut self, due: &[Due]) {
        let due: HashSet<&AccountId> = due.iter().map(|due| &due.core.account).collect();
        self.0.retain(|account, _| due.contains(account));
    }
}

/// Runs one round, exclusively among all schedulers; returns whether the next should start soon.
async fn round(journal: &Journal, pool: &PgPool, known: &mut Known) -> anyhow::Result<bool> {
    let Some(schema) = pg::live_generation(pool, Model::ReadModel).await? else { return Ok(false) };
    let (journal, mut mine) = (journal.clone(), std::mem::take(known));
    // The transaction owns the lock, so the append is inside it: no other scheduler reads between our read and our
    // append.
    let alone = pg::read(pool, schema, move |connection| {
        Box::pin(async move {
            let Some(owed) = read_due(connection).await? else { return Ok((mine, false)) };
            let hurry = append(&journal, &owed, &mut mine).await?;
            anyhow::Ok((mine, hurry))
        })
    });
    let (mine, hurry) = alone.await?;
    *known = mine;
    Ok(hurry)
}

/// Appends due events that are not in the journal yet; returns whether more are waiting.
async fn append(journal: &Journal, owed: &Owed, known: &mut Known) -> anyhow::Result<bool> {
    known.retain(&owed.accounts);
    if owed.accounts.is_empty() {
        return Ok(false);
    }
    let ends: HashMap<i32, i64> =
        journal.ends().await?.iter().map(|end| (end.partition, end.offset)).collect();
    let mut events: Vec<Event> = Vec::new();
    for Due { now, core, next_due_at } in &owed.accounts {
        let partition = journal.partition_of(core.account.as_str());
        let next_offset = owed.next_offsets.get(&partition).copied().unwrap_or_default();
        let end = ends.get(&partition).copied().unwrap_or(i64::MAX);
        if known.is_owed(&core.account, *next_due_at, next_offset, end) {
            events.extend(due(core, *next_due_at, *now));
            known.0.insert(core.account.clone(), (*next_due_at, Step::Appended(Instant::now())));
        }
    }
    let records: Vec<_> = events.iter().map(|event| (event.account.clone(), wire::encode(event))).collect();
    let results = journal.append_all(&records).await;
    for ((account, _), result) in records.iter().zip(&results) {
        if let Err(error) = result {
            warn!(account_id = %account, %error, "reset not appended; the next round tries again");
            known.0.remove(account);
        }
    }
    if !records.is_empty() {
        metrics::counter!("ledger_scheduler_events_total").increment(records.len() as u64);
        info!(events = records.len(), accounts = owed.accounts.len(), "resets appended");
    }
    let full = usize::try_from(ACCOUNTS_PER_ROUND_MAX).is_ok_and(|most| owed.accounts.len() >= most);
    Ok(full || known.0.values().any(|(_, step)| matches!(step, Step::Seen(_))))
}

#[derive(FromRow)]
struct DueRow {
    now: DateTime<Utc>,
    core: String,
    next_due_at: DateTime<Utc>,
}

#[derive(FromRow)]
struct CheckpointRow {
    partition: i32,
    next_offset: i64,
}

/// Reads due accounts; none if another scheduler holds the lock.
async fn read_due(connection: &mut PgConnection) -> Result<Option<Owed>, sqlx::Error> {
    let is_alone = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "is_alone!""#, ROUND_LOCK)
        .fetch_one(&mut *connection)
        .await?;
    if !is_alone {
        return Ok(None);
    }
    // A halted account can't roll, so it is not due until it goes on.
    let rows: Vec<DueRow> = sqlx::query_as(
        "with asked_at as materialized (select clock_timestamp() as now)
         select asked_at.now, core::text, next_due_at
         from asked_at, account
         where clock = 'live' and next_due_at <= (select now from asked_at)
           and not exists (select from halted where halted.account_id = account.account_id)
         order by next_due_at
         limit $1",
    )
    .bind(ACCOUNTS_PER_ROUND_MAX)
    .fetch_all(&mut *connection)
    .await?;
    let accounts = rows
        .iter()
        .map(|row| {
            let core = serde_json::from_str(&row.core).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok(Due { now: pg::time_of(row.now), core, next_due_at: pg::time_of(row.next_due_at) })
        })
        .collect::<Result<Vec<Due>, sqlx::Error>>()?;
    let checkpoints: Vec<CheckpointRow> =
        sqlx::query_as("select partition, next_offset from checkpoint").fetch_all(connection).await?;
    let next_offsets = checkpoints.iter().map(|row| (row.partition, row.next_offset)).collect();
    Ok(Some(Owed { accounts, next_offsets }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDARY: Time = Time::from_micros(1_767_225_600_000_000);
    const NEXT: Time = Time::from_micros(1_769_904_000_000_000);

    fn acme() -> AccountId {
        AccountId::new("acme").expect("an id")
    }

    #[test]
    fn a_crossing_is_owed_at_once_when_all_of_the_journal_is_projected() {
        assert!(Known::default().is_owed(&acme(), BOUNDARY, 41, 41));
    }

    #[test]
    fn a_crossing_found_while_the_projection_lags_is_owed_once_what_lay_there_is_projected() {
        let mut known = Known::default();
        assert!(!known.is_owed(&acme(), BOUNDARY, 30, 41), "another's event may be among the eleven");
        assert!(!known.is_owed(&acme(), BOUNDARY, 40, 60));
        assert!(known.is_owed(&acme(), BOUNDARY, 41, 60), "it was not, whatever has come since");
    }

    #[test]
    fn an_appended_crossing_is_not_owed_again_and_the_next_one_is() {
        let mut known = Known::default();
        known.0.insert(acme(), (BOUNDARY, Step::Appended(Instant::now())));
        assert!(!known.is_owed(&acme(), BOUNDARY, 41, 41));
        assert!(known.is_owed(&acme(), NEXT, 42, 42));
    }
}
