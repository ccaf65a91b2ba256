//! Feed: carries out an account's steps, one after the other.
//!
//! Every write bears repetition, so whatever is not answered is simply sent again.

use anyhow::{Context, Result, bail};
use ledger_core::time::Time;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, Write};
use super::ingress::Producer;
use super::prices::{self, Unit};
use super::progress::Progress;
use super::scenario::{self, Action, Scenario, Step};
use super::workload::{HTTP_SOURCE, Item};

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fed {
    /// Events sent through HTTP.
    pub http: usize,
    /// Events sent through Kafka.
    pub kafka: usize,
}

impl Fed {
    /// Adds another's counts.
    pub fn add(&mut self, other: Fed) {
        self.http += other.http;
        self.kafka += other.kafka;
    }
}

/// How to reach the ledger.
pub struct Ways {
    /// Through HTTP.
    pub client: Client,
    /// Through Kafka.
    pub producer: Producer,
    /// Counts events.
    pub progress: Progress,
}

/// Publishes the demo's rate cards.
pub async fn publish_cards(client: &Client) -> Result<()> {
    for unit in [Unit::Credits, Unit::Usd] {
        let path = format!("/v1/rate-cards/{}", scenario::card(unit));
        client.write(&Write::new(Method::PUT, path, prices::rate_card(unit))).await?;
    }
    Ok(())
}

/// Opens an account and lets it live through its story.
pub async fn feed(ways: &Ways, scenario: &Scenario) -> Result<Fed> {
    open(&ways.client, scenario).await.with_context(|| format!("opening {}", scenario.id))?;
    let mut fed = Fed::default();
    for step in scenario.steps()? {
        let done = take_step(ways, scenario, &step).await;
        fed.add(done.with_context(|| format!("{} at {}", scenario.id, step.at()))?);
    }
    Ok(fed)
}

async fn open(client: &Client, scenario: &Scenario) -> Result<()> {
    let write = Write::new(Method::POST, "/v1/accounts".into(), scenario.opening_body());
    let answer = client.write(&write.at(Scenario::opening()?)).await?;
    client.reach(&scenario.id, &answer["position"]).await
}

async fn take_step(ways: &Ways, scenario: &Scenario, step: &Step<'_>) -> Result<Fed> {
    let mut fed = Fed::default();
    match step {
        Step::Act(at, action) => act(&ways.client, scenario, *at, action).await?,
        Step::Http(at, items) => {
            send_batch(&ways.client, &scenario.id, *at, items).await?;
            fed.http = items.len();
        }
        Step::Kafka(at, items) => {
            // Records carry no ledger time: they are recorded at what the clock shows.
            ways.client.advance(&scenario.id, *at).await?;
            ways.producer.send(&scenario.id, items).await?;
            // Order is kept within an account: once the last is there, all are.
            ways.client.taken(&scenario.id, &items[items.len() - 1].id).await?;
            fed.kafka = items.len();
        }
        Step::End(at) => ways.client.advance(&scenario.id, *at).await?,
    }
    ways.progress.add(fed.http + fed.kafka);
    Ok(fed)
}

/// Sends usage at one ledger time and returns how many of the events were known.
pub async fn send_batch(client: &Client, account: &str, at: Time, items: &[&Item]) -> Result<usize> {
    let batch: Vec<Value> = items.iter().map(|item| item.cloud_event(account)).collect();
    let mut write = Write::new(Method::POST, "/v1/events".into(), batch.into()).at(at);
    write.content_type = "application/cloudevents-batch+json";
    let answer = client.write(&write).await?;
    let results = answer["items"].as_array().context("a batch is answered item by item")?;
    let mut known = 0;
    for result in results {
        match (result["result"].as_str(), result["outcome"].as_str()) {
            (Some("accepted"), None | Some("applied")) => {}
            (Some("accepted"), Some("duplicate")) => known += 1,
            _ => bail!("an event was not taken: {result}"),
        }
    }
    Ok(known)
}

async fn act(client: &Client, scenario: &Scenario, at: Time, action: &Action) -> Result<()> {
    let path = |rest: &str| format!("/v1/accounts/{}/{rest}", scenario.id);
    let mut write = match action {
        Action::Purchase { payment, amount } => {
            let body = json!({ "payment_id": payment, "amount": amount });
            Write::new(Method::POST, path("purchases"), body)
        }
        Action::Refund { payment, amount } => {
            let body = json!({ "payment_id": payment, "amount": amount, "reason": "asked for" });
            Write::new(Method::POST, path("refunds"), body)
        }
        Action::Grant { grant, source, amount } => {
            let body = json!({ "grant_id": grant, "source": source, "amount": amount });
            Write::new(Method::POST, path("grants"), body)
        }
        Action::ReverseFirstSince(since) => {
            let item = scenario.reversed(*since).context("there is an event to reverse")?;
            let rest = format!("usage/{}/reversal?source={HTTP_SOURCE}", item.id);
            Write::new(Method::POST, path(&rest), json!({ "reason": "the answer was cut off" }))
        }
        Action::AllowanceFromNextPeriod(allowance) => {
            let mut plan = scenario.plan.body.clone();
            plan["allowance"] = json!(allowance);
            Write::new(Method::PUT, path("plan"), json!({ "plan": plan, "at": "next_period" }))
        }
    };
    if matches!(action, Action::Refund { .. }) {
        write.idempotency_key = Some("demo-refund-1");
    }
    client.write(&write.at(at)).await?;
    Ok(())
}
