//! Console: first byte and size of each page of an account with 100,000 users and 40 models, and how long a write takes
//! to reach a page that follows the account while 1,000 events/s come in.

use std::time::{Duration, Instant};

use alert_worker::delivery::DeliveryConfig;
use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use futures::future::{Either, select};
use platform::pg::{self, PgPool};
use reqwest::Response;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::time::{interval, sleep, timeout};

use crate::environment::Environment;
use crate::measured::{Measured, quantile};
use crate::progress::say;
use crate::running::{RunningLedger, StartLedger, measured_in};
use crate::visible::Client;

const USERS: usize = 100_000;
const MODELS: usize = 40;
/// Reads of each page that are counted, after some that are not.
const READS: usize = 50;
const WARM_UP: usize = 5;
/// One row by its key, over the API.
const FLOOR: &str = "/v1/accounts/account-0/plan";
const PAGES: [&str; 15] = [
    "/",
    "/accounts/account-0",
    "/accounts/account-0/usage",
    "/accounts/account-0/usage?group_by=user",
    "/accounts/account-0/people",
    "/accounts/account-0/people/user-0000042",
    "/accounts/account-0/messages",
    "/accounts/account-0/history",
    "/accounts/account-0/billing",
    "/accounts/account-0/grants",
    "/accounts/account-0/limits",
    "/accounts/account-0/notifications",
    "/accounts/account-0/audit",
    "/accounts/account-0/settings",
    "/search?q=user-00000&account=account-0",
];
/// Accounts that the load goes to, the followed one among them.
const ACCOUNTS: usize = 10;
const BATCH_EVENTS: usize = 10;
/// 100 batches of 10 events a second.
const BATCH_EVERY: Duration = Duration::from_millis(10);
const LIVE_FOR: Duration = Duration::from_secs(15);
const SHOWN_MAX: Duration = Duration::from_secs(10);

/// Measures the pages of a running ledger whose tables are filled as a projector would have filled them.
pub async fn run(start: StartLedger) -> Result<Vec<Measured>> {
    measured_in(Environment::new().await?, DeliveryConfig::default(), start, measure).await
}

async fn measure(environment: &Environment, ledger: &RunningLedger) -> Result<Vec<Measured>> {
    let client = Client::of(ledger);
    client.open_accounts(ACCOUNTS).await?;
    // The first events of the period, so that its sums have rows to be copied from.
    client.send(0, 1, BATCH_EVENTS).await?;
    sleep(Duration::from_secs(1)).await;
    let pool = pg::connect(&environment.database_url, "bench", 1).await?;
    fill(&pool).await?;
    let browser = Browser::sign_in(ledger).await?;
    let mut measured = Vec::new();
    for page in PAGES {
        measured.push(one(&client, &browser, page).await.context(page)?);
    }
    measured.push(live(&client, &browser).await?);
    Ok(measured)
}

/// A client with the cookie of a session.
struct Browser {
    http: reqwest::Client,
    url: String,
    cookie: String,
}

impl Browser {
    async fn sign_in(ledger: &RunningLedger) -> Result<Browser> {
        let http = platform::http_client::plain();
        let form = format!("key={}", ledger.operator_key);
        let post = http.post(format!("{}/login", ledger.url)).body(form);
        let answer = post.header("content-type", "application/x-www-form-urlencoded").send().await?;
        let cookie = answer.headers().get("set-cookie").context("no session")?.to_str()?;
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Ok(Browser { http, url: ledger.url.clone(), cookie })
    }

    /// Returns as soon as the answer's head is there.
    async fn open(&self, path: &str) -> Result<Response> {
        let get = self.http.get(format!("{}{path}", self.url)).header("cookie", &self.cookie);
        let answer = get.header("accept-encoding", "gzip").send().await?;
        ensure!(answer.status() == 200, "{path}: {}", answer.status());
        Ok(answer)
    }
}

/// Reads a page and the one row, alternating.
async fn one(client: &Client, browser: &Browser, page: &'static str) -> Result<Measured> {
    let (mut times, mut floor_times, mut bytes) = (Vec::new(), Vec::new(), 0);
    for number in 0..WARM_UP + READS {
        let begun = Instant::now();
        let answer = browser.open(page).await?;
        let seconds = begun.elapsed().as_secs_f64();
        bytes = answer.bytes().await?.len();
        let begun = Instant::now();
        client.get(FLOOR).await?;
        if number >= WARM_UP {
            times.push(seconds);
            floor_times.push(begun.elapsed().as_secs_f64());
        }
    }
    let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    let floor = quantile(&mut floor_times, 0.5);
    Ok(Measured {
        more: json!({"page": page, "p99": (p99 * 1e6).round(), "bytes_gzipped": bytes}),
        ..Measured::new(
            "console",
            "µs p50 to the first byte of a page",
            p50 * 1e6,
            ("one row by its key over the API", floor * 1e6),
            "under 100 ms and 100 KiB",
        )
    })
}

/// Follows the account as its page does, while usage comes in; each batch of the account is timed from its
/// acknowledgement to the event that reflects it.
async fn live(client: &Client, browser: &Browser) -> Result<Measured> {
    say("following an account at 1,000 events/s");
    let mut reflected = Reflected::follow(browser).await?;
    let (mut times, mut every) = (Vec::new(), interval(BATCH_EVERY));
    let begun = Instant::now();
    let mut number = ACCOUNTS;
    while begun.elapsed() < LIVE_FOR {
        every.tick().await;
        let (answer, acknowledged) = client.send(number, ACCOUNTS, BATCH_EVENTS).await?;
        if number.is_multiple_of(ACCOUNTS) {
            let offset =
                answer["items"][BATCH_EVENTS - 1]["position"]["offset"].as_i64().context("offset")?;
            let shown = Box::pin(timeout(SHOWN_MAX, reflected.reach(offset)));
            let load = Box::pin(send_on(client, number + 1));
            match select(shown, load).await {
                Either::Left((shown, _)) => shown??,
                Either::Right((failed, _)) => return Err(failed),
            }
            times.push(acknowledged.elapsed().as_secs_f64());
            number += 100_000;
        }
        number += 1;
    }
    ensure!(times.len() > 10, "only {} writes were followed", times.len());
    let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    Ok(Measured {
        more: json!({"p99": (p99 * 1e3).round(), "writes": times.len()}),
        ..Measured::new(
            "console",
            "ms p50 from acknowledged to a page's event",
            p50 * 1e3,
            ("1 s", 1_000.0),
            "p99 under 1 s",
        )
    })
}

/// Keeps the load up; ends only by an error.
async fn send_on(client: &Client, first: usize) -> anyhow::Error {
    let mut every = interval(BATCH_EVERY);
    // Not the followed account, and ids that nobody else sends.
    for number in (first..).filter(|number| !number.is_multiple_of(ACCOUNTS)) {
        every.tick().await;
        if let Err(error) = client.send(number, ACCOUNTS, BATCH_EVENTS).await {
            return error;
        }
    }
    anyhow::anyhow!("the numbers have ended")
}

/// The stream that a page follows, and what it has reflected.
struct Reflected {
    answer: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Reflected {
    async fn follow(browser: &Browser) -> Result<Reflected> {
        let answer = browser.open("/accounts/account-0/live").await?.bytes_stream().boxed();
        Ok(Reflected { answer, text: String::new() })
    }

    /// Reads on until an event reflects this offset.
    async fn reach(&mut self, offset: i64) -> Result<()> {
        while let Some(bytes) = self.answer.next().await {
            self.text.push_str(&String::from_utf8_lossy(&bytes?));
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data:"));
                let data: Option<Value> = data.and_then(|data| serde_json::from_str(data.trim()).ok());
                let reached = data.and_then(|data| data["position"]["offset"].as_i64());
                self.text = rest.to_owned();
                if reached.is_some_and(|reached| reached >= offset) {
                    return Ok(());
                }
            }
        }
        bail!("the stream has ended")
    }
}

/// Fills the tables: users with one event and with many, over 40 models.
async fn fill(pool: &PgPool) -> Result<()> {
    say("filling the tables");
    let fill = format!(
        r#"set search_path = read_model_1;
           insert into user_usage
           select 'account-0', 0, 'user-' || lpad(n::text, 7, '0'), 'agent_chat',
                  round(100000 / (1 + n::bigint * 7919 % 100003), 2) + n % 100 * 0.38, 1 + n % 40
             from generate_series(0, {USERS} - 1) as n;
           update user_usage_count set counters = counters + {USERS} where account_id = 'account-0';
           insert into user_usage_count values ('account-0', 0, {USERS}) on conflict do nothing;
           insert into user_total
           select account_id, period_index, user_id, used, events from user_usage where user_id like 'user-0%'
               on conflict do nothing;
           insert into usage_rollup
           select 'account-0', 0, current_date - n % 28, 'user-' || lpad(n::text, 7, '0'), 'ai_usage', 'advanced',
                  'model-' || n % {MODELS}, 'agent_chat', '', 1, 1, '{{"input_tokens": "1200"}}'
             from generate_series(0, {USERS} - 1) as n;
           insert into daily_usage
           select account_id, period_index, day, category, tier, model, feature, org_id, sum(credits), sum(events),
                  json_build_object('input_tokens', (1200 * count(*))::text)
             from usage_rollup
            where account_id = 'account-0' and user_id like 'user-0%' and model like 'model-%'
            group by 1, 2, 3, 4, 5, 6, 7, 8
               on conflict do nothing;"#
    );
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(pool).await?;
    for table in ["user_usage", "user_total", "usage_rollup", "daily_usage"] {
        let analyze = format!("vacuum analyze read_model_1.{table}");
        sqlx::raw_sql(AssertSqlSafe(analyze)).execute(pool).await?;
    }
    Ok(())
}
