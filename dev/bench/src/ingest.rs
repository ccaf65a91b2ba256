//! Ingest: batches of usage over HTTP, acknowledged by Kafka, compared with a bare producer of the same bytes.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use engine::consume::{Source, Status};
use engine::progress::{WaitConfig, Waiter};
use futures::stream::{self, StreamExt, TryStreamExt};
use platform::clock;
use platform::http_client;
use platform::kafka::Journal;
use platform::pg::{self, Model};
use platform::shutdown::CancellationToken;
use serde_json::json;
use web::auth::{Auth, AuthConfig};
use web::http::{self, HttpConfig};

use crate::environment::{Environment, KEY};
use crate::load;
use crate::measured::Measured;
use crate::raw::RawProducer;

/// Accounts that the events are spread over.
const ACCOUNTS: usize = 100;
const USERS: usize = 97;
const BATCH_EVENTS: usize = 2_000;
/// Requests at the same time.
const CLIENTS: usize = 16;
const BATCHES_PER_ROUND: usize = 20;
/// Rounds of each kind, alternating.
const ROUNDS: usize = 6;

/// Measures both, in alternating rounds.
pub async fn run() -> Result<Measured> {
    let environment = Environment::new().await?;
    let measured = measure(&environment).await;
    environment.leave().await?;
    measured
}

async fn measure(environment: &Environment) -> Result<Measured> {
    let server = Server::start(environment).await?;
    server.open_accounts(ACCOUNTS).await?;
    server.projecting.cancel();

    let now = clock::now().to_string();
    let events = ROUNDS * BATCHES_PER_ROUND * BATCH_EVENTS;
    let offered: Vec<String> = (0..events).map(|n| load::offered(n % ACCOUNTS, n % USERS, n, &now)).collect();
    let stored: Vec<(String, Vec<u8>)> = (0..events)
        .map(|n| (load::account(n % ACCOUNTS).to_string(), load::recorded(n % ACCOUNTS, n % USERS, n)))
        .collect();
    let raw = RawProducer::new(&environment.kafka.brokers, &environment.kafka.topics().usage)?;

    let (mut ours, mut bare) = (0.0, 0.0);
    let of_a_round = BATCHES_PER_ROUND * BATCH_EVENTS;
    for (offered, stored) in offered.chunks(of_a_round).zip(stored.chunks(of_a_round)) {
        let bodies: Vec<String> =
            offered.chunks(BATCH_EVENTS).map(|batch| format!("[{}]", batch.join(","))).collect();
        let start = Instant::now();
        server.send(bodies).await?;
        ours += start.elapsed().as_secs_f64();
        let start = Instant::now();
        tokio::task::block_in_place(|| raw.send_all(stored.iter().map(|(k, v)| (k.as_str(), v.as_slice()))))?;
        bare += start.elapsed().as_secs_f64();
    }
    server.shutdown.cancel();
    let events = events as f64;
    Ok(Measured {
        more: json!({"events": events, "events_per_request": BATCH_EVENTS, "clients": CLIENTS, "accounts": ACCOUNTS}),
        ..Measured::new(
            "ingest",
            "events/s",
            events / ours,
            ("a bare rdkafka producer of the same records", events / bare),
            "ratio 0.5",
        )
    })
}

/// The write side in this process, and a client.
pub(crate) struct Server {
    pub url: String,
    client: reqwest::Client,
    pub shutdown: CancellationToken,
    projecting: CancellationToken,
}

impl Server {
    pub async fn start(environment: &Environment) -> Result<Server> {
        let (pool, identity) = environment.prepare().await?;
        pg::ensure_generation(&pool, Model::ReadModel).await?;
        let shutdown = CancellationToken::new();
        let projecting = shutdown.child_token();
        let source = Source { kafka: environment.kafka.clone(), identity, pool: pool.clone() };
        let options = projector::Config::default();
        tokio::spawn(projector::project(options, source, Status::default(), projecting.clone()));

        let journal = Journal::new(&environment.kafka, identity)?;
        let waiter =
            Waiter::listen(pool.clone(), Model::ReadModel, WaitConfig::default(), shutdown.clone()).await?;
        let auth = Auth::new(
            pool.clone(),
            &AuthConfig { operator_key: Some(KEY.to_owned()), ..AuthConfig::default() },
        )?;
        let sales = command_api::Sales::new(Default::default(), &Default::default(), &pool, identity.log_id)?;
        let (holds, reach) =
            (command_api::HoldsConfig::default(), command_api::Reach::new(sales, Default::default())?);
        let app = command_api::App::new(pool, journal, waiter, auth, holds, reach);
        let config =
            HttpConfig { listen: ([127, 0, 0, 1], 0).into(), connections: 4096, allowed_origins: Vec::new() };
        let listener = http::bind(config.listen).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = http::finish(command_api::router(app));
        tokio::spawn(http::serve(routes, listener, config.connections, shutdown.clone()));
        Ok(Server { url, client: http_client::plain(), shutdown, projecting })
    }

    /// Publishes the benchmark's rate card and opens accounts.
    pub async fn open_accounts(&self, accounts: usize) -> Result<()> {
        let put = self.client.put(format!("{}/v1/rate-cards/{}", self.url, load::CARD));
        put.bearer_auth(KEY).json(&load::rate_card()).send().await?.error_for_status()?;
        let openings = stream::iter(0..accounts).map(|number| async move {
            let post = self.client.post(format!("{}/v1/accounts", self.url)).bearer_auth(KEY);
            let opened = post.json(&load::opening(load::account(number).as_str(), "live")).send().await?;
            opened.error_for_status().context("an account did not open")
        });
        openings.buffer_unordered(CLIENTS * 4).try_collect::<Vec<_>>().await?;
        Ok(())
    }

    async fn send(&self, bodies: Vec<String>) -> Result<()> {
        stream::iter(bodies.into_iter().map(Ok))
            .try_for_each_concurrent(CLIENTS, |body| async move {
                let request = self.client.post(format!("{}/v1/events", self.url)).bearer_auth(KEY);
                let request = request.header("content-type", "application/cloudevents-batch+json");
                let answer = request.body(body).send().await?;
                let status = answer.status();
                let bytes = answer.bytes().await?;
                ensure!(status == 202, "{status}: {}", String::from_utf8_lossy(&bytes));
                // Cheaper than reading the whole answer: the answer to a fully accepted batch ends like this.
                let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(500)]);
                ensure!(bytes.ends_with(br#""refused":0}"#), "refused: {begin}");
                Ok(())
            })
            .await
    }
}
