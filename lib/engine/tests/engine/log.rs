//! The transparency logs in the tables are those that follow from the journal, whatever happened to the fold.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use engine::compare::compare;
use engine::tables::{log_size, log_tail, log_tile};
use futures::TryStreamExt;
use platform::kafka::{KafkaOptions, Record, genesis_salt, read_partition};
use platform::pg::{self, Model, PgPool, Schema};
use transparency_log::appender::Appender;
use transparency_log::entry::{Content, Entry, KeyHasher};
use transparency_log::hash::Hash;
use transparency_log::tile::{Tile, TileData};

use super::consume::World;

/// Checks that each partition's log in the tables has the tree of its journal up to this end, tile for tile.
pub async fn fits(
    pool: &PgPool,
    schema: Schema,
    kafka: &KafkaOptions,
    ends: &BTreeMap<i32, i64>,
) -> Result<()> {
    for (partition, end) in ends {
        let (appender, mut tiles) = of_journal(kafka, *partition, *end).await?;
        tiles.extend(appender.unfinished());
        let mut snapshot = pg::begin_read(pool, schema).await?;
        let kept = log_size::read(&mut snapshot, &[*partition]).await?.pop().context("a log")?;
        ensure!(
            (kept.size.cast_unsigned(), kept.next_offset) == (appender.size(), *end),
            "{kept:?}, the journal has {} records up to {end}",
            appender.size()
        );
        for TileData { tile, bytes } in &tiles {
            let kept = log_tile::read(&mut snapshot, *partition, *tile).await?;
            ensure!(kept.as_ref() == Some(bytes), "{tile} of partition {partition}");
        }
        let edge: Vec<Tile> = Tile::edge(appender.size()).collect();
        let hashes = log_tile::hashes(&mut snapshot, *partition, &edge).await?;
        let bundle = log_tail::read(&mut snapshot, *partition).await?.bundle();
        let again = Appender::resume(appender.size(), &hashes, &bundle)?;
        ensure!(again.head() == appender.head(), "{:?} is not {:?}", again.head(), appender.head());
    }
    Ok(())
}

/// Makes a partition's log from the journal alone; returns it and the full tiles.
async fn of_journal(kafka: &KafkaOptions, partition: i32, end: i64) -> Result<(Appender, Vec<TileData>)> {
    let (mut appender, mut filled, mut hasher) = (Appender::new(), Vec::new(), None);
    let mut records = Box::pin(read_partition(kafka, partition, 0, end));
    while let Some(record) = records.try_next().await? {
        let Record { position, key, value, appended_at } = record;
        if position.offset == 0 {
            let salt = genesis_salt(key.as_deref(), value.as_deref().unwrap_or_default());
            hasher = Some(KeyHasher::new(&salt.context("a genesis record")?));
        }
        let hasher = hasher.as_ref().context("the genesis record comes first")?;
        let entry = Entry {
            offset: u64::try_from(position.offset)?,
            timestamp_ms: u64::try_from(appended_at.micros() / 1_000)?,
            content: Content::Readable {
                key: key.map(|key| hasher.hash(&key)),
                value: value.map(|value| Hash::of(&value)),
            },
        };
        appender.append(&entry, &mut filled);
    }
    Ok((appender, filled))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_without_its_logs_gets_them_from_the_journal() -> Result<()> {
    let world = World::new().await?;
    world.append(3_000).await?;
    let running = world.start("counter");
    world.settles().await?;
    running.stop().await?;
    // As if partitions 0 and 1 had been folded before there were logs, and 2 in part.
    world
        .execute(
            "create table {schema}.before as select * from {schema}.log_tile;
             create table {schema}.size_before as select * from {schema}.log_size;
             delete from {schema}.log_tile where partition < 3;
             delete from {schema}.log_tail where partition < 3;
             delete from {schema}.log_size where partition < 2;
             update {schema}.log_size set size = 0, next_offset = 0 where partition = 2",
        )
        .await?;
    world.append(300).await?;
    let running = world.start("counter");
    world.settles().await?;
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_comes_to_the_same_logs_and_another_tile_is_found() -> Result<()> {
    let world = World::new().await?;
    world.append(1_500).await?;
    let running = world.start("counter");
    world.settles().await?;
    running.stop().await?;
    let again = Schema { model: Model::ReadModel, generation: 2 };
    pg::create_generation(&world.pool, again).await?;
    world.fold_again(again, 37).await?;
    let differences = |what: &'static str| {
        let (pool, first) = (world.pool.clone(), world.schema);
        async move {
            let found = compare(&mut *pool.acquire().await?, first, again).await?;
            let tables: Vec<&str> =
                found.iter().map(|it| it.table).filter(|table| table.starts_with("log_")).collect();
            anyhow::Ok((what, tables))
        }
    };
    assert_eq!(differences("the same").await?.1, [""; 0]);
    for (change, table) in [
        (
            "update {schema}.log_tile set bytes = set_byte(bytes, 40, 7) where level = 0 and index = 0",
            "log_tile",
        ),
        (
            "update {schema}.log_tail set entries = set_byte(entries, 87, get_byte(entries, 87) # 1)",
            "log_tail",
        ),
        ("update {schema}.log_size set size = size + 1 where partition = 0", "log_size"),
    ] {
        world.execute(change).await?;
        let (_, tables) = differences(table).await?;
        ensure!(tables.contains(&table), "{table} differs: {tables:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_where_the_fold_is_stops_the_fold_and_no_account() -> Result<()> {
    let world = World::new().await?;
    world.append(100).await?;
    let running = world.start("counter");
    world.settles().await?;
    world.execute("update {schema}.log_size set size = size + 1 where partition = 0").await?;
    let stood = world.checkpoint().await?;
    world.append(100).await?;
    running.problem("the log of partition 0 is not where the fold is").await?;
    ensure!(world.checkpoint().await?.get(&0) == stood.get(&0), "partition 0 went on");
    world.execute("update {schema}.log_size set size = size - 1 where partition = 0").await?;
    world.settles().await?;
    running.stop().await
}
