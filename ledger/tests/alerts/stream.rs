//! Stream: balances and firings as they come, and on from where a client was cut off.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::Account;
use crate::whole::{Caller, Whole};

const WAIT_MAX: Duration = Duration::from_secs(10);

/// An event of the stream.
#[derive(Debug)]
struct Sent {
    event: String,
    id: Option<String>,
    data: Value,
}

struct Follower {
    body: futures::stream::BoxStream<'static, reqwest::Result<Vec<u8>>>,
    text: String,
}

impl Follower {
    async fn begin(caller: &Caller, last: Option<&str>) -> Result<Follower> {
        let caller = last.map_or_else(|| caller.clone(), |last| caller.with("Last-Event-ID", last));
        let answer = caller.request(Method::GET, "/v1/accounts/acme/stream").send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        ensure!(answer.headers()["content-type"] == "text/event-stream");
        let body = answer.bytes_stream().map(|bytes| bytes.map(|bytes| bytes.to_vec())).boxed();
        Ok(Follower { body, text: String::new() })
    }

    /// Returns the next event; comments only keep the connection.
    async fn next(&mut self) -> Result<Sent> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let start = format!("{name}: ");
                    event.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
                };
                let Some(kind) = field("event") else { continue };
                let data = serde_json::from_str(&field("data").context("data")?)?;
                return Ok(Sent { event: kind, id: field("id"), data });
            }
            match timeout(WAIT_MAX, self.body.next()).await.context("nothing comes")? {
                Some(bytes) => self.text.push_str(std::str::from_utf8(&bytes?)?),
                None => bail!("the stream ended"),
            }
        }
    }

    /// Returns the next event of a kind.
    async fn next_of(&mut self, kind: &str) -> Result<Sent> {
        loop {
            let sent = self.next().await?;
            if sent.event == kind {
                return Ok(sent);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_each_change_and_goes_on_where_it_was_cut_off() -> Result<()> {
    let whole = Whole::start().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "1000"}})).await?;
    let admin = whole.keyed("admin", &["acme"], None).await?;
    let mut follower = Follower::begin(&admin, None).await?;
    let first = follower.next().await?;
    ensure!(first.event == "balance" && first.data["settled"] == "1000", "{first:?}");
    ensure!(first.data["account_id"] == "acme" && first.data["position"]["offset"].is_number(), "{first:?}");

    acme.put("06", "alerts/half", json!({"basis": "percent_used", "threshold": "50"})).await?;
    acme.uses("07", "ana", "400").await?;
    ensure!(follower.next_of("balance").await?.data["settled"] == "600");
    acme.uses("08", "ana", "100").await?;
    let fired = follower.next_of("firing").await?;
    ensure!(fired.data["alert_id"] == "half" && fired.data["figure"] == "50", "{fired:?}");
    let id = fired.id.context("an id")?;
    drop(follower);

    // Two more while nobody listens.
    acme.put("09", "alerts/half", json!({"basis": "percent_used", "threshold": "40"})).await?;
    acme.put("09", "alerts/half", json!({"basis": "percent_used", "threshold": "30"})).await?;
    let mut follower = Follower::begin(&admin, Some(&id)).await?;
    for expected in ["40", "30"] {
        let missed = follower.next_of("firing").await?;
        ensure!(missed.data["threshold"] == expected, "{missed:?}");
    }
    let producer = whole.keyed("producer", &["acme"], None).await?;
    let refused = producer.request(Method::GET, "/v1/accounts/acme/stream").send().await?;
    ensure!(refused.status() == 403, "{}", refused.status());
    // An open stream holds no stop up.
    let stopping = tokio::time::Instant::now();
    whole.replay_and_stop().await?;
    ensure!(stopping.elapsed() < Duration::from_secs(8), "{:?}", stopping.elapsed());
    Ok(())
}
