//! Halted: an account whose event can't be folded stops alone, and goes on once it is resumed.

use anyhow::{Context, Result, ensure};
use engine::tables::halted::{self, Halt, Kind};
use ledger_core::event::Event;
use ledger_core::event::wire::{self, DecodeError};
use ledger_core::value::id::AccountId;
use platform::kafka::Position;
use platform::pg::{self, Schema};
use sqlx::AssertSqlSafe;

use crate::world::{World, opening, using};

impl World {
    /// Returns the end of an account's partition: the position of the next record there.
    async fn next_of(&self, account: &str) -> Result<Position> {
        Ok(self.journal.end(self.journal.partition_of(account)).await?)
    }

    /// Puts a row where the event at this offset will be written.
    async fn plant(&self, schema: Schema, account: &str, offset: i64) -> Result<()> {
        let plant = format!(
            r#"insert into {schema}.event
               select (jsonb_populate_record(event, jsonb_build_object('offset', {offset}, 'event_id', 'planted'))).*
               from {schema}.event
               where account_id = '{account}' and event_id = 'open'"#
        );
        let planted = sqlx::query(AssertSqlSafe(plant)).execute(&self.source.pool).await?;
        ensure!(planted.rows_affected() == 1, "nothing was planted");
        Ok(())
    }

    async fn unplant(&self, schema: Schema) -> Result<()> {
        let unplant = format!("delete from {schema}.event where event_id = 'planted'");
        sqlx::query(AssertSqlSafe(unplant)).execute(&self.source.pool).await?;
        Ok(())
    }

    async fn halt_of(&self, schema: Schema, account: &str) -> Result<Option<Halt>> {
        let mut tx = pg::begin_read(&self.source.pool, schema).await?;
        Ok(halted::of(&mut tx, schema, &AccountId::new(account)?).await?)
    }

    async fn resume(&self, schema: Schema, account: Option<&str>) -> Result<Vec<Halt>> {
        let account = account.map(AccountId::new).transpose()?;
        let mut connection = self.source.pool.acquire().await?;
        Ok(halted::resume(&mut connection, schema, account.as_ref()).await?)
    }

    async fn events_of(&self, schema: Schema, account: &str) -> Result<i64> {
        self.count(schema, &format!("event where account_id = '{account}' and event_id <> 'planted'")).await
    }
}

/// Accounts enough to share each partition with others.
fn names() -> Vec<String> {
    (0..12).map(|n| format!("a{n}")).collect()
}

async fn use_all(world: &World, id: &str) -> Result<()> {
    for name in names() {
        world.write_raw(&name, &using(&name, id)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_can_not_be_stored_halts_its_account_alone_until_it_is_resumed() -> Result<()> {
    let world = World::new().await?;
    let (live, fresh) = (world.generation(1).await?, world.generation(2).await?);
    for name in names() {
        world.write_raw(&name, &opening(&name)).await?;
    }
    use_all(&world, "u1").await?;
    world.project(live, 1_000).await?;
    let bad = [world.next_of("a0").await?];
    world.plant(live, "a0", bad[0].offset).await?;
    for id in ["u2", "u3"] {
        use_all(&world, id).await?;
    }
    world.project(live, 1_000).await?;

    let halt = world.halt_of(live, "a0").await?.context("a0 is not halted")?;
    ensure!((halt.kind, halt.position) == (Kind::Failed, bad[0]), "{halt:?}");
    ensure!(halt.reason.contains("event_pkey") && halt.reason.contains("23505"), "{halt:?}");
    let parked =
        world.texts(live, r#"select account_id || ' ' || reason from parked order by "offset""#).await?;
    ensure!(parked == ["a0 failed", "a0 behind"], "{parked:?}");
    ensure!(world.events_of(live, "a0").await? == 2, "what came before is folded");
    for name in names().iter().skip(1) {
        ensure!(world.events_of(live, name).await? == 4, "{name} goes on, beside a0 or elsewhere");
    }
    // Nothing tries by itself: not with a new record, and not in a new process after the mend.
    world.write_raw("a0", &using("a0", "u4")).await?;
    world.project(live, 1_000).await?;
    world.resume(live, Some("a0")).await?;
    world.project(live, 1_000).await?;
    let halt = world.halt_of(live, "a0").await?.context("it can't be stored yet")?;
    ensure!(!halt.resume && halt.position == bad[0], "{halt:?}");
    world.unplant(live).await?;
    world.project(live, 1_000).await?;
    ensure!(world.halt_of(live, "a0").await?.is_some(), "nobody asked for it");

    world.resume(live, Some("a0")).await?;
    world.project(live, 1_000).await?;
    ensure!(world.halt_of(live, "a0").await?.is_none(), "a0 goes on");
    world.project(fresh, 1_000).await?;
    world.ensure_equal(live, fresh).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_batch_each_account_that_fails_is_found() -> Result<()> {
    let world = World::new().await?;
    let (live, fresh) = (world.generation(1).await?, world.generation(2).await?);
    for name in names() {
        world.write_raw(&name, &opening(&name)).await?;
    }
    world.project(live, 1_000).await?;
    let failing = ["a1", "a5", "a6"];
    // The second of three usages of each can't be stored.
    use_all(&world, "u1").await?;
    for name in names() {
        if failing.contains(&name.as_str()) {
            world.plant(live, &name, world.next_of(&name).await?.offset).await?;
        }
        world.write_raw(&name, &using(&name, "u2")).await?;
    }
    use_all(&world, "u3").await?;
    world.project(live, 1_000).await?;
    for name in names() {
        let is_halted = world.halt_of(live, &name).await?.is_some();
        let folded = world.events_of(live, &name).await?;
        let expected = if failing.contains(&name.as_str()) { (true, 2) } else { (false, 4) };
        ensure!((is_halted, folded) == expected, "{name}: {is_halted} {folded}");
    }
    world.unplant(live).await?;
    ensure!(world.resume(live, None).await?.len() == failing.len(), "all that failed");
    world.project(live, 1_000).await?;
    ensure!(world.count(live, "halted").await? == 0 && world.count(live, "parked").await? == 0);
    world.project(fresh, 1_000).await?;
    world.ensure_equal(live, fresh).await
}

/// A binary with a bug that one event meets.
fn panicking(bytes: &[u8]) -> Result<Event, DecodeError> {
    let event = wire::decode(bytes)?;
    assert_ne!(event.id.as_str(), "poison", "a bug");
    Ok(event)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bug_that_one_event_meets_halts_its_account_until_a_mended_program_resumes_it() -> Result<()> {
    let world = World::new().await?;
    let (live, fresh) = (world.generation(1).await?, world.generation(2).await?);
    for name in names() {
        world.write_raw(&name, &opening(&name)).await?;
    }
    world.write_raw("a3", &using("a3", "poison")).await?;
    use_all(&world, "u1").await?;
    let ends = world.journal.ends().await?;
    world.project_to(live, 1_000, &ends, panicking).await?;
    let halt = world.halt_of(live, "a3").await?.context("a3 is not halted")?;
    ensure!(halt.kind == Kind::Failed && halt.reason.contains("a bug"), "{halt:?}");
    ensure!(world.count(live, "halted").await? == 1);
    world.project(live, 1_000).await?;
    ensure!(world.halt_of(live, "a3").await?.is_some(), "a new program alone does not try");
    world.resume(live, Some("a3")).await?;
    world.project(live, 1_000).await?;
    world.project(fresh, 1_000).await?;
    world.ensure_equal(live, fresh).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_can_not_be_read_halts_its_account_alone() -> Result<()> {
    let world = World::new().await?;
    let live = world.generation(1).await?;
    for name in names() {
        world.write_raw(&name, &opening(&name)).await?;
    }
    world.project(live, 1_000).await?;
    let break_row = format!("update {live}.account set core = '{{}}' where account_id = 'a2'");
    sqlx::query(AssertSqlSafe(break_row)).execute(&world.source.pool).await?;
    for id in ["u1", "u2"] {
        use_all(&world, id).await?;
        world.project(live, 1_000).await?;
    }
    let halted = world.texts(live, "select account_id || ' ' || kind from halted").await?;
    ensure!(halted == ["a2 failed"], "{halted:?}");
    ensure!(world.events_of(live, "a1").await? == 3, "others go on");
    Ok(())
}
