//! Lists: the first pages of users and of accounts, with a million of each, beside one row read over the same HTTP.

use std::time::Instant;

use alert_worker::delivery::DeliveryConfig;
use anyhow::{Context, Result, ensure};
use platform::pg::{self, PgPool};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::environment::Environment;
use crate::measured::{Measured, quantile};
use crate::progress::say;
use crate::running::{RunningLedger, StartLedger, measured_in};
use crate::visible::Client;

/// Users of one account, and accounts.
const ROWS: usize = 1_000_000;
/// Reads of each page that are counted, after some that are not.
const READS: usize = 200;
const WARM_UP: usize = 20;
/// One row by its key.
const FLOOR: &str = "/v1/accounts/account-0/plan";
/// In the order of the filters' selectivity: all, a tenth, a hundred, none.
const PAGES: [&str; 13] = [
    "/v1/accounts/account-0/users",
    "/v1/accounts/account-0/users?sort=-used",
    "/v1/accounts/account-0/users?q=user-01",
    "/v1/accounts/account-0/users?q=user-01234",
    "/v1/accounts/account-0/users?q=none",
    "/v1/accounts/account-0/users?sort=-used&q=user-01",
    "/v1/accounts/account-0/users?sort=-used&q=user-01234",
    "/v1/accounts/account-0/users?sort=-used&q=none",
    "/v1/accounts",
    "/v1/accounts?q=name",
    "/v1/accounts?q=name%2001234",
    "/v1/accounts?q=a01234",
    "/v1/accounts?status=closed&q=name",
];

/// Measures a running ledger whose tables are filled as a projector would have filled them.
pub async fn run(start: StartLedger) -> Result<Vec<Measured>> {
    measured_in(Environment::new().await?, DeliveryConfig::default(), start, measure).await
}

async fn measure(environment: &Environment, ledger: &RunningLedger) -> Result<Vec<Measured>> {
    let client = Client::of(ledger);
    client.open_accounts(1).await?;
    let pool = pg::connect(&environment.database_url, "bench", 1).await?;
    fill(&pool).await?;
    let mut measured = Vec::new();
    for page in PAGES {
        measured.push(one(&client, page).await.context(page)?);
    }
    Ok(measured)
}

/// Reads a page and the one row, alternating.
async fn one(client: &Client, page: &'static str) -> Result<Measured> {
    let (mut times, mut floor_times) = (Vec::new(), Vec::new());
    let mut rows = 0;
    for number in 0..WARM_UP + READS {
        let (answer, seconds) = timed(client, page).await?;
        let (_, floor_seconds) = timed(client, FLOOR).await?;
        rows = answer["items"].as_array().context("a list")?.len();
        if number >= WARM_UP {
            times.push(seconds);
            floor_times.push(floor_seconds);
        }
    }
    ensure!(rows > 0 || page.ends_with("none"), "an empty page");
    let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    let (floor_p50, floor_p99) = (quantile(&mut floor_times, 0.5), quantile(&mut floor_times, 0.99));
    let microseconds = |seconds: f64| (seconds * 1e6).round();
    Ok(Measured {
        more: json!({"page": page, "rows": rows, "p99": microseconds(p99), "ceiling_p99": microseconds(floor_p99)}),
        ..Measured::new(
            "lists",
            "µs p50 of a first page",
            p50 * 1e6,
            ("one row by its key over the same HTTP", floor_p50 * 1e6),
            "under 50 ms",
        )
    })
}

async fn timed(client: &Client, path: &str) -> Result<(Value, f64)> {
    let start = Instant::now();
    let answer = client.get(path).await?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((serde_json::from_slice(&answer)?, seconds))
}

/// Fills the tables: users with one event and with many, few of them with much usage; a hundredth of the accounts is
/// closed.
async fn fill(pool: &PgPool) -> Result<()> {
    say("filling the tables");
    let fill = format!(
        r#"set search_path = read_model_1;
           insert into user_usage
           select 'account-0', 0, 'user-' || lpad(n::text, 7, '0'), 'agent_chat',
                  round(1000000 / (1 + n::bigint * 7919 % 1000003), 2) + n % 100 * 0.38, 1 + n % 40
             from generate_series(0, {ROWS} - 1) as n;
           insert into user_usage_count values ('account-0', 0, {ROWS});
           insert into user_total
           select account_id, period_index, user_id, used, events from user_usage;
           insert into account
           select 'a' || lpad(n::text, 7, '0'), partition, "offset", events, ledger_time, next_due_at, clock, rate_card,
                  opened_at, core || jsonb_build_object('account', 'a' || lpad(n::text, 7, '0')),
                  case when n % 100 = 7 then ledger_time end, 'name ' || lpad((n::bigint * 7919 % {ROWS})::text, 7, '0')
             from account, generate_series(0, {ROWS} - 1) as n
            where account_id = 'account-0';"#
    );
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(pool).await?;
    sqlx::raw_sql("vacuum analyze read_model_1.user_usage").execute(pool).await?;
    sqlx::raw_sql("vacuum analyze read_model_1.user_total").execute(pool).await?;
    sqlx::raw_sql("vacuum analyze read_model_1.account").execute(pool).await?;
    Ok(())
}
