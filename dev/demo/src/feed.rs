//! Feed: carries out an account's steps, one after the other.
//!
//! Every write is idempotent, so the demo sends again whatever is not answered.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use ledger_core::value::time::Time;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Write};
use crate::ingress::Producer;
use crate::prices::{self, Unit};
use crate::progress::Progress;
use crate::scenario::{self, Action, Scenario, Step};
use crate::workload::{HTTP_SOURCE, Item};

/// How often the same events are sent again where the ledger lags.
const RESENDS_MAX: usize = 60;
/// Pause before sending again, besides the time that the ledger itself waits.
const RESEND_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fed {
    /// Events sent through HTTP.
    pub http: usize,
    /// Events sent through Kafka.
    pub kafka: usize,
}

impl Fed {
    pub fn add(&mut self, other: Fed) {
        self.http += other.http;
        self.kafka += other.kafka;
    }
}

pub struct Ways {
    pub client: Client,
    pub producer: Producer,
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

/// Opens an account and runs its story.
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
            // Records carry no ledger time: the ledger records them at the time that the clock shows.
            ways.client.advance(&scenario.id, *at).await?;
            ways.producer.send(&scenario.id, items).await?;
            // Records of an account keep their order: once the last is projected, all are.
            ways.client.taken(&scenario.id, &items[items.len() - 1].id).await?;
            fed.kafka = items.len();
        }
        Step::End(at) => ways.client.advance(&scenario.id, *at).await?,
    }
    ways.progress.add(fed.http + fed.kafka);
    Ok(fed)
}

/// What the ledger answers for a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Events that it had already.
    pub known: usize,
    /// Events that it has not folded yet: whether they are duplicates is unknown.
    pub waiting: usize,
}

/// Sends usage at one ledger time.
pub async fn send_batch(client: &Client, account: &str, at: Time, items: &[&Item]) -> Result<Taken> {
    let batch: Vec<Value> = items.iter().map(|item| item.cloud_event(account)).collect();
    let mut write = Write::new(Method::POST, "/v1/events".into(), batch.into()).at(at);
    write.content_type = "application/cloudevents-batch+json";
    let answer = client.write(&write).await?;
    let results = answer["items"].as_array().context("a batch is answered item by item")?;
    let mut taken = Taken::default();
    for result in results {
        match (result["result"].as_str(), result["outcome"].as_str()) {
            (Some("accepted"), Some("applied")) => {}
            (Some("accepted"), Some("duplicate")) => taken.known += 1,
            (Some("accepted"), None) => taken.waiting += 1,
            _ => bail!("an event was not taken: {result}"),
        }
    }
    Ok(taken)
}

/// Sends usage again until the ledger knows of every event whether it is a duplicate, and returns how many are.
pub async fn resend_batch(client: &Client, account: &str, at: Time, items: &[&Item]) -> Result<usize> {
    for _ in 0..RESENDS_MAX {
        let taken = send_batch(client, account, at, items).await?;
        if taken.waiting == 0 {
            return Ok(taken.known);
        }
        tokio::time::sleep(RESEND_PAUSE).await;
    }
    bail!("{account}: events sent again are not folded after {RESENDS_MAX} times")
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::extract::State;
    use axum::routing::post;
    use axum::{Json, Router};
    use tokio::net::TcpListener;

    use super::super::{trace, workload};
    use super::*;

    /// A ledger that lags: it gives the outcome of two events only when they are sent for the third time.
    async fn lags(State(times): State<Arc<AtomicUsize>>) -> Json<Value> {
        let mut item = json!({"result": "accepted"});
        if times.fetch_add(1, Ordering::Relaxed) >= 2 {
            item["outcome"] = json!("duplicate");
        }
        Json(json!({"items": [item.clone(), item]}))
    }

    #[tokio::test]
    async fn a_ledger_that_lags_is_asked_again_what_it_knew() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = Client::new(&format!("http://{}", listener.local_addr()?), "key")?;
        let routes = Router::new().route("/v1/events", post(lags)).with_state(Arc::default());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
        let items = workload::items(workload::Account::Team, &trace::thin(trace::calls()?, 10))?;
        let two: Vec<&Item> = items.iter().take(2).collect();
        assert_eq!(resend_batch(&client, "acme", Scenario::end()?, &two).await?, 2);
        serving.abort();
        Ok(())
    }
}
