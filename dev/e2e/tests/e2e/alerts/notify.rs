//! Notifications: by mail and in the product, once, and not again by a replay.

use std::time::Duration;

use alert_worker::delivery::drop_old;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use engine::consume::Source;
use ledger::rebuild::{Rebuild, rebuild};
use platform::kafka;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Account;
use crate::server::{MailServer, Mood};
use e2e::Whole;

const WAIT_MAX: Duration = Duration::from_secs(120);

/// Starts everything with a mail server.
async fn with_mail() -> Result<(Whole, MailServer)> {
    let server = MailServer::start(Mood::Take).await?;
    let url = format!("smtp://{}", server.address);
    let flags = ["--smtp-url", &url, "--mail-from", "Ledger <ledger@example.test>"];
    Ok((Whole::start_with(&flags).await?, server))
}

async fn contacts(whole: &Whole, account: &str) -> Result<()> {
    let body = json!({
        "admins": [{"id": "carl", "email": "carl@example.test"}, {"id": "dora", "email": "dora@example.test"}],
        "users": [{"id": "ana", "email": "ana@example.test"}],
    });
    let put = whole.operator().put(&format!("/v1/accounts/{account}/contacts"), body).await?;
    put.expect(200).map(drop)
}

/// Waits until this many notifications are delivered.
async fn delivered(whole: &Whole, account: &str, count: usize) -> Result<Vec<Value>> {
    let end = Instant::now() + WAIT_MAX;
    let path = format!("/v1/accounts/{account}/notifications?status=delivered&limit=500");
    loop {
        let answer = whole.operator().get(&path).await?;
        let items = answer.body["items"].as_array().with_context(|| answer.text.clone())?.clone();
        if items.len() >= count {
            ensure!(items.len() == count, "{count} were to be delivered: {items:#?}");
            return Ok(items);
        }
        ensure!(Instant::now() < end, "{count} were to be delivered: {items:#?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firing_notifies_by_mail_and_in_the_product() -> Result<()> {
    let (whole, server) = with_mail().await?;
    let acme = Account::open(&whole, "acme", json!({"name": "Acme", "plan": {"allowance": "1000"}})).await?;
    contacts(&whole, "acme").await?;
    let alert = json!({"basis": "percent_used", "threshold": "75", "recipients": ["carl"],
                       "channels": ["email", "in_app"]});
    acme.put("06", "alerts/a75", alert).await?;
    acme.put("06", "user-alert", json!({"threshold": "500", "notify_user": true, "recipients": ["dora"]}))
        .await?;
    acme.uses("07", "ana", "800").await?;
    // The org alert for Carl, the user alert for Dora and Ana: each by mail and in the product.
    let notified = delivered(&whole, "acme", 6).await?;
    let mails = server.mails();
    let mut to: Vec<&str> = mails.iter().map(|mail| mail.to.as_str()).collect();
    to.sort_unstable();
    ensure!(to == ["ana@example.test", "carl@example.test", "dora@example.test"], "{to:?}");
    ensure!(
        notified.iter().all(|one| one["sent_at"].is_string() && one["last_error"].is_null()),
        "{notified:#?}"
    );
    let carls = notified
        .iter()
        .find(|one| one["recipient"] == "carl" && one["channel"] == "email")
        .context("Carl's")?;
    ensure!(
        carls["kind"] == "org_alert" && carls["text"].as_str().is_some_and(|text| text.contains("75")),
        "{carls}"
    );

    let ana = whole.keyed("member", &["acme"], Some("ana")).await?;
    let own = ana.get("/v1/accounts/acme/notifications").await?;
    own.expect(200)?;
    let recipients: Vec<_> =
        own.body["items"].as_array().into_iter().flatten().map(|one| &one["recipient"]).collect();
    ensure!(recipients == ["ana", "ana"], "{}", own.text);
    ana.get("/v1/accounts/acme/notifications?recipient=carl").await?.expect(403)?;
    ana.get("/v1/accounts/acme/firings").await?.expect(403)?;
    whole.replay_and_stop().await
}

#[derive(Parser)]
struct Asked {
    #[command(flatten)]
    rebuild: Rebuild,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_of_the_alerts_finds_the_same_firings_and_notifies_nobody_again() -> Result<()> {
    let (whole, server) = with_mail().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "1000"}})).await?;
    contacts(&whole, "acme").await?;
    let alert = json!({"basis": "percent_used", "threshold": "50", "channels": ["email"]});
    acme.put("06", "alerts/a50", alert).await?;
    acme.uses("07", "ana", "600").await?;
    delivered(&whole, "acme", 2).await?;
    let before = acme.get("firings").await?;

    let identity = kafka::existing(&whole.kafka).await?;
    let source = Source { kafka: whole.kafka.clone(), identity, pool: whole.pool.clone() };
    let asked = Asked::try_parse_from(["rebuild", "--model", "alerting"])?.rebuild;
    let rebuilt = rebuild(source, &asked).await?;
    ensure!(rebuilt.flipped && rebuilt.live == "alerting_1", "{rebuilt:#?}");
    ensure!(rebuilt.rebuilt == "alerting_2" && rebuilt.differences.is_empty(), "{rebuilt:#?}");

    // The worker changes to it: what fires now is notified, what fired before is not.
    acme.uses("2026-02-07T00:00:00Z", "ana", "500").await?;
    let notified = delivered(&whole, "acme", 4).await?;
    ensure!(server.mails().len() == 4, "{notified:#?}");
    let after = whole.operator().get("/v1/accounts/acme/firings").await?;
    let items = |body: &Value| body["items"].as_array().cloned().unwrap_or_default();
    ensure!(items(&after.body).len() == 2, "{}", after.text);
    ensure!(items(&after.body)[1..] == items(&before)[..], "{} was {before}", after.text);
    whole.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_kept_for_a_while_and_sent_by_no_later_fold() -> Result<()> {
    let whole = Whole::start().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "10000"}})).await?;
    acme.put("06", "user-alert", json!({"threshold": "500", "recipients": ["carl"]})).await?;
    for user in ["ana", "bo", "cy"] {
        acme.uses("07", user, "500").await?;
    }
    delivered(&whole, "acme", 3).await?;
    let counts = async || -> Result<(i64, i64, i64)> {
        let counts = "select (select count(*) from delivery.outbox where published_at is not null),
                             (select count(*) from delivery.notification),
                             (select max(next_offset) from delivery.told_from)";
        Ok(sqlx::query_as(counts).fetch_one(&whole.pool).await?)
    };
    let end = Instant::now() + WAIT_MAX;
    while counts().await?.0 < 3 {
        ensure!(Instant::now() < end, "not published");
        sleep(Duration::from_millis(50)).await;
    }
    let (_, _, told_from) = counts().await?;
    drop_old(&whole.pool, 400).await?;
    ensure!(counts().await? == (3, 3, told_from), "nothing is old: {:?}", counts().await?);

    // Everything is old; one firing's notification is still to be sent, and one firing is not published.
    for statement in [
        "update delivery.outbox set created_at = created_at - interval '401 days'",
        "update delivery.notification set created_at = created_at - interval '401 days'",
        "update delivery.notification
         set status = 'pending', next_attempt_at = clock_timestamp() + interval '1 day'
         where firing_id = (select firing_id from alerting_1.firing where subject = 'ana')",
        "update delivery.outbox set expanded_at = null, published_at = null, firing = '{}'
         where firing_id = (select firing_id from alerting_1.firing where subject = 'cy')",
    ] {
        sqlx::query(statement).execute(&whole.pool).await?;
    }
    drop_old(&whole.pool, 400).await?;
    let left: Vec<String> = sqlx::query_scalar(
        "select subject from alerting_1.firing join delivery.outbox using (firing_id)
         union all
         select 'notification of ' || firing.subject
         from alerting_1.firing join delivery.notification using (firing_id)",
    )
    .fetch_all(&whole.pool)
    .await?;
    ensure!(left == ["cy", "notification of ana"], "{left:?}");
    // A fold of the whole journal from now on starts to notify after the last firing that was deleted.
    let behind: i64 = sqlx::query_scalar(
        r#"select max("offset") + 1 from alerting_1.firing where subject in ('ana', 'bo')"#,
    )
    .fetch_one(&whole.pool)
    .await?;
    ensure!(behind > told_from && counts().await?.2 == behind, "{behind} {:?}", counts().await?);
    whole.replay_and_stop().await
}
