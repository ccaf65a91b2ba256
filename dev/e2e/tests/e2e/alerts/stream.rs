//! Stream: balances and firings as they come, and the continuation after a broken connection.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Account;
use e2e::{Caller, Whole};

const WAIT_MAX: Duration = Duration::from_secs(120);

/// An event of the stream.
#[derive(Debug)]
pub(crate) struct Sent {
    pub event: String,
    pub id: Option<String>,
    pub data: Value,
}

pub(crate) struct Follower {
    body: futures::stream::BoxStream<'static, reqwest::Result<Vec<u8>>>,
    text: String,
}

impl Follower {
    pub async fn begin(caller: &Caller, last: Option<&str>) -> Result<Follower> {
        let caller = last.map_or_else(|| caller.clone(), |last| caller.with("Last-Event-ID", last));
        let answer = caller.request(Method::GET, "/v1/accounts/acme/stream").send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        ensure!(answer.headers()["content-type"] == "text/event-stream");
        let body = answer.bytes_stream().map(|bytes| bytes.map(|bytes| bytes.to_vec())).boxed();
        Ok(Follower { body, text: String::new() })
    }

    /// Returns the next event; comments only keep the connection alive.
    pub async fn next(&mut self) -> Result<Sent> {
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
    pub async fn next_of(&mut self, kind: &str) -> Result<Sent> {
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

    // Two more while no client is connected.
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
    // An open stream does not delay a stop: it ends by itself, before the time to drain is over.
    let rest = tokio::spawn(follower.body.try_for_each(|_| async { Ok(()) }));
    whole.replay_and_stop().await?;
    rest.await?.context("the stream was cut off")
}

/// A stop as `code user`, with the figures of that time.
fn summary(stop: &Sent) -> String {
    let text = |field: &str| stop.data[field].as_str().unwrap_or("-").to_owned();
    format!("{} {}: {} available, {} held", text("code"), text("user_id"), text("available"), text("held"))
}

async fn reserve(whole: &Whole, id: &str, amount: &str, seconds: u32) -> Result<()> {
    let body = json!({"reservation_id": id, "user_id": "bo", "amount": amount, "ttl_seconds": seconds});
    whole.operator().post("/v1/accounts/acme/reservations", body).await?.expect(201).map(drop)
}

async fn check_stop(follower: &mut Follower, expected: &str) -> Result<Sent> {
    let stop = follower.next_of("stop").await?;
    ensure!(summary(&stop) == expected, "{} is not {expected}", summary(&stop));
    Ok(stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_stop_when_a_user_reaches_the_limit_and_again_after_it_rose() -> Result<()> {
    let whole = Whole::start().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "100"}})).await?;
    acme.put("06", "limits", json!({"default_limit": "10", "excluded_features": ["workflow"]})).await?;
    let admin = whole.keyed("admin", &["acme"], None).await?;
    let mut follower = Follower::begin(&admin, None).await?;
    follower.next_of("balance").await?;
    acme.uses_for("07", "ana", "20", "workflow").await?;
    acme.uses("07", "ana", "9").await?;
    acme.uses("08", "cy", "10").await?;
    check_stop(&mut follower, "user_limit_reached cy: 61 available, 0 held").await?;
    acme.uses("08", "ana", "1.5").await?;
    let stop = check_stop(&mut follower, "user_limit_reached ana: 59.5 available, 0 held").await?;
    let words = "You have used 10.5 of your 10 credits; your limit resets on 1 February.";
    ensure!(stop.data["message"] == words && stop.data["used"] == "10.5", "{stop:?}");
    ensure!(stop.data["limit"] == "10" && stop.data["position"]["offset"].is_number(), "{stop:?}");

    // A higher limit unblocks the user, until usage reaches that too.
    acme.put("09", "limits", json!({"default_limit": "15", "excluded_features": ["workflow"]})).await?;
    acme.uses("09", "cy", "1").await?;
    while follower.next_of("balance").await?.data["settled"] != "58.5" {}
    acme.uses("10", "ana", "4.5").await?;
    check_stop(&mut follower, "user_limit_reached ana: 54 available, 0 held").await?;
    // A user reaches a lower limit without new usage.
    acme.put("10", "limits", json!({"default_limit": "11", "excluded_features": ["workflow"]})).await?;
    check_stop(&mut follower, "user_limit_reached cy: 54 available, 0 held").await?;

    // A later client first receives the current state.
    let mut later = Follower::begin(&admin, None).await?;
    ensure!(later.next().await?.event == "balance");
    check_stop(&mut later, "user_limit_reached ana: 54 available, 0 held").await?;
    check_stop(&mut later, "user_limit_reached cy: 54 available, 0 held").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_stop_when_nothing_is_available_though_nothing_was_projected() -> Result<()> {
    let whole = Whole::start().await?;
    let body = json!({"account_id": "acme", "plan": {"cycle": "monthly", "allowance": "10"}});
    whole.operator().post("/v1/accounts", body).await?.expect(200)?;
    let admin = whole.keyed("admin", &["acme"], None).await?;
    let mut follower = Follower::begin(&admin, None).await?;
    ensure!(follower.next().await?.data["held"] == "0");

    // Held, released, and held again: two stops. A hold shows within a second or so at least once, on a machine that
    // may stall.
    let mut soonest = Duration::MAX;
    for (id, expected) in [("r1", "10"), ("r2", "10")] {
        let since = tokio::time::Instant::now();
        reserve(&whole, id, "10", 600).await?;
        let balance = follower.next_of("balance").await?;
        ensure!(balance.data["held"] == expected && balance.data["status"] == "depleted", "{balance:?}");
        soonest = soonest.min(since.elapsed());
        let stop = check_stop(&mut follower, "credits_exhausted -: 0 available, 10 held").await?;
        ensure!(
            stop.data["message"] == "All that your team has left is held for work in progress.",
            "{stop:?}"
        );
        let path = format!("/v1/accounts/acme/reservations/{id}/release");
        whole.operator().post_nothing(&path).await?.expect(200)?;
        ensure!(follower.next_of("balance").await?.data["available"] == "10");
    }
    ensure!(soonest < Duration::from_secs(4), "{soonest:?}");
    // It unblocks by time alone.
    reserve(&whole, "r3", "10", 600).await?;
    check_stop(&mut follower, "credits_exhausted -: 0 available, 10 held").await?;
    let short = json!({"ttl_seconds": 1});
    whole.operator().patch("/v1/accounts/acme/reservations/r3", short).await?.expect(200)?;
    ensure!(follower.next_of("balance").await?.data["available"] == "10");
    reserve(&whole, "r4", "10", 600).await?;
    let mut later = Follower::begin(&admin, None).await?;
    check_stop(&mut later, "credits_exhausted -: 0 available, 10 held").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_members_stream_has_the_own_standing_and_nothing_of_the_account() -> Result<()> {
    let whole = Whole::start().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "100"}})).await?;
    acme.put("06", "limits", json!({"default_limit": "10"})).await?;
    acme.put("06", "alerts/any", json!({"basis": "percent_used", "threshold": "1"})).await?;
    let body = json!({"user_id": "ana", "ttl_seconds": 600});
    let made = whole.operator().post("/v1/accounts/acme/member-tokens", body).await?;
    let token = made.expect(201)?.body["token"].as_str().context("a token")?.to_owned();
    let mut follower = Follower::begin(&whole.caller(Some(&token)), None).await?;
    let figures = |sent: &Sent| {
        let text = |field: &str| sent.data[field].as_str().unwrap_or("-").to_owned();
        format!("{} of {}, {} held, {}", text("counted"), text("limit"), text("held"), text("status"))
    };
    let first = follower.next().await?;
    ensure!(first.event == "standing" && figures(&first) == "0 of 10, 0 held, active", "{first:?}");
    ensure!(first.data["user_id"] == "ana" && first.data["unit"] == "credits", "{first:?}");
    ensure!(first.data["blocked"] == false && first.data["message"].is_null(), "{first:?}");
    ensure!(first.data["position"]["offset"].is_number() && first.data["available"].is_null(), "{first:?}");
    // Others' usage is not hers, and firings are the admins'.
    acme.uses("07", "bo", "9").await?;
    acme.uses("08", "ana", "4").await?;
    let second = follower.next().await?;
    ensure!(second.event == "standing" && figures(&second) == "4 of 10, 0 held, active", "{second:?}");
    acme.uses("09", "ana", "6").await?;
    let third = follower.next().await?;
    ensure!(figures(&third) == "10 of 10, 0 held, active" && third.data["blocked"] == true, "{third:?}");
    let words = "You have used 10 of your 10 credits; your limit resets on 1 February.";
    ensure!(third.data["message"] == words, "{third:?}");
    // The account's end is hers too, whoever has used it up.
    acme.uses("10", "bo", "81").await?;
    let last = follower.next().await?;
    ensure!(figures(&last) == "10 of 10, 0 held, depleted", "{last:?}");
    whole.replay_and_stop().await
}
