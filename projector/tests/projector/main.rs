//! The projector on real Kafka and Postgres: same log, same rows, for any batches and restarts.

local_stack::shared_test_stack!();

mod halted;
mod history;
#[allow(dead_code, reason = "tests of the whole ledger use more of it")]
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use engine::tables::user_total::COUNTERS_WITHOUT_TOTALS;
use ledger_core::account::Core;
use ledger_core::account::limit::OwnLimit;
use ledger_core::account::lot::Lot;
use ledger_core::event::wire::{self, DecodeError};
use ledger_core::fold::Fact;
use ledger_core::fold::memory::{self, Memory};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, GrantId};
use platform::kafka::{Position, Record};
use platform::pg::{self, Schema, credits_of};
use sqlx::Row;

use crate::world::{PARTITIONS, World, opening, raw, using};

/// Folds records in memory, each in a batch of its own.
fn in_memory(records: &[Record]) -> Memory {
    let mut memory = Memory::default();
    for record in records {
        if let Ok(event) = wire::decode(record.value_bytes()) {
            memory.fold(&[Fact::new(event, record.appended_at, record.position.offset)]);
        }
    }
    memory
}

#[tokio::test]
async fn any_split_and_restart_leaves_the_same_rows() -> Result<()> {
    let world = World::new().await?;
    world.write(&history::history(1, 7, 90)).await?;
    let (whole, small, restarted) =
        (world.generation(1).await?, world.generation(2).await?, world.generation(3).await?);
    world.project(whole, 10_000).await?;
    world.project(small, 3).await?;
    // A new process every few records: nothing of it is cached.
    let ends = world.journal.ends().await?;
    for part in 1..=9 {
        let part_of = |end: &Position| Position { offset: end.offset * part / 9, ..*end };
        let ends: Vec<Position> = ends.iter().map(part_of).collect();
        world.project_to(restarted, 50, &ends, wire::decode).await?;
    }
    world.ensure_equal(whole, small).await?;
    world.ensure_equal(whole, restarted).await?;
    ensure!(world.count(whole, "event").await? > 200, "the history has events");
    for table in [
        "refused",
        "entry",
        "period",
        "repayment",
        "snapshot",
        "user_usage",
        "usage_rollup",
        "daily_usage",
        "own_limit",
    ] {
        ensure!(world.count(whole, table).await? > 0, "the history leaves rows in {table}");
    }
    let void =
        "own_limit join account using (account_id) where series < (core -> 'limits' ->> 'series')::bigint";
    ensure!(world.count(whole, void).await? > 0, "the history replaces all own limits of an account");
    for kind in ["top_up.started", "top_up.failed", "credits.topped_up", "dispute.opened", "dispute.won"] {
        let applied = format!("event where type = 'ledger.{kind}.v1' and outcome = 'applied'");
        ensure!(world.count(whole, &applied).await? > 0, "the history has an applied {kind}");
    }
    Ok(())
}

#[tokio::test]
async fn the_read_model_is_what_a_fold_in_memory_says() -> Result<()> {
    let world = World::new().await?;
    world.write(&history::history(2, 6, 150)).await?;
    let schema = world.generation(1).await?;
    world.project(schema, 40).await?;
    let memory = in_memory(&world.records().await?);
    let mut open = 0;
    for (id, account) in &memory.accounts {
        let Some(core) = &account.core else { continue };
        open += 1;
        let stored = world.core(schema, id).await?;
        ensure!(stored == *core, "core of {id}: {stored:#?} is not {core:#?}");
        world.ensure_lots(schema, id, &account.lots).await?;
        world.ensure_own_limits(schema, account, core).await?;
        world.ensure_books_close(schema, core).await?;
    }
    ensure!(open == 6, "every account was opened");
    Ok(())
}

impl World {
    /// The account's core as stored, with its open lots.
    async fn core(&self, schema: Schema, account: &AccountId) -> Result<Core> {
        let mut tx = pg::begin_read(&self.source.pool, schema).await?;
        let core: String = sqlx::query_scalar("select core::text from account where account_id = $1")
            .bind(account.as_str())
            .fetch_one(&mut *tx)
            .await?;
        let snapshot: Core = serde_json::from_str(&core)?;
        let lots = sqlx::query(
            r#"select jsonb_build_object(
                   'grant_id', grant_id, 'source', source, 'amount', trim_scale(amount)::text,
                   'remaining', trim_scale(remaining)::text, 'lapsed', trim_scale(lapsed)::text,
                   'refunded', trim_scale(refunded)::text, 'priority', priority, 'effective_at', effective_at,
                   'expires_at', expires_at, 'granted_at', granted_at, 'voided_at', voided_at,
                   'event_id', event_id, 'payment_id', payment_id, 'reason', reason, 'offset', "offset",
                   'seq', seq)::text
               from lot where account_id = $1 and remaining > 0"#,
        )
        .bind(account.as_str())
        .fetch_all(&mut *tx)
        .await?;
        let lots: Vec<Lot> =
            lots.iter().map(|row| Ok(serde_json::from_str(row.try_get(0)?)?)).collect::<Result<_>>()?;
        Ok(snapshot.with_lots(lots))
    }

    async fn ensure_lots(
        &self,
        schema: Schema,
        account: &AccountId,
        expected: &BTreeMap<GrantId, Lot>,
    ) -> Result<()> {
        let query = format!(
            "select grant_id || ' ' || trim_scale(remaining) || ' ' || trim_scale(lapsed) || ' ' || trim_scale(refunded)
             from lot where account_id = '{account}' order by grant_id"
        );
        let stored = self.texts(schema, &query).await?;
        let expected: Vec<String> = expected
            .values()
            .map(|lot| format!("{} {} {} {}", lot.grant_id, lot.remaining, lot.lapsed, lot.refunded))
            .collect();
        ensure!(stored == expected, "lots of {account}: {stored:?} are not {expected:?}");
        Ok(())
    }

    /// Users' own limits are stored as a fold that has all of them in memory knows them, and counted.
    async fn ensure_own_limits(&self, schema: Schema, account: &memory::Account, core: &Core) -> Result<()> {
        let id = &core.account;
        let query = format!(
            "select user_id || ' ' || series || ' ' || coalesce(trim_scale(amount)::text, 'unlimited')
             from own_limit where account_id = '{id}' order by user_id"
        );
        let stored = self.texts(schema, &query).await?;
        let expected: Vec<String> = account
            .own_limits
            .iter()
            .map(|(user, own)| format!("{user} {} {}", own.series, own.limit))
            .collect();
        ensure!(stored == expected, "own limits of {id}: {stored:?} are not {expected:?}");
        let limits = core.limits.as_ref();
        let is_in_force = |own: &&OwnLimit| limits.is_some_and(|limits| limits.own(Some(own)).is_some());
        let in_force = account.own_limits.values().filter(is_in_force).count();
        let counted = format!("select own_limits::text from account where account_id = '{id}'");
        ensure!(
            self.texts(schema, &counted).await? == [in_force.to_string()],
            "{in_force} own limits of {id} are in force"
        );
        Ok(())
    }

    /// Entries chain to the settled balance; counters and closed periods add up to what was used.
    async fn ensure_books_close(&self, schema: Schema, core: &Core) -> Result<()> {
        let account = &core.account;
        let entries = format!(
            r#"select trim_scale(amount)::text || ' ' || trim_scale(balance_after)::text
               from (select "offset", seq, amount, balance_after from entry where account_id = '{account}'
                     union all
                     select "offset", entry_seq, -credits, balance_after from event
                     where account_id = '{account}' and entry_seq is not null) as line
               order by "offset", seq"#
        );
        let mut balance = Credits::ZERO;
        for line in self.texts(schema, &entries).await? {
            let (amount, after) = line.split_once(' ').context("two amounts")?;
            balance = balance.plus(credits_of(amount)?)?;
            ensure!(
                balance == credits_of(after)?,
                "an entry of {account} breaks the chain: {line}, at {balance}"
            );
        }
        ensure!(
            balance == core.settled(),
            "entries of {account} come to {balance}, settled is {}",
            core.settled()
        );
        self.ensure_sums(schema, core).await
    }

    async fn ensure_sums(&self, schema: Schema, core: &Core) -> Result<()> {
        let account = &core.account;
        let open = core.period.index;
        let used = format!(
            "select trim_scale(coalesce(sum(credits), 0))::text from usage_rollup
             where account_id = '{account}' and period_index = {open}"
        );
        ensure!(self.texts(schema, &used).await? == [core.figures.used.to_string()], "rollups of {account}");
        let odd = format!(
            "period left join (select account_id, period_index, sum(credits) as credits
                               from usage_rollup group by account_id, period_index) as summed
                    on summed.account_id = period.account_id and summed.period_index = period.index
             where period.account_id = '{account}' and period.used <> coalesce(summed.credits, 0)"
        );
        ensure!(
            self.count(schema, &odd).await? == 0,
            "a closed period of {account} is not what its rollups say"
        );
        let users = format!(
            "(select period_index, user_id, feature, sum(credits) as used, sum(events) as events from usage_rollup
              where account_id = '{account}' and user_id <> '' group by period_index, user_id, feature) as summed
             full join (select * from user_usage where account_id = '{account}') as counted
                    using (period_index, user_id, feature)
             where summed.used is distinct from counted.used or summed.events is distinct from counted.events"
        );
        ensure!(
            self.count(schema, &users).await? == 0,
            "a user's counter of {account} is not what rollups say"
        );
        let counts = format!(
            "(select period_index, count(*) as counters from user_usage
              where account_id = '{account}' group by period_index) as summed
             full join (select * from user_usage_count where account_id = '{account}') as counted
                    using (period_index)
             where summed.counters is distinct from counted.counters"
        );
        ensure!(self.count(schema, &counts).await? == 0, "the counters of {account} are not counted right");
        let categories = format!(
            "(select period_index, category, sum(credits) as credits, sum(events) as events from usage_rollup
              where account_id = '{account}' group by period_index, category) as summed
             full join (select * from category_usage where account_id = '{account}') as counted
                    using (period_index, category)
             where summed.credits is distinct from counted.credits or summed.events is distinct from counted.events"
        );
        ensure!(
            self.count(schema, &categories).await? == 0,
            "a category's sum of {account} is not what rollups say"
        );
        self.ensure_days(schema, account).await
    }

    async fn ensure_days(&self, schema: Schema, account: &AccountId) -> Result<()> {
        let dimensions = "period_index, day, category, tier, model, feature, org_id";
        let quantities = |table: &str| {
            format!(
                "(select {dimensions}, name, sum(amount::numeric) as amount
                    from {table} cross join lateral jsonb_each_text(quantities) as quantity (name, amount)
                   where account_id = '{account}' group by {dimensions}, name having sum(amount::numeric) <> 0)"
            )
        };
        for days in [
            format!(
                "(select {dimensions}, sum(credits) as credits, sum(events) as events from usage_rollup
                   where account_id = '{account}' group by {dimensions}) as summed
                 full join (select * from daily_usage where account_id = '{account}') as counted
                        using ({dimensions})
                 where summed.credits is distinct from counted.credits or summed.events is distinct from counted.events"
            ),
            format!(
                "{} as summed full join {} as counted using ({dimensions}, name)
                 where summed.amount is distinct from counted.amount",
                quantities("usage_rollup"),
                quantities("daily_usage")
            ),
        ] {
            ensure!(self.count(schema, &days).await? == 0, "a day's sum of {account} is not what rollups say");
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_record_that_is_no_event_of_its_account_is_a_dead_letter_and_stops_nobody() -> Result<()> {
    let world = World::new().await?;
    let schema = world.generation(1).await?;
    world.write_raw("acme", &opening("acme")).await?;
    world.write_raw("acme", "no event \u{0} at all").await?;
    world.write_raw("acme", "").await?;
    world.write_raw("acme", &using("other", "u1")).await?;
    world.write_raw("acme", &raw("u2", "other.thing", "acme", "{}")).await?;
    world.write_astray("acme", &using("acme", "u3")).await?;
    world.write_raw("acme", &using("acme", "u4")).await?;
    world.project(schema, 4).await?;

    let reasons =
        world.texts(schema, "select split_part(reason, ':', 1) from dead_letter order by 1").await?;
    ensure!(
        reasons == ["not_an_event", "not_an_event", "not_an_event", "wrong_key", "wrong_partition"],
        "{reasons:?}"
    );
    let ids = world.texts(schema, r#"select event_id from event order by "offset""#).await?;
    ensure!(ids == ["open", "u4"], "what is an event folds on: {ids:?}");
    let kept = world
        .count(schema, "dead_letter where value = convert_to(e'', 'UTF8') or length(value) > 10")
        .await?;
    ensure!(kept == 5, "dead letters are kept whole");
    Ok(())
}

impl World {
    /// Writes a record into a partition that its key does not belong to.
    async fn write_astray(&self, key: &str, value: &str) -> Result<()> {
        use rdkafka::producer::{FutureProducer, FutureRecord};
        let producer: FutureProducer =
            rdkafka::ClientConfig::new().set("bootstrap.servers", &self.source.kafka.brokers).create()?;
        let topic = self.source.kafka.topics().events;
        let astray = (self.journal.partition_of(key) + 1) % PARTITIONS;
        let record = FutureRecord::to(&topic).key(key).payload(value).partition(astray);
        let sent = producer.send(record, std::time::Duration::from_secs(10)).await;
        sent.map(drop).map_err(|(error, _)| error.into())
    }
}

/// What a newer binary would read: `ledger.usage.recorded.v2` is what we know as `.v1`.
fn newer(bytes: &[u8]) -> Result<ledger_core::event::Event, DecodeError> {
    let text = String::from_utf8_lossy(bytes).replace("usage.recorded.v2", "usage.recorded.v1");
    wire::decode(text.as_bytes())
}

/// Usage of so many users that the period gets totals, in one batch or another, and some of it taken back.
#[tokio::test]
async fn a_period_has_totals_from_so_many_counters_on_for_any_batches() -> Result<()> {
    let world = World::new().await?;
    let event = |id: &str, event_type: &str, data: String| {
        let event = wire::decode(raw(id, event_type, "acme", &data).as_bytes()).expect("an event");
        (event.account.clone(), event)
    };
    let usage = |id: String, user: i64, feature: &str| {
        let data = format!(r#"{{"user_id":"u{user}","feature":"{feature}","credits":"0.38"}}"#);
        event(&id, "ledger.usage.recorded.v1", data)
    };
    let mut events = vec![event(
        "open",
        "ledger.account.opened.v1",
        r#"{"plan":{"cycle":"monthly","allowance":"9"}}"#.into(),
    )];
    // Each user has one counter, and the first a second one and many events: the limit is not passed yet.
    events.extend((1..COUNTERS_WITHOUT_TOTALS).map(|user| usage(format!("a{user}"), user, "chat")));
    events.extend((0..12).map(|n| usage(format!("b{n}"), 1, "workflow")));
    world.write(&events).await?;
    let (large, small) = (world.generation(1).await?, world.generation(2).await?);
    world.project(large, 2_000).await?;
    let counted = format!("user_usage_count where counters = {COUNTERS_WITHOUT_TOTALS}");
    ensure!(world.count(large, &counted).await? == 1 && world.count(large, "user_total").await? == 0);

    let reversed = |id: &str| {
        let data = format!(r#"{{"event_id":"{id}","source":"/app"}}"#);
        event(&format!("r{id}"), "ledger.usage.reversed.v1", data)
    };
    let more = [
        usage("c1".into(), 2, "chat"),
        usage("c2".into(), 0, "chat"),
        reversed("a3"),
        usage("c3".into(), 2, "x"),
    ];
    world.write(&more).await?;
    world.project(large, 2_000).await?;
    world.write(&[usage("d1".into(), 1, "chat"), reversed("b0"), usage("d2".into(), 3, "chat")]).await?;
    world.project(large, 2_000).await?;
    world.project(small, 700).await?;
    world.ensure_equal(large, small).await?;
    let totals = "select user_id || ' ' || trim_scale(used) || ' ' || events
                    from user_total where user_id in ('u0', 'u1', 'u2', 'u3', 'u4') order by user_id";
    let expected = ["u0 0.38 1", "u1 4.94 13", "u2 1.14 3", "u3 0.38 1", "u4 0.38 1"];
    for schema in [large, small] {
        let found = world.texts(schema, totals).await?;
        ensure!(found == expected, "{found:?}");
        let differing = "(select user_id, sum(used) as used, sum(events) as events from user_usage group by user_id) as summed
             full join user_total as total using (user_id)
             where (summed.used, summed.events) is distinct from (total.used, total.events)";
        ensure!(world.count(schema, differing).await? == 0, "totals are not the sums of counters");
    }
    Ok(())
}

/// Overdraft that very many lots have repaid: all of them are loaded at once, and written at once.
#[tokio::test]
async fn a_reversal_returns_credits_to_tens_of_thousands_of_lots_in_one_step() -> Result<()> {
    const LOTS: usize = 20_001;
    let world = World::new().await?;
    let schema = world.generation(1).await?;
    let event = |id: &str, event_type: &str, data: String| {
        let event = wire::decode(raw(id, event_type, "acme", &data).as_bytes()).expect("an event");
        (event.account.clone(), event)
    };
    let mut events = vec![
        event(
            "open",
            "ledger.account.opened.v1",
            r#"{"plan":{"cycle":"monthly","allowance":"0","on_exhausted":"allow"}}"#.into(),
        ),
        event("u", "ledger.usage.recorded.v1", r#"{"credits":"1000000"}"#.into()),
    ];
    events.extend((0..LOTS).map(|n| {
        let data = format!(r#"{{"grant_id":"g{n}","source":"promo","amount":"1"}}"#);
        event(&format!("g{n}"), "ledger.credits.granted.v1", data)
    }));
    world.write(&events).await?;
    world.project(schema, 2_000).await?;
    ensure!(world.count(schema, "lot where remaining > 0").await? == 0);

    let reversal = r#"{"event_id":"u","source":"/app"}"#;
    world.write(&[event("r", "ledger.usage.reversed.v1", reversal.into())]).await?;
    let started = Instant::now();
    world.project(schema, 2_000).await?;
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(30), "one reversal took {took:?}");
    let outcome = world.texts(schema, "select outcome from event where event_id = 'r'").await?;
    ensure!(outcome == ["applied"], "{outcome:?}");
    ensure!(world.count(schema, "lot where remaining = 1").await? == i64::try_from(LOTS)?);
    eprintln!("a reversal over {LOTS} lots took {took:?}");
    Ok(())
}

#[tokio::test]
async fn an_unknown_type_halts_its_account_only_until_a_newer_binary_runs() -> Result<()> {
    let world = World::new().await?;
    // Two accounts of one partition, and one of an unknown type.
    let names: Vec<String> = (0..30).map(|n| format!("a{n}")).collect();
    let home = world.journal.partition_of("a0");
    let beside =
        names.iter().skip(1).find(|name| world.journal.partition_of(name) == home).context("a name")?;
    for account in ["a0", beside] {
        world.write_raw(account, &opening(account)).await?;
        world.write_raw(account, &using(account, "u1")).await?;
    }
    world.write_raw("a0", &using("a0", "u2").replace("recorded.v1", "recorded.v2")).await?;
    for account in ["a0", beside] {
        world.write_raw(account, &using(account, "u3")).await?;
        world.write_raw(account, &using(account, "u3")).await?;
    }
    world.write_raw("a0", &using("a0", "u4").replace("recorded.v1", "recorded.v3")).await?;
    world.write_raw("a0", &using("a0", "u5")).await?;
    let (old, fresh) = (world.generation(1).await?, world.generation(2).await?);
    world.project(old, 2).await?;

    let parked =
        world.texts(old, r#"select account_id || ' ' || reason from parked order by "offset""#).await?;
    let expected = ["a0 ledger.usage.recorded.v2", "a0 behind", "a0 behind", "a0 behind", "a0 behind"];
    // The v3 after the v2 is unknown as well, but the v2 halts the account.
    ensure!(parked == expected, "{parked:?}");
    let folded =
        world.texts(old, "select account_id || ' ' || event_id from event order by account_id, 1").await?;
    ensure!(folded.len() == 5, "the other account goes on: {folded:?}");

    // The newer program goes on up to the next type that it does not know, without a new record.
    let ends = world.journal.ends().await?;
    world.project_to(old, 2, &ends, newer).await?;
    let parked =
        world.texts(old, r#"select account_id || ' ' || reason from parked order by "offset""#).await?;
    ensure!(parked == ["a0 ledger.usage.recorded.v3", "a0 behind"], "{parked:?}");
    world.project_to(fresh, 100, &ends, newer).await?;
    world.ensure_equal(old, fresh).await?;
    Ok(())
}

#[tokio::test]
async fn a_known_id_is_kept_beside_the_first_and_changes_nothing() -> Result<()> {
    let world = World::new().await?;
    let schema = world.generation(1).await?;
    world.write_raw("acme", &using("acme", "early")).await?;
    world.write_raw("acme", &opening("acme")).await?;
    world.write_raw("acme", &using("acme", "early")).await?;
    world.write_raw("acme", &using("acme", "early")).await?;
    world.write_raw("acme", &using("acme", "early").replace(r#""1"}"#, r#""2"}"#)).await?;
    for batch in [1, 100] {
        world.project(schema, batch).await?;
    }
    let refused = r#"select outcome || ' ' || coalesce(reason, '-') from refused order by "offset""#;
    let refused = world.texts(schema, refused).await?;
    ensure!(refused == ["rejected account_not_open", "duplicate -", "conflict -"], "{refused:?}");
    let used = world.texts(schema, "select used::text || ' ' || events from user_usage").await?;
    ensure!(used == ["1.000000000 1"], "{used:?}");
    Ok(())
}
