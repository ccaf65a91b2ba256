//! Forms: callers get the same from one process (`ledger up`) as from four (`ledger serve`).

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ledger::doctor;
use local_stack::{StackOptions, TestSpace};
use platform::kafka::KafkaOptions;
use platform::pg::{PgConfig, Role};
use reqwest::Method;
use serde_json::{Value, json};

use crate::alerts;
use crate::alerts::stream::Follower;
use crate::payments::webhooks::{self, SIGNED};
use crate::query_api::story::Story;
use e2e::{Form, Whole, logins};
use web::http::Deps;

/// Runs each scenario once in either form, and compares the read models with a replay at its end.
macro_rules! in_both_forms {
    ($($scenario:ident),+ $(,)?) => {
        mod merged {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() -> anyhow::Result<()> {
                let whole = e2e::Whole::start_as(super::Form::Merged, &super::SIGNED).await?;
                super::$scenario(&whole).await?;
                whole.replay_and_stop().await
            })+
        }

        mod apart {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() -> anyhow::Result<()> {
                let whole = e2e::Whole::start_as(super::Form::Apart, &super::SIGNED).await?;
                super::$scenario(&whole).await?;
                whole.replay_and_stop().await
            })+
        }
    };
}

in_both_forms!(
    an_account_opens_and_is_read,
    usage_is_recorded_once,
    a_read_waits_for_the_write_that_it_names,
    a_balance_rolls_at_a_period_boundary,
    grants_add_credits_and_voids_take_them,
    an_alert_fires_on_usage,
    a_hold_is_settled_by_its_usage,
    a_checkout_is_credited_by_its_webhook,
    a_stream_shows_changes_and_firings,
    an_auditor_reads_the_journal,
    a_balance_is_read_as_of_an_instant,
    a_caller_without_a_right_is_refused,
);

async fn story(whole: &Whole, allowance: &str) -> Result<Story> {
    Story::monthly(whole, "acme", json!({"allowance": allowance})).await
}

async fn expect_settled(story: &Story, expected: &str) -> Result<()> {
    let balance = story.get("/balance").await?;
    ensure!(balance.body["settled"] == expected, "{}", balance.text);
    Ok(())
}

async fn an_account_opens_and_is_read(whole: &Whole) -> Result<()> {
    story(whole, "5").await?;
    let account = whole.operator().get("/v1/accounts/acme").await?;
    ensure!(account.expect(200)?.body["account_id"] == "acme", "{}", account.text);
    // Both sides have this path: the write API opens an account, the read API lists accounts.
    let list = whole.operator().get("/v1/accounts").await?;
    let ids: Vec<&Value> = list.expect(200)?.body["items"]
        .as_array()
        .context("items")?
        .iter()
        .map(|one| &one["account_id"])
        .collect();
    ensure!(ids == ["acme"], "{}", list.text);
    Ok(())
}

async fn usage_is_recorded_once(whole: &Whole) -> Result<()> {
    let story = story(whole, "5").await?;
    story.usage("2026-01-06T00:00:00Z", "u1", json!({"credits": "2"})).await?;
    let body = json!({"id": "u1", "occurred_at": "2026-01-06T00:00:00Z", "credits": "2"});
    let again =
        whole.operator().at("2026-01-06T00:00:00Z").post("/v1/accounts/acme/usage?wait=true", body).await?;
    ensure!(again.expect(200)?.body["outcome"] == "duplicate", "{}", again.text);
    expect_settled(&story, "3").await
}

async fn a_read_waits_for_the_write_that_it_names(whole: &Whole) -> Result<()> {
    story(whole, "100").await?;
    let operator = whole.operator();
    for number in 1..=10 {
        let body = json!({"id": format!("u{number}"), "occurred_at": "2026-01-06T00:00:00Z", "credits": "1"});
        let path = "/v1/accounts/acme/usage?wait=false";
        let at = operator.at("2026-01-06T00:00:00Z").post(path, body).await?.position()?;
        let path = format!("/v1/accounts/acme/balance?at_least={}:{}", at.partition, at.offset);
        let balance = operator.get(&path).await?;
        ensure!(balance.expect(200)?.body["used"] == format!("{number}").as_str(), "{}", balance.text);
    }
    Ok(())
}

async fn a_balance_rolls_at_a_period_boundary(whole: &Whole) -> Result<()> {
    let plan = json!({"allowance": "5", "rollover": {"mode": "capped", "cap": null}});
    let story = Story::monthly(whole, "acme", plan).await?;
    story.usage("2026-01-10T00:00:00Z", "u1", json!({"credits": "2"})).await?;
    story.clock("2026-02-10T00:00:00Z").await?;
    let balance = story.get("/balance").await?;
    let figures = ["settled", "rollover", "used"].map(|name| balance.body[name].clone());
    ensure!(figures == ["8", "3", "0"], "{}", balance.text);
    Ok(())
}

async fn grants_add_credits_and_voids_take_them(whole: &Whole) -> Result<()> {
    let story = story(whole, "0").await?;
    let grant = json!({"grant_id": "g1", "source": "promo", "amount": "500", "priority": 30});
    story.post("2026-01-06T00:00:00Z", "/grants", grant).await?;
    expect_settled(&story, "500").await?;
    let grants = story.items("/grants").await?;
    ensure!(grants.iter().any(|grant| grant["grant_id"] == "g1" && grant["amount"] == "500"), "{grants:?}");
    story.void("2026-01-07T00:00:00Z", "g1").await?;
    expect_settled(&story, "0").await
}

async fn an_alert_fires_on_usage(whole: &Whole) -> Result<()> {
    let plan = json!({"plan": {"allowance": "1000"}});
    let acme = alerts::Account::open(whole, "acme", plan).await?;
    acme.put("06", "alerts/half", json!({"basis": "percent_used", "threshold": "50"})).await?;
    acme.uses("07", "ana", "400").await?;
    acme.uses("08", "ana", "200").await?;
    whole.all_evaluated().await?;
    let fired = acme.fired().await?;
    ensure!(fired == ["org_alert half acme 60/50 v1 @0"], "{fired:?}");
    Ok(())
}

async fn a_hold_is_settled_by_its_usage(whole: &Whole) -> Result<()> {
    let story = story(whole, "10").await?;
    let operator = whole.operator();
    let hold = json!({"reservation_id": "r1", "user_id": "ana", "amount": "6"});
    let held = operator.post("/v1/accounts/acme/reservations", hold).await?;
    ensure!(held.expect(201)?.body["available"] == "4", "{}", held.text);
    let more = json!({"reservation_id": "r2", "user_id": "ana", "amount": "5"});
    let refused = operator.post("/v1/accounts/acme/reservations", more).await?;
    refused.expect_problem(402, "credits_exhausted")?;
    let at = "2026-01-06T00:00:00Z";
    let usage = json!({"id": "u1", "occurred_at": at, "user_id": "ana", "credits": "7"});
    let settled = operator.at(at).post("/v1/accounts/acme/reservations/r1/settle", usage).await?;
    ensure!(settled.expect(200)?.body["state"] == "settled", "{}", settled.text);
    expect_settled(&story, "3").await
}

async fn a_checkout_is_credited_by_its_webhook(whole: &Whole) -> Result<()> {
    let priced = json!({"usd_per_unit": "0.01", "plan": {"cycle": "monthly", "allowance": "0"}});
    let story = Story::open(whole, "acme", "2026-01-05T00:00:00Z", priced).await?;
    let checkout = whole.operator().post("/v1/accounts/acme/checkout", json!({"amount": "100"})).await?;
    checkout.expect(201)?;
    let paid = webhooks::session("acme", "pi_1");
    for _ in 0..2 {
        webhooks::report(whole, "checkout.session.completed", paid.clone()).await?;
    }
    expect_settled(&story, "100").await
}

async fn a_stream_shows_changes_and_firings(whole: &Whole) -> Result<()> {
    let plan = json!({"plan": {"allowance": "1000"}});
    let acme = alerts::Account::open(whole, "acme", plan).await?;
    let mut follower = Follower::begin(&whole.keyed("admin", &["acme"], None).await?, None).await?;
    ensure!(follower.next().await?.data["settled"] == "1000");
    acme.put("06", "alerts/half", json!({"basis": "percent_used", "threshold": "50"})).await?;
    acme.uses("07", "ana", "500").await?;
    let fired = follower.next_of("firing").await?;
    ensure!(fired.data["alert_id"] == "half" && fired.data["figure"] == "50", "{fired:?}");
    Ok(())
}

async fn an_auditor_reads_the_journal(whole: &Whole) -> Result<()> {
    let story = story(whole, "5").await?;
    let used = story.usage("2026-01-06T00:00:00Z", "u1", json!({"credits": "1.5"})).await?.position()?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let path = format!("/v1/audit/events?partition={}&offset={}", used.partition, used.offset);
    let answer = auditor.get(&path).await?;
    let line: Value = serde_json::from_str(answer.expect(200)?.text.lines().next().context("a line")?)?;
    ensure!(line["event"]["id"] == "u1" && line["event"]["data"] == json!({"credits": "1.5"}), "{line}");
    auditor
        .post("/v1/keys", json!({"role": "auditor", "name": "mine"}))
        .await?
        .expect_problem(403, "forbidden")?;
    Ok(())
}

async fn a_balance_is_read_as_of_an_instant(whole: &Whole) -> Result<()> {
    let story = story(whole, "5").await?;
    story.usage("2026-01-10T00:00:00Z", "u1", json!({"credits": "2"})).await?;
    for (instant, settled) in [("2026-01-09T23:59:59.999999Z", "5"), ("2026-01-10T00:00:00Z", "3")] {
        let balance = story.get(&format!("/balance?as_of={instant}")).await?;
        ensure!(balance.body["settled"] == settled, "{instant}: {}", balance.text);
    }
    Ok(())
}

async fn a_caller_without_a_right_is_refused(whole: &Whole) -> Result<()> {
    story(whole, "5").await?;
    let stranger = whole.caller(Some("a key of nobody"));
    for (method, path) in
        [(Method::GET, "/v1/accounts/acme/balance"), (Method::POST, "/v1/accounts/acme/clock")]
    {
        let request = stranger.request(method, path);
        stranger.send(request).await?.expect_problem(401, "unauthorized")?;
    }
    let other = whole.keyed("admin", &["other"], None).await?;
    other.get("/v1/accounts/acme/balance").await?.expect(403)?;
    Ok(())
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    kafka: KafkaOptions,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_takes_its_own_login_alone_and_doctor_says_whose_one_is() -> Result<()> {
    let space = TestSpace::new().await?;
    logins::make(&space.database_url).await?;
    let database_url = logins::url(&space.database_url, Role::Projector)?;
    let postgres = PgConfig { database_url: database_url.clone(), database_connections: 2 };
    // It is never reached.
    let deps = Deps::new(postgres, Settings::try_parse_from(["a service"])?.kafka);
    deps.pool(Role::Projector).await?.close().await;
    let error = deps.pool(Role::CommandApi).await.err().context("taken")?.to_string();
    ensure!(error.contains("ledger_projector, which is the login of projector"), "{error}");
    for (url, said) in
        [(database_url, "login of projector alone"), (space.database_url.clone(), "owns the tables")]
    {
        let brokers = Some(space.kafka_brokers.clone());
        let options = StackOptions::named(std::env::temp_dir(), brokers, Some(url));
        let mut out = Vec::new();
        doctor::run(&options, "its defaults", false, &mut out).await?;
        let table = String::from_utf8(out)?.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(table.contains(said), "{table}");
        let mut out = Vec::new();
        let complete = doctor::run(&options, "its defaults", true, &mut out).await?;
        let report: Value = serde_json::from_slice(&out)?;
        ensure!(report["complete"] == complete, "{report}");
        let login =
            report["findings"].as_array().context("findings")?.iter().find(|one| one["what"] == "login");
        let details = login.and_then(|login| login["details"].as_str()).context("the login")?;
        ensure!(details.contains(said), "{report}");
    }
    Ok(())
}
