//! Big accounts: a page reads a page's rows, however many there are.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::described::read;
use super::story::Story;
use e2e::{Caller, Whole};

/// Rows of each big table.
const ROWS: i64 = 100_000;
/// Most rows that all reads of the test together may read of a table: a page of any list and its sums, not the table.
const TOUCHED_MAX: i64 = 5_000;
/// Most lots that are open at once: a balance lists them all.
const LOTS: i64 = 10_000;
/// Postgres adds up what an idle connection has read within ten seconds.
const COUNTED_WITHIN: Duration = Duration::from_secs(15);

/// Rows of one account as a projector would have written them, in addition to its real ones.
fn statements() -> Vec<String> {
    let schema = "set local search_path = read_model_1".to_owned();
    let users = format!(
        "insert into user_usage
         select 'big', 0, 'user' || lpad(n::text, 7, '0'), 'chat', 1, 1 from generate_series(1, {ROWS}) as n"
    );
    let totals = "insert into user_total
         select account_id, period_index, user_id, used, events from user_usage where account_id = 'big'";
    let counted = "insert into user_usage_count
         select account_id, period_index, count(*) from user_usage where account_id = 'big' group by 1, 2
         on conflict (account_id, period_index) do update set counters = excluded.counters";
    let rollups = format!(
        "insert into usage_rollup
         select 'big', 0, date '2026-01-06', 'user' || lpad(n::text, 7, '0'), 'ai_usage', '', 'm' || n % 7, 'chat', '',
                1, 1, '{{\"tokens\": \"2\"}}'
           from generate_series(1, {ROWS}) as n"
    );
    let days = r#"insert into daily_usage
         select account_id, period_index, day, category, tier, model, feature, org_id, sum(credits), sum(events),
                json_build_object('tokens', (2 * count(*))::text)
           from usage_rollup
          where account_id = 'big' and user_id like 'user0%'
          group by 1, 2, 3, 4, 5, 6, 7, 8"#;
    let events = format!(
        r#"insert into event
           select 'big', 1000000 + n, 'e' || n, '/app', type, outcome, reason, content, occurred_at, recordedat,
                  appended_at, timestamptz '2030-01-01', actor, data, period_index, 'user' || lpad(n::text, 7, '0'),
                  'm' || n, credits, lots, line_start, line_end, balance_after, credit_balance_after, 0, null
             from event, generate_series(1, {ROWS}) as n
            where account_id = 'big' and event_id = 'u1'"#
    );
    let entries = format!(
        r#"insert into entry
           select 'big', 1000000 + n, 1, case when n <= 3 then 'voided' else 'adjusted' end, 1, 1, 1, 'e' || n,
                  timestamptz '2030-01-01', timestamptz '2030-01-01', '[]', 0
             from generate_series(1, {ROWS}) as n"#
    );
    // The first event past the present has a snapshot before it, as any thousandth would.
    let snapshot = r#"insert into snapshot
           select account_id, 1000000, timestamptz '2030-01-01', core from account where account_id = 'big'"#;
    let lots = format!(
        r#"insert into lot
           select 'big', 'g' || n, source, 1, 1, 0, 0, priority, effective_at, expires_at, granted_at, null, event_id,
                  null, null, 1000000 + n, 0, true
             from lot, generate_series(1, {LOTS}) as n
            where account_id = 'big' and grant_id = 'plan:0'"#
    );
    let accounts = format!(
        r#"insert into account
           select 'a' || n, partition, "offset", events, ledger_time, next_due_at, clock, rate_card, opened_at, core,
                  null, 'name ' || n, own_limits
             from account, generate_series(1, {ROWS} / 5) as n
            where account_id = 'big'"#
    );
    let all = [
        users,
        totals.to_owned(),
        counted.to_owned(),
        rollups,
        days.to_owned(),
        events,
        entries,
        snapshot.to_owned(),
        lots,
        accounts,
    ];
    std::iter::once(schema).chain(all).chain(control_statements()).collect()
}

/// Fills the tables of holds and decisions.
fn control_statements() -> [String; 4] {
    // Half of the holds are open.
    let holds = format!(
        "insert into control.hold
           select 'big', 'h' || n, '', 'user' || lpad(n::text, 7, '0'), 'chat', 1, 1,
                  case when n % 2 = 0 then 'held' else 'released' end,
                  timestamptz '2030-01-01' + n % 1000 * interval '1 second', now(), now()
             from generate_series(1, {ROWS}) as n"
    );
    let gate = format!("insert into control.gate values ('big', {ROWS} / 2)");
    let of_users = "insert into control.user_hold
           select account_id, user_id, feature, sum(counts) from control.hold where state = 'held' group by 1, 2, 3"
        .to_owned();
    let decisions = format!(
        r#"insert into control.decision (account_id, decided_at, logged_at, kind, user_id, settled, available, used, held,
                                         period_index, resets_at, "partition", "offset", actor)
           select 'big', timestamptz '2026-01-01' + n * interval '1 second', now(), 'check',
                  'user' || lpad((n % 10000)::text, 7, '0'), 1, 1, 1, 1, 0, now(), 0, 1, 'k'
             from generate_series(1, {ROWS}) as n"#
    );
    [holds, gate, of_users, decisions]
}

/// As autovacuum does for rows that come in one by one: the clean-up of old rows reads what is not summarised.
const SUMMARIZE: &str = "select brin_summarize_new_values('control.hold_created'),
                                brin_summarize_new_values('control.decision_logged')";

/// Removes them again, so that the read model matches the journal.
const CLEAN: [&str; 13] = [
    "set local search_path = read_model_1",
    "delete from user_usage where account_id = 'big' and user_id like 'user0%'",
    "delete from user_total where account_id = 'big'",
    "update user_usage_count set counters = counters - 100000 where account_id = 'big'",
    "delete from usage_rollup where account_id = 'big' and user_id like 'user0%'",
    "delete from daily_usage where account_id = 'big' and model like 'm%'",
    r#"delete from event where account_id = 'big' and "offset" > 1000000"#,
    r#"delete from entry where account_id = 'big' and "offset" > 1000000"#,
    r#"delete from snapshot where account_id = 'big' and "offset" = 1000000"#,
    "delete from lot where account_id = 'big' and grant_id like 'g%'",
    "delete from account where account_id like 'a%'",
    "update account set core = core - 'limits' where account_id = 'big'",
    "delete from own_limit where account_id = 'big'",
];

async fn write(whole: &Whole, statements: &[String]) -> Result<()> {
    let mut tx = whole.pool.begin().await?;
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}

/// Rows of each table that have been read so far, by an index or without.
async fn touched(whole: &Whole) -> Result<BTreeMap<String, i64>> {
    tokio::time::sleep(COUNTED_WITHIN).await;
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select relname::text, seq_tup_read + coalesce(idx_tup_fetch, 0)
           from pg_stat_user_tables
          where schemaname in ('read_model_1', 'control')",
    )
    .fetch_all(&whole.pool)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Reads two pages of a list.
async fn page_twice(caller: &Caller, path: &str) -> Result<()> {
    let first = read(caller, path).await?;
    let next = first.expect(200)?.body["next_cursor"].as_str().context("a second page")?;
    let sign = if path.contains('?') { '&' } else { '?' };
    read(caller, &format!("{path}{sign}cursor={next}")).await?.expect(200).map(drop)
}

/// Lists of the account, read two pages deep.
const LISTS: [&str; 13] = [
    "/users",
    "/users?q=user007",
    "/users?sort=-used",
    "/users?sort=-used&q=user00777",
    "/usage?group_by=user",
    "/usage?group_by=user,model",
    "/entries",
    "/grants",
    "/entries?type=consumed",
    "/reservations",
    "/decisions",
    "/decisions?user=user0000777&to=2026-01-01T20:00:00Z&limit=3",
    "/decisions?from=2026-01-01T12:00:00Z",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_big_account_reads_a_page() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "big", json!({"allowance": "5"})).await?;
    story.usage("2026-01-06T00:00:00Z", "u1", json!({"credits": "1", "user_id": "ana"})).await?;
    story.usage("2026-01-08T00:00:00Z", "u2", json!({"credits": "1"})).await?;
    write(&whole, &statements()).await?;
    sqlx::query("analyze").execute(&whole.pool).await?;
    sqlx::raw_sql(SUMMARIZE).execute(&whole.pool).await?;
    // Forces the plan that a connection keeps after some uses, for any parameters: the worst case.
    let database: String = sqlx::query_scalar("select current_database()").fetch_one(&whole.pool).await?;
    let generic = format!(r#"alter database "{database}" set plan_cache_mode = force_generic_plan"#);
    sqlx::query(AssertSqlSafe(generic)).execute(&whole.pool).await?;
    let whole = whole.restart().await?;

    let operator = whole.operator();
    let admin = whole.keyed("admin", &["a7", "big"], None).await?;
    let member = whole.keyed("member", &["big"], Some("user0077777")).await?;
    let start = touched(&whole).await?;
    ask_who_is_over_budget(&whole).await?;
    let before = touched(&whole).await?;
    let of_users = before["user_usage"] - start["user_usage"];
    ensure!(of_users > 0 && of_users < TOUCHED_MAX, "{of_users} rows were read for who is over budget");
    for list in LISTS {
        page_twice(&operator, &format!("/v1/accounts/big{list}")).await.context(list)?;
    }
    for list in ["", "?q=a", "?q=name%20199"] {
        page_twice(&operator, &format!("/v1/accounts{list}")).await.context(list)?;
    }
    read(&operator, "/v1/accounts?q=name%2019999&status=open").await?.expect(200)?;
    read(&operator, "/v1/accounts?status=closed").await?.expect(200)?;
    for one in [
        "",
        "/entries?type=voided",
        "/usage?user=user0077777",
        "/usage",
        "/usage?group_by=category,tier,model",
        "/usage?group_by=day&model=m3&period=all",
        "/usage?from=2026-01-01&to=2026-02-01&group_by=model",
        "/usage?group_by=user&sort=-credits",
        "/events/e77777",
        "/messages/m77777",
        "/balance?as_of=2026-01-07T00:00:00Z",
    ] {
        read(&operator, &format!("/v1/accounts/big{one}")).await?.expect(200)?;
    }
    let own = read(&admin, "/v1/accounts").await?;
    ensure!(own.expect(200)?.body["items"].as_array().is_some_and(|items| items.len() == 2), "{}", own.text);
    for own in ["/users", "/users?sort=-used&q=user", "/usage", "/events/e77777", "/decisions"] {
        read(&member, &format!("/v1/accounts/big{own}")).await?.expect(200)?;
    }
    let pages = touched(&whole).await?;
    // A hold is read with what is available.
    for figures in ["balance", "reservations/h77777"] {
        read(&operator, &format!("/v1/accounts/big/{figures}")).await?.expect(200)?;
    }
    let balance = touched(&whole).await?;
    for (table, rows) in &pages {
        let rows = rows - before.get(table).unwrap_or(&0);
        ensure!(rows < TOUCHED_MAX, "{rows} rows of {table} were read for some pages");
        let of_balance = balance.get(table).unwrap_or(&0) - pages[table];
        let most = if table == "lot" { 2 * LOTS + TOUCHED_MAX } else { TOUCHED_MAX };
        ensure!(of_balance < most, "{of_balance} rows of {table} were read for a balance");
    }
    ensure!(pages["event"] > before["event"], "what is read is counted");
    write(&whole, &CLEAN.map(str::to_owned)).await?;
    whole.replay_and_stop().await
}

/// Where many are over budget they fill a page first; where only own limits hold, only these users are read.
async fn ask_who_is_over_budget(whole: &Whole) -> Result<()> {
    // Many void ones, and a few in force.
    let own = format!(
        "insert into own_limit
         select 'big', 'user' || lpad(n::text, 7, '0'), case when n % 500 = 0 then 2 else 1 end, 1
         from generate_series(1, {ROWS}) as n"
    );
    write(whole, &["set local search_path = read_model_1".to_owned(), own, "analyze own_limit".to_owned()])
        .await?;
    for (default_limit, series, first) in [(json!("1"), 3, "ana"), (Value::Null, 2, "user0000500")] {
        let limits = json!({"enabled": true, "default_limit": default_limit, "series": series, "own_edits": 3,
            "excluded_features": ["workflow"], "notify": "all_admins"});
        let limit =
            format!("update account set core = core || '{{\"limits\": {limits}}}' where account_id = 'big'");
        write(whole, &["set local search_path = read_model_1".to_owned(), limit]).await?;
        page_twice(&whole.operator(), "/v1/accounts/big/users?over_budget=true").await?;
        page_twice(&whole.operator(), "/v1/accounts/big/users?over_budget=true&sort=-used").await?;
        let one = read(&whole.operator(), "/v1/accounts/big/users?over_budget=true&limit=1").await?;
        ensure!(one.expect(200)?.body["items"][0]["user_id"] == first, "{}", one.text);
    }
    Ok(())
}
