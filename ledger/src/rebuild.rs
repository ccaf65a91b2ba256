//! Rebuild: folds a new generation of a model from the journal, compares it with the live one, and makes it live.
//!
//! Projection into the live generation continues meanwhile. It is paused twice, each time only until the new one has
//! caught up: once to compare both in one snapshot at the same positions, once to flip.

use std::io::Write;
use std::time::{Duration, Instant};

use alert_worker::alerting::{self, NotifyFrom};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use engine::compare::{Difference, SAMPLES_MAX, Sample};
use engine::consume::{self, ConsumeOptions, Source, Status, Worker};
use ledger_core::fold::FOLD_VERSION;
use platform::failpoint;
use platform::kafka::{self, KafkaOptions, Position};
use platform::pg::{self, Model, PgPool, Schema};
use platform::shutdown::CancellationToken;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, Transaction};
use tokio::time::sleep;

use crate::connection::Connection;
use crate::progress::{Progress, watched};

/// Connections: the fold, the pause of the live generation, the comparison, and one to spare.
const CONNECTIONS: u32 = 4;
/// A pass this short leaves so few records that the live generation can be paused for the rest.
const LAST_PASS_MAX: Duration = Duration::from_secs(1);
/// Passes before the live generation is paused for the rest, whatever its size.
const PASSES_MAX: usize = 50;
/// Longest pause of the live generation without activity of this process.
const STILL_MAX: &str = "60s";
/// Delay after a flip until every service reads the new generation and has finished its reads of the old one.
const LEFT_AFTER: Duration = Duration::from_secs(5);
/// Advisory lock of a rebuild.
const REBUILD_LOCK: i64 = 0x6c65_6467_7265_6275;

/// How to rebuild.
#[derive(Debug, Clone, Args)]
pub struct Rebuild {
    /// The journal's Kafka.
    #[command(flatten)]
    pub kafka: KafkaOptions,
    /// The ledger's Postgres, as postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The local stack, where a service is not named.
    #[command(flatten)]
    pub connection: Connection,
    /// What is rebuilt: balances and history, or alerts, whose rebuild sends no notification
    #[arg(long, value_enum, default_value_t = Rebuildable::ReadModel)]
    pub model: Rebuildable,
    /// Compares only: the live generation stays live, the new one stays next to it until the next rebuild
    #[arg(long)]
    pub no_flip: bool,
    /// Flips although the generations differ, as they do when the fold's rules have changed
    #[arg(long, conflicts_with = "no_flip")]
    pub accept_differences: bool,
    /// Drops the generation that was live, once nobody reads it any more
    #[arg(long, conflicts_with = "no_flip")]
    pub drop_old: bool,
    /// Rebuilds nothing and drops this generation, which must not be live
    #[arg(long, value_name = "N", conflicts_with_all = ["no_flip", "accept_differences", "drop_old"])]
    pub drop: Option<i32>,
    /// Most rows that are named of each table that differs
    #[arg(long, default_value_t = SAMPLES_MAX)]
    pub samples: u32,
    /// Prints the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// What can be rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rebuildable {
    /// Balances and history
    ReadModel,
    /// Alerts
    Alerting,
}

impl From<Rebuildable> for Model {
    fn from(model: Rebuildable) -> Model {
        match model {
            Rebuildable::ReadModel => Model::ReadModel,
            Rebuildable::Alerting => Model::Alerting,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Rebuilt {
    /// The generation that was live, such as `read_model_1`.
    pub live: String,
    pub rebuilt: String,
    /// Positions of the comparison: the next offset of each partition.
    pub compared_at: Vec<Position>,
    /// Tables that differ; `first` is the previously live generation.
    pub differences: Vec<Difference>,
    pub flipped: bool,
    pub dropped: Vec<String>,
    /// Duration of the fold in seconds.
    pub fold_seconds: f64,
    /// Seconds that the live generation was paused, for the comparison and for the flip.
    pub still_seconds: f64,
}

/// Rebuilds and reports; false if the generations differ and the differences were not accepted.
pub async fn run(arguments: &Rebuild, out: &mut impl Write) -> Result<bool> {
    let url = arguments.connection.database_url(arguments.database_url.as_deref())?;
    let pool =
        pg::connect(&url, "ledger rebuild", CONNECTIONS).await.context("the database can't be reached")?;
    if let Some(generation) = arguments.drop {
        let schema = Schema { model: arguments.model.into(), generation };
        drop_generation(&pool, schema).await?;
        writeln!(out, "{schema} is dropped")?;
        return Ok(true);
    }
    let kafka = arguments.connection.kafka(&arguments.kafka)?;
    pg::migrate(&pool).await?;
    let identity = kafka::existing(&kafka).await?;
    let rebuilt = rebuild(Source { kafka, identity, pool }, arguments).await?;
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&rebuilt)?)?;
    } else {
        report(&rebuilt, out)?;
    }
    Ok(rebuilt.differences.is_empty() || rebuilt.flipped)
}

/// Folds, compares and flips, as the arguments say.
pub async fn rebuild(source: Source, arguments: &Rebuild) -> Result<Rebuilt> {
    let mut alone = alone(&source.pool).await?;
    let rebuilt = rebuild_alone(source, arguments).await;
    // The server may notice a dropped connection late, so the lock is released here.
    sqlx::query("select pg_advisory_unlock($1)").bind(REBUILD_LOCK).execute(&mut alone).await?;
    alone.close().await?;
    rebuilt
}

async fn rebuild_alone(source: Source, arguments: &Rebuild) -> Result<Rebuilt> {
    let pool = source.pool.clone();
    let live = pg::live_generation(&pool, arguments.model.into()).await?;
    let live = live.context("there is no such model yet: it is folded when its service starts")?;
    let mut dropped = drop_unfinished(&pool, live).await?;
    let rebuilt = Schema { generation: live.generation + 1, ..live };
    pg::create_generation(&pool, rebuilt).await?;

    let fold = Fold { source, live, rebuilt };
    let started = Instant::now();
    fold.catch_up().await?;
    analyze(&pool, rebuilt).await?;
    let fold_seconds = started.elapsed().as_secs_f64();

    let (compared_at, mut snapshot, mut still) = fold.snapshot_of_both().await?;
    let differences =
        engine::compare::compare_sampling(&mut snapshot, live, rebuilt, arguments.samples).await?;
    snapshot.rollback().await?;

    let flipped = !arguments.no_flip && (differences.is_empty() || arguments.accept_differences);
    if flipped {
        fold.catch_up().await?;
        still += fold.flip().await?;
    }
    if flipped && arguments.drop_old {
        sleep(LEFT_AFTER).await;
        drop_generation(&pool, live).await?;
        dropped.push(live.to_string());
    }
    Ok(Rebuilt {
        live: live.to_string(),
        rebuilt: rebuilt.to_string(),
        compared_at,
        differences,
        flipped,
        dropped,
        fold_seconds,
        still_seconds: still.as_secs_f64(),
    })
}

/// Excludes other rebuilds for as long as the connection lives.
async fn alone(pool: &PgPool) -> Result<PgConnection> {
    let mut connection = pool.acquire().await?.detach();
    let locked: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
        .bind(REBUILD_LOCK)
        .fetch_one(&mut connection)
        .await?;
    ensure!(locked, "another rebuild is under way");
    Ok(connection)
}

/// Drops generations that earlier rebuilds left without a flip.
async fn drop_unfinished(pool: &PgPool, live: Schema) -> Result<Vec<String>> {
    let mut connection = pool.acquire().await?;
    let existing = pg::generations(&mut connection, live.model).await?;
    drop(connection);
    let mut dropped = Vec::new();
    for schema in existing.into_iter().filter(|schema| schema.generation > live.generation) {
        drop_generation(pool, schema).await?;
        dropped.push(schema.to_string());
    }
    Ok(dropped)
}

pub(crate) async fn drop_generation(pool: &PgPool, schema: Schema) -> Result<()> {
    let mut connection = pool.acquire().await?;
    let existing = pg::generations(&mut connection, schema.model).await?;
    drop(connection);
    if !existing.contains(&schema) {
        bail!("there is no generation {schema}");
    }
    Ok(pg::drop_generation(pool, schema).await?)
}

/// Updates the planner's statistics of the new tables before the first reads.
async fn analyze(pool: &PgPool, schema: Schema) -> Result<()> {
    for table in engine::tables::of(schema.model) {
        sqlx::query(AssertSqlSafe(format!("analyze {schema}.{}", table.name))).execute(pool).await?;
    }
    Ok(())
}

/// A new generation that follows the live one.
struct Fold {
    source: Source,
    live: Schema,
    rebuilt: Schema,
}

impl Fold {
    /// Folds until the live generation is only slightly ahead.
    async fn catch_up(&self) -> Result<()> {
        for _ in 0..PASSES_MAX {
            let pass = Instant::now();
            let ends = positions(&mut *self.source.pool.acquire().await?, self.live).await?;
            self.fold_to(&ends).await?;
            if pass.elapsed() <= LAST_PASS_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Folds exactly up to these positions.
    async fn fold_to(&self, ends: &[Position]) -> Result<()> {
        if positions(&mut *self.source.pool.acquire().await?, self.rebuilt).await? == ends {
            return Ok(());
        }
        let what = match self.rebuilt.model {
            Model::ReadModel => "folding the read model",
            Model::Alerting => "folding the alerts",
        };
        let done = async || {
            let mut connection = self.source.pool.acquire().await.ok()?;
            Some(sum(&positions(&mut connection, self.rebuilt).await.ok()?))
        };
        watched(Progress::start(what, sum(ends)), done, self.fold(ends)).await
    }

    async fn fold(&self, ends: &[Position]) -> Result<()> {
        match self.rebuilt.model {
            Model::ReadModel => {
                self.run(projector::lanes(self.source.identity, projector::LANES)?, ends).await
            }
            Model::Alerting => {
                let lanes = alerting::lanes(self.source.identity, alerting::LANES, &NotifyFrom::default())?;
                self.run(lanes, ends).await
            }
        }
    }

    async fn run<W: Worker>(&self, workers: Vec<W>, ends: &[Position]) -> Result<()> {
        let options = ConsumeOptions::new("rebuild", self.rebuilt, FOLD_VERSION);
        let (status, shutdown) = (Status::default(), CancellationToken::new());
        Ok(consume::run_until(workers, self.source.clone(), options, status, ends, shutdown).await?)
    }

    /// Pauses the live generation and folds up to its position; it continues when the transaction ends.
    async fn stand_level(&self) -> Result<(Vec<Position>, Transaction<'static, Postgres>)> {
        let begin = format!("begin; set local idle_in_transaction_session_timeout = '{STILL_MAX}'");
        let mut still = self.source.pool.begin_with(AssertSqlSafe(begin)).await?;
        pg::hold_still(&mut still, self.live.model).await?;
        let now = pg::live_generation(&self.source.pool, self.live.model).await?;
        ensure!(now == Some(self.live), "{} is not live any more", self.live);
        let ends = positions(&mut still, self.live).await?;
        self.fold_to(&ends).await?;
        Ok((ends, still))
    }

    /// Returns a snapshot of both generations at the same positions, and how long the live one was paused.
    async fn snapshot_of_both(&self) -> Result<(Vec<Position>, Transaction<'static, Postgres>, Duration)> {
        let started = Instant::now();
        let (ends, still) = self.stand_level().await?;
        let mut snapshot = pg::begin_read(&self.source.pool, self.rebuilt).await?;
        // The comparison has no time limit. The first query takes the snapshot; a setting alone does not.
        sqlx::raw_sql("set local statement_timeout = 0; select 1 from control.generation")
            .execute(&mut *snapshot)
            .await?;
        still.commit().await?;
        Ok((ends, snapshot, started.elapsed()))
    }

    /// Makes the new generation live; returns how long the old one was paused.
    async fn flip(&self) -> Result<Duration> {
        let started = Instant::now();
        let (_, mut still) = self.stand_level().await?;
        pg::flip(&mut still, self.rebuilt).await?;
        failpoint::hit("rebuild.before_flip");
        still.commit().await?;
        Ok(started.elapsed())
    }
}

/// Returns how many records lie before these positions.
fn sum(positions: &[Position]) -> u64 {
    positions.iter().map(|position| position.offset.unsigned_abs()).sum()
}

/// Returns the next offset of each partition with folded records.
async fn positions(connection: &mut PgConnection, schema: Schema) -> Result<Vec<Position>> {
    let read =
        format!("select partition, next_offset from {schema}.checkpoint where next_offset > 0 order by 1");
    let rows: Vec<(i32, i64)> = sqlx::query_as(AssertSqlSafe(read)).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(partition, offset)| Position { partition, offset }).collect())
}

fn report(rebuilt: &Rebuilt, out: &mut impl Write) -> std::io::Result<()> {
    let Rebuilt { live, rebuilt: new, fold_seconds, still_seconds, .. } = rebuilt;
    let records: i64 = rebuilt.compared_at.iter().map(|position| position.offset).sum();
    writeln!(out, "{new} was folded from the journal in {fold_seconds:.1} s: {records} records")?;
    if rebuilt.differences.is_empty() {
        writeln!(out, "it equals {live} row for row")?;
    }
    for difference in &rebuilt.differences {
        report_difference(difference, live, out)?;
    }
    match rebuilt.flipped {
        true => writeln!(out, "{new} is live; writes waited {still_seconds:.2} s to be seen")?,
        false => writeln!(out, "{live} stays live")?,
    }
    for schema in &rebuilt.dropped {
        writeln!(out, "{schema} is dropped")?;
    }
    Ok(())
}

fn report_difference(difference: &Difference, live: &str, out: &mut impl Write) -> std::io::Result<()> {
    let Difference { table, rows, only_first, only_second, samples } = difference;
    writeln!(
        out,
        "{table}: {rows} rows differ, {only_first} of them only in {live}, {only_second} missing there"
    )?;
    let model = live.parse::<Schema>().map_or(Model::ReadModel, |live| live.model);
    let key =
        engine::tables::of(model).iter().find(|known| known.name == *table).map_or("", |table| table.key);
    for sample in samples {
        writeln!(out, "  {}", key_of(sample, key))?;
        if sample.first.is_none() || sample.second.is_none() {
            continue;
        }
        for (column, first, second) in sample.columns() {
            let (first, second) = (first.unwrap_or("null"), second.unwrap_or("null"));
            writeln!(out, "    {column}: live {first}, by the journal {second}")?;
        }
    }
    Ok(())
}

/// Returns a row's key as `account_id=acme seq=1`.
fn key_of(sample: &Sample, key: &str) -> String {
    let Some(row) = sample.first.as_ref().or(sample.second.as_ref()) else { return String::new() };
    let side = match (&sample.first, &sample.second) {
        (Some(_), None) => " (only live)",
        (None, Some(_)) => " (missing live)",
        _ => "",
    };
    let columns = key.split(", ").map(|column| column.trim_matches('"'));
    let values: Vec<String> = columns
        .map(|column| format!("{column}={}", row.get(column).and_then(Option::as_deref).unwrap_or("null")))
        .collect();
    format!("{}{side}", values.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_the_row_and_both_values() {
        let row = |used: &str| {
            let column = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
            [column("account_id", "acme"), column("period_index", "0"), column("used", used)]
                .into_iter()
                .collect()
        };
        let samples = vec![
            Sample { first: Some(row("7")), second: Some(row("5")) },
            Sample { first: None, second: Some(row("1")) },
        ];
        let difference = Difference { table: "period", rows: 2, only_first: 0, only_second: 1, samples };
        let mut reported = Vec::new();
        report_difference(&difference, "read_model_1", &mut reported).expect("written");
        let reported = String::from_utf8(reported).expect("text");
        assert!(reported.contains("account_id=acme"), "{reported}");
        assert!(reported.contains("used: live 7, by the journal 5"), "{reported}");
        assert!(reported.contains("(missing live)"), "{reported}");
        assert!(!reported.contains("account_id: "), "what is equal is not shown: {reported}");
    }
}
