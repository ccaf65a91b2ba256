//! A rebuild next to the live generation: equal row for row, made live under load, refused where rows differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use engine::consume::Status;
use engine::progress::{WaitConfig, Waiter};
use ledger::rebuild::{Rebuild, Rebuilt};
use ledger_core::value::id::AccountId;
use platform::kafka::Position;
use platform::pg::{self, Model, Schema};
use platform::shutdown::CancellationToken;
use sqlx::AssertSqlSafe;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::history;
use crate::world::{World, opening, using};

const LIVE: Schema = Schema { model: Model::ReadModel, generation: 1 };
const NEXT: Schema = Schema { model: Model::ReadModel, generation: 2 };
/// Longest time until a written event is visible, with or without a flip in between.
const SEEN_MAX: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    rebuild: Rebuild,
}

impl World {
    async fn rebuild(&self, arguments: &str) -> Result<Rebuilt> {
        let words = std::iter::once("rebuild").chain(arguments.split_whitespace());
        let asked = Arguments::try_parse_from(words)?.rebuild;
        ledger::rebuild::rebuild(self.source.clone(), &asked).await
    }

    async fn live(&self) -> Result<Schema> {
        pg::live_generation(&self.source.pool, Model::ReadModel).await?.context("a live generation")
    }

    async fn standing(&self) -> Result<Vec<Schema>> {
        let mut connection = self.source.pool.acquire().await?;
        Ok(pg::generations(&mut connection, Model::ReadModel).await?)
    }

    async fn execute(&self, statement: &str) -> Result<u64> {
        Ok(sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&self.source.pool).await?.rows_affected())
    }
}

/// A projector as a service runs it.
struct Projecting {
    task: JoinHandle<Result<()>>,
    shutdown: CancellationToken,
}

impl Projecting {
    fn start(world: &World) -> Projecting {
        let shutdown = CancellationToken::new();
        let (source, status) = (world.source.clone(), Status::default());
        let task =
            tokio::spawn(projector::project(projector::Config::default(), source, status, shutdown.clone()));
        Projecting { task, shutdown }
    }

    async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        self.task.await?
    }
}

/// Clients that write, wait for what they wrote, and read it, repeatedly.
struct Clients {
    done: Arc<AtomicBool>,
    read: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Clients {
    fn start(world: &Arc<World>, waiter: &Arc<Waiter>, count: usize) -> Clients {
        let (done, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |n: usize| {
            let (world, waiter, done, read) = (world.clone(), waiter.clone(), done.clone(), read.clone());
            tokio::spawn(async move {
                for turn in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    write_and_read(&world, &waiter, &format!("acct-{n}"), &format!("use-{turn}")).await?;
                    read.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let tasks = (0..count).map(client).collect();
        Clients { done, read, tasks }
    }

    async fn stop(self) -> Result<usize> {
        self.done.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok(self.read.load(Ordering::Relaxed))
    }
}

async fn write_and_read(world: &World, waiter: &Waiter, account: &str, id: &str) -> Result<()> {
    let account_id = AccountId::new(account)?;
    let written = world.journal.append_all(&[(account_id, using(account, id).into_bytes())]).await;
    let position: Position = written.into_iter().next().context("an answer")??;
    ensure!(waiter.wait_for(position, Instant::now() + SEEN_MAX).await, "{position} was not seen in time");
    // Read the live schema after the wait, as every handler does.
    let schema = waiter.schema();
    let mut snapshot = pg::begin_read(&world.source.pool, schema).await?;
    let next: i64 = sqlx::query_scalar("select next_offset from checkpoint where partition = $1")
        .bind(position.partition)
        .fetch_one(&mut *snapshot)
        .await?;
    ensure!(next > position.offset, "{schema} stands at {next} after {position} was seen");
    let found: i64 = sqlx::query_scalar("select count(*) from event where account_id = $1 and event_id = $2")
        .bind(account)
        .bind(id)
        .fetch_one(&mut *snapshot)
        .await?;
    ensure!(found == 1, "{id} of {account} is in {schema} {found} times");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_under_load_takes_over_and_nobody_misses_what_they_wrote() -> Result<()> {
    let world = Arc::new(World::new().await?);
    world.write(&history::history(5, 5, 40)).await?;
    let clients = 4;
    for n in 0..clients {
        let account = format!("acct-{n}");
        world.write_raw(&account, &opening(&account)).await?;
    }
    pg::ensure_generation(&world.source.pool, Model::ReadModel).await?;
    // Two projectors, as in production: both change over at each flip, whichever partitions they have.
    let projecting = [Projecting::start(&world), Projecting::start(&world)];
    let shutdown = CancellationToken::new();
    let waiter =
        Waiter::listen(world.source.pool.clone(), Model::ReadModel, WaitConfig::default(), shutdown.clone())
            .await?;
    let load = Clients::start(&world, &waiter, clients);

    for (round, arguments) in ["--drop-old", "", "--no-flip"].into_iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = load.read.load(Ordering::Relaxed);
        let rebuilt = world.rebuild(arguments).await?;
        ensure!(rebuilt.differences.is_empty(), "round {round}: {:#?}", rebuilt.differences);
        ensure!(rebuilt.flipped == (arguments != "--no-flip"), "round {round}: {rebuilt:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        ensure!(load.read.load(Ordering::Relaxed) > before, "the clients stand still in round {round}");
    }
    let read = load.stop().await?;
    ensure!(read > 50, "only {read} writes were read back");
    let standing: Vec<i32> = world.standing().await?.iter().map(|schema| schema.generation).collect();
    ensure!(standing == [2, 3, 4], "the first was dropped, the last not made live: {standing:?}");
    let live = world.live().await?;
    ensure!(live.generation == 3, "{live} is live");
    for projecting in projecting {
        projecting.stop().await?;
    }

    let anew = world.generation(9).await?;
    world.project(live, 1_000).await?;
    world.project(anew, 1_000).await?;
    world.ensure_equal(live, anew).await
}

#[tokio::test]
async fn rows_that_were_altered_are_named_and_nothing_flips() -> Result<()> {
    let world = World::new().await?;
    world.write(&history::history(6, 4, 60)).await?;
    let live = pg::ensure_generation(&world.source.pool, Model::ReadModel).await?;
    world.project(live, 100).await?;
    let altered = format!(
        "update {LIVE}.user_usage set used = used + 1
         where (account_id, user_id, period_index, feature) =
               (select account_id, user_id, period_index, feature from {LIVE}.user_usage limit 1)"
    );
    ensure!(world.execute(&altered).await? == 1, "a counter to alter");
    let lost = format!(
        r#"delete from {LIVE}.entry where (account_id, "offset", seq) =
           (select account_id, "offset", seq from {LIVE}.entry limit 1)"#
    );
    ensure!(world.execute(&lost).await? == 1, "an entry to lose");

    let rebuilt = world.rebuild("").await?;
    ensure!(!rebuilt.flipped && world.live().await? == LIVE, "{rebuilt:#?}");
    let found: Vec<_> =
        rebuilt.differences.iter().map(|it| (it.table, it.rows, it.only_first, it.only_second)).collect();
    ensure!(found == [("entry", 1, 0, 1), ("user_usage", 1, 0, 0)], "{:#?}", rebuilt.differences);
    let sample = rebuilt.differences[1].samples.first().context("a sample")?;
    let columns: Vec<&str> = sample.columns().iter().map(|(column, ..)| *column).collect();
    ensure!(columns == ["used"], "{sample:?}");

    let accepted = world.rebuild("--accept-differences --drop-old").await?;
    ensure!(accepted.flipped && world.live().await? == NEXT, "{accepted:#?}");
    ensure!(world.standing().await? == [NEXT], "what was refused and what was live are dropped");
    let anew = world.generation(9).await?;
    world.project(anew, 100).await?;
    world.ensure_equal(NEXT, anew).await
}

#[tokio::test]
async fn a_rebuild_that_dies_at_the_flip_leaves_the_old_generation_whole() -> Result<()> {
    let world = World::new().await?;
    world.write(&history::history(7, 3, 30)).await?;
    let live = pg::ensure_generation(&world.source.pool, Model::ReadModel).await?;
    world.project(live, 100).await?;
    let command = |arguments: &[&str], failpoint: &str| {
        let mut command = Command::new(e2e::program());
        command.arg("rebuild").args(arguments).env("LEDGER_FAILPOINT", failpoint);
        command.env("KAFKA_BROKERS", &world.source.kafka.brokers).env("DATABASE_URL", world.database_url());
        command.env("LEDGER_TOPIC_PREFIX", &world.source.kafka.topic_prefix);
        command.kill_on_drop(true);
        command
    };
    let died = command(&[], "rebuild.before_flip").output().await?;
    ensure!(!died.status.success() && died.status.code().is_none(), "it was to abort: {died:?}");
    ensure!(world.live().await? == LIVE, "nothing was flipped");

    let refused = command(&["--drop", "1"], "").output().await?;
    ensure!(refused.status.code() == Some(1), "the live generation can't be dropped: {refused:?}");
    let done = command(&["--json"], "").output().await?;
    ensure!(done.status.success(), "{done:?}");
    let report: serde_json::Value = serde_json::from_slice(&done.stdout)?;
    ensure!(report["flipped"] == true && report["differences"] == serde_json::json!([]), "{report:#}");
    ensure!(report["dropped"] == serde_json::json!(["read_model_2"]), "the unfinished one: {report:#}");
    ensure!(world.live().await? == NEXT, "flipped at last");
    let dropped = command(&["--drop", "1"], "").output().await?;
    ensure!(dropped.status.success(), "{dropped:?}");
    ensure!(world.standing().await? == [NEXT], "only the live one stands");
    Ok(())
}
