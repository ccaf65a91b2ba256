//! Holds: reserving and releasing over HTTP compared with one transaction a request, and checks.

use std::time::Duration;

use anyhow::{Result, ensure};
use platform::pg;
use platform::shutdown::CancellationToken;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use web::http::{self, HttpConfig};

use crate::caller::Caller;
use crate::environment::{CONNECTIONS, Environment};
use crate::ingest::Server;
use crate::measured::{Measured, quantile};
use crate::progress::say;
use crate::{load, naive};

/// Accounts that the load is spread over.
const ACCOUNTS: usize = 1_000;
const CLIENTS: [usize; 2] = [32, 256];
/// Start of each round that is not counted.
const WARM_UP: Duration = Duration::from_secs(2);
/// Counted part of each round.
const ROUND: Duration = Duration::from_secs(4);
/// Rounds of each kind, alternating.
const ROUNDS: usize = 2;

/// Measures every kind of load on one stack.
pub async fn run() -> Result<Vec<Measured>> {
    let environment = Environment::new().await?;
    let measured = measure(&environment).await;
    environment.leave().await?;
    measured
}

async fn measure(environment: &Environment) -> Result<Vec<Measured>> {
    let server = Server::start(environment).await?;
    server.open_accounts(ACCOUNTS).await?;
    let naive_url = start_naive(environment, &server.shutdown).await?;
    let mut measured = Vec::new();
    let mut hot_most = 0.0;
    for (accounts, name) in [(1, "holds hot"), (ACCOUNTS, "holds spread")] {
        for clients in CLIENTS {
            let (mut ours, mut others) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                others.push(
                    round(&naive_url, Load { accounts, clients, what: What::Holds, pace: None }).await?,
                );
                ours.push(
                    round(&server.url, Load { accounts, clients, what: What::Holds, pace: None }).await?,
                );
            }
            let (ours, others) = (Round::all(ours), Round::all(others));
            if accounts == 1 {
                hot_most = f64::max(hot_most, ours.rate());
            }
            measured.push(line(name, accounts, clients, ours, others));
        }
    }
    measured.push(paced(&server, &naive_url, hot_most / 2.0).await?);
    for accounts in [1, ACCOUNTS] {
        measured.push(checks(&server, accounts).await?);
    }
    server.shutdown.cancel();
    Ok(measured)
}

async fn start_naive(environment: &Environment, shutdown: &CancellationToken) -> Result<String> {
    let pool = pg::connect(&environment.database_url, "naive", CONNECTIONS).await?;
    naive::prepare(&pool, ACCOUNTS).await?;
    let config =
        HttpConfig { listen: ([127, 0, 0, 1], 0).into(), connections: 4096, allowed_origins: Vec::new() };
    let listener = http::bind(config.listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let routes = http::finish(naive::router(pool));
    tokio::spawn(http::serve(routes, listener, config.connections, shutdown.clone()));
    Ok(url)
}

fn line(name: &'static str, accounts: usize, clients: usize, mut ours: Round, mut others: Round) -> Measured {
    let p99 = |round: &mut Round| (quantile(&mut round.seconds, 0.99) * 1e4).round() / 10.0;
    Measured {
        more: json!({"accounts": accounts, "clients": clients, "p99_ms": p99(&mut ours), "ceiling_p99_ms": p99(&mut others)}),
        ..Measured::new(
            name,
            "reserves and releases/s",
            ours.rate(),
            ("one transaction a request on the same database", others.rate()),
            if accounts == 1 { "ratio 10 on the hot account" } else { "no aim" },
        )
    }
}

/// Latency of the hot account at half of its highest rate.
async fn paced(server: &Server, naive_url: &str, rate: f64) -> Result<Measured> {
    let clients = CLIENTS[1];
    let load = Load { accounts: 1, clients, what: What::Holds, pace: Some(rate) };
    let mut ours = round(&server.url, load).await?;
    // Half of the naive one's highest rate would be too easy for it: this rate is one that it surely bears.
    let mut other = round(naive_url, Load { pace: Some(rate / 50.0), ..load }).await?;
    let (p50, p99) = (quantile(&mut ours.seconds, 0.5), quantile(&mut ours.seconds, 0.99));
    Ok(Measured {
        more: json!({"requests_per_second": ours.rate().round(), "p50_ms": (p50 * 1e4).round() / 10.0,
                     "clients": clients, "ceiling_requests_per_second": other.rate().round()}),
        ..Measured::new(
            "holds paced",
            "ms p99 at half of the hot account's most",
            p99 * 1e3,
            ("one transaction a request, at a 50th of that rate", quantile(&mut other.seconds, 0.99) * 1e3),
            "p99 under 20 ms",
        )
    })
}

async fn checks(server: &Server, accounts: usize) -> Result<Measured> {
    let clients = CLIENTS[1];
    let load = Load { accounts, clients, what: What::Checks, pace: None };
    let mut ours = round(&server.url, load).await?;
    let bare = round(&server.url, Load { what: What::Nothing, ..load }).await?;
    let (p50, p99) = (quantile(&mut ours.seconds, 0.5), quantile(&mut ours.seconds, 0.99));
    Ok(Measured {
        more: json!({"accounts": accounts, "clients": clients, "p50_ms": (p50 * 1e4).round() / 10.0,
                     "p99_ms": (p99 * 1e4).round() / 10.0}),
        ..Measured::new(
            if accounts == 1 { "checks hot" } else { "checks spread" },
            "checks/s",
            ours.rate(),
            ("the same requests refused for a field, after the key and before anything is read", bare.rate()),
            "20,000 checks/s",
        )
    })
}

/// What a client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Reserves and releases, in turn.
    Holds,
    Checks,
    /// Sends requests that validation refuses.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
struct Load {
    accounts: usize,
    clients: usize,
    what: What,
    /// Requests per second; without it, the next follows as soon as an answer comes.
    pace: Option<f64>,
}

/// What a round measured: the seconds of each request, and how long the round took.
#[derive(Debug, Default)]
struct Round {
    seconds: Vec<f64>,
    took: f64,
}

impl Round {
    fn all(rounds: Vec<Round>) -> Round {
        rounds.into_iter().fold(Round::default(), |mut all, round| {
            all.seconds.extend(round.seconds);
            all.took += round.took;
            all
        })
    }

    fn rate(&self) -> f64 {
        self.seconds.len() as f64 / self.took
    }
}

async fn round(url: &str, load: Load) -> Result<Round> {
    let begin = Instant::now();
    let (from, until) = (begin + WARM_UP, begin + WARM_UP + ROUND);
    let run: u64 = rand::random();
    let mut clients = JoinSet::new();
    for client in 0..load.clients {
        clients.spawn(drive(url.to_owned(), load, client, run, (begin, from, until)));
    }
    let mut all = Round { took: ROUND.as_secs_f64(), ..Round::default() };
    while let Some(seconds) = clients.join_next().await {
        all.seconds.extend(seconds??);
    }
    say(&format!("{load:?}: {:.0}/s", all.rate()));
    Ok(all)
}

/// One client; returns the seconds of each request that was answered in the counted part. With a pace, a request's
/// time starts when the request was due.
async fn drive(
    url: String,
    load: Load,
    client: usize,
    run: u64,
    (begin, from, until): (Instant, Instant, Instant),
) -> Result<Vec<f64>> {
    let mut caller = Caller::connect(&url).await?;
    let mut seconds = Vec::new();
    let gap = load.pace.map(|pace| Duration::from_secs_f64(load.clients as f64 / pace));
    for number in 0.. {
        let mut start = Instant::now();
        if let Some(gap) = gap {
            start = begin + gap.mul_f64(number as f64 + client as f64 / load.clients as f64);
            sleep_until(start).await;
        }
        if start >= until {
            break;
        }
        call(&mut caller, load, client, run, number).await?;
        // Counts what was due in the counted part, so that delays from all clients connecting at once are left out.
        if start >= from && Instant::now() < until {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(seconds)
}

async fn call(caller: &mut Caller, load: Load, client: usize, run: u64, number: usize) -> Result<()> {
    // Both requests of a pair go to the same account.
    let account = load::account((client + number / 2 * load.clients) % load.accounts);
    let path = format!("/v1/accounts/{account}");
    let id = format!("r-{run:x}-{client}-{}", number / 2);
    let (status, expected) = match load.what {
        What::Holds if number.is_multiple_of(2) => {
            let body =
                format!(r#"{{"reservation_id":"{id}","user_id":"user-{}","amount":"1"}}"#, client % 97);
            (caller.post(&format!("{path}/reservations"), &body).await?, [201, 201])
        }
        What::Holds => (caller.post(&format!("{path}/reservations/{id}/release"), "").await?, [200, 201]),
        What::Checks => {
            let body = format!(r#"{{"user_id":"user-{}","feature":"chat","amount":"1"}}"#, client % 97);
            (caller.post(&format!("{path}/check"), &body).await?, [200, 200])
        }
        What::Nothing => {
            let body = format!(r#"{{"user_id":"user-{}","feature":"chat","amount":"0"}}"#, client % 97);
            (caller.post(&format!("{path}/check"), &body).await?, [422, 422])
        }
    };
    ensure!(expected.contains(&status), "{}", caller.said());
    Ok(())
}
