//! Webhooks: signed so that the signature scheme's own library verifies them, and never redirected.

use std::time::Duration;

use alert_worker::delivery::{DeliveryConfig, event_of};
use anyhow::{Context, Result};
use contacts::webhook::WebhookConfig;
use ledger_core::event::Channel;
use serde_json::Value;
use tokio::time::sleep;

use crate::fixture::{Fixture, alert, soon};
use crate::identity::Identity;
use crate::receiver::{Answer, Receiver};
use crate::server::{MailServer, Mood};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEXT_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const A_WHILE: Duration = Duration::from_millis(500);
const HOOK: &[Channel] = &[Channel::Webhook];

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_called_once_signed_with_the_firing_as_its_body() -> Result<()> {
    let (fixture, receiver) = (Fixture::new().await?, Receiver::start([]).await?);
    fixture.set_webhook("acme", &receiver.url(), SECRET).await?;
    let worker = fixture.work(soon(""));
    let row = alert("acme", HOOK);
    fixture.fire(std::slice::from_ref(&row)).await?;
    let delivered = fixture.one(|one| one.status == "delivered").await?;
    sleep(A_WHILE).await;
    let calls = receiver.calls();
    let [call] = &calls[..] else { anyhow::bail!("{calls:?}") };
    assert!(call.verifies(SECRET) && !call.verifies(NEXT_SECRET));
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/hooks/ledger?team=1"));
    assert_eq!(call.header("content-type"), "application/cloudevents+json");
    assert_eq!(call.header("host"), receiver.address.to_string());
    assert_eq!(call.header("webhook-id"), delivered.id);
    let body: Value = serde_json::from_slice(&call.body)?;
    assert_eq!(body, serde_json::from_str::<Value>(&event_of(&row)?)?);
    assert_eq!((body["data"]["figure"].as_str(), body["subject"].as_str()), (Some("75.2"), Some("acme")));
    assert_eq!(call.body, delivered.text.as_bytes(), "kept as it was sent");
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_secret_changes_both_sign() -> Result<()> {
    let (fixture, receiver) = (Fixture::new().await?, Receiver::start([]).await?);
    fixture.set_webhook("acme", &receiver.url(), NEXT_SECRET).await?;
    fixture
        .execute(
            "update control.contacts
             set webhook_secret_old       = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
                 webhook_secret_old_until = clock_timestamp() + interval '24 h'",
        )
        .await?;
    let worker = fixture.work(soon(""));
    fixture.fire(&[alert("acme", HOOK)]).await?;
    receiver.wait_for(1).await?;
    fixture.execute("update control.contacts set webhook_secret_old_until = clock_timestamp()").await?;
    fixture.fire(&[alert("acme", HOOK)]).await?;
    let calls = receiver.wait_for(2).await?;
    let verified: Vec<(bool, bool)> =
        calls.iter().map(|call| (call.verifies(SECRET), call.verifies(NEXT_SECRET))).collect();
    assert_eq!(verified, [(true, true), (false, true)]);
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_target_is_not_called_unless_the_operator_allows_it() -> Result<()> {
    let (fixture, receiver) = (Fixture::new().await?, Receiver::start([]).await?);
    let port = receiver.address.port();
    let worker = fixture.work(DeliveryConfig { webhook: WebhookConfig::default(), ..soon("") });
    let urls = [
        (receiver.url(), "must begin with https"),
        (format!("https://127.0.0.1:{port}/"), "not on the public Internet"),
        (format!("https://localhost:{port}/"), "not on the public Internet"),
        (format!("https://[::ffff:127.0.0.1]:{port}/"), "not on the public Internet"),
    ];
    for (url, reason) in urls {
        fixture.execute("delete from delivery.notification").await?;
        fixture.set_webhook("acme", &url, SECRET).await?;
        fixture.fire(&[alert("acme", HOOK)]).await?;
        let parked = fixture.one(|one| one.status == "parked").await?;
        assert!(parked.error.contains(reason) && parked.attempts == 1, "{url}: {}", parked.error);
    }
    assert_eq!(receiver.calls().len(), 0);
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() -> Result<()> {
    let (fixture, elsewhere) = (Fixture::new().await?, Receiver::start([]).await?);
    let redirect = Answer::of(307).with("location", elsewhere.url());
    let receiver = Receiver::start([redirect.clone(), redirect.clone(), redirect]).await?;
    fixture.set_webhook("acme", &receiver.url(), SECRET).await?;
    let worker = fixture.work(soon(""));
    fixture.fire(&[alert("acme", HOOK)]).await?;
    let parked = fixture.one(|one| one.status == "parked").await?;
    assert_eq!((parked.attempts, parked.error.as_str()), (3, "the webhook answered 307"));
    assert_eq!((receiver.calls().len(), elsewhere.calls().len()), (3, 0));
    worker.stop().await
}

/// Fault 33.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_busy_is_called_again_not_sooner_than_it_requests() -> Result<()> {
    let answers = [
        Answer::of(503).with("retry-after", "1"),
        // Longer than the part of an answer that the worker reads.
        Answer::of(500).saying("out of order ".repeat(100_000)),
    ];
    let (fixture, receiver) = (Fixture::new().await?, Receiver::start(answers).await?);
    fixture.set_webhook("acme", &receiver.url(), SECRET).await?;
    let worker = fixture.work(soon(""));
    fixture.fire(&[alert("acme", HOOK)]).await?;
    let delivered = fixture.one(|one| one.status == "delivered").await?;
    let calls = receiver.calls();
    assert_eq!((calls.len(), delivered.attempts), (3, 3));
    assert!(calls[1].at - calls[0].at >= Duration::from_millis(990), "{:?}", calls[1].at - calls[0].at);
    let ids: Vec<&str> = calls.iter().map(|call| call.header("webhook-id")).collect();
    assert_eq!(ids, [&delivered.id; 3]);
    assert!(calls.iter().all(|call| call.verifies(SECRET)), "signed anew each time");
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_is_left_alone() -> Result<()> {
    let gone = Answer::of(410).saying("we closed");
    let (fixture, receiver) = (Fixture::new().await?, Receiver::start([gone]).await?);
    fixture.set_webhook("acme", &receiver.url(), SECRET).await?;
    let worker = fixture.work(soon(""));
    fixture.fire(&[alert("acme", HOOK)]).await?;
    let parked = fixture.one(|one| one.status == "parked").await?;
    assert_eq!((parked.attempts, parked.error.as_str()), (1, "the webhook answered 410: we closed"));
    sleep(A_WHILE).await;
    assert_eq!(receiver.calls().len(), 1);
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_without_a_trusted_certificate_receives_nothing() -> Result<()> {
    let (fixture, identity) = (Fixture::new().await?, Identity::new()?);
    let receiver = Receiver::start_tls(&identity).await?;
    fixture.set_webhook("acme", &receiver.tls_url(), SECRET).await?;
    let worker = fixture.work(soon(""));
    fixture.fire(&[alert("acme", HOOK)]).await?;
    let parked = fixture.one(|one| one.status == "parked").await?;
    assert!(parked.error.starts_with("localhost is not who it should be: "), "{}", parked.error);
    assert_eq!((parked.attempts, receiver.calls().len()), (3, 0));
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_receiver_is_notified_over_tls_by_mail_and_by_webhook() -> Result<()> {
    let (fixture, identity) = (Fixture::new().await?, Identity::new()?);
    let receiver = Receiver::start_tls(&identity).await?;
    let server = MailServer::start_tls(Mood::Take, &identity).await?;
    fixture.set_admins("acme", &[("carl", "carl@example.test")]).await?;
    fixture.set_webhook("acme", &receiver.tls_url(), SECRET).await?;
    let trusted = identity.trusted();
    let trusted = trusted.to_str().context("a path in UTF-8")?;
    let variables = [("SSL_CERT_FILE", trusted), ("LEDGER_WEBHOOK_ALLOW_PRIVATE", "true")];
    let smtp_url = format!("smtps://localhost:{}", server.address.port());
    let _worker = fixture.work_apart(&smtp_url, &variables)?;
    fixture.fire(&[alert("acme", &[Channel::Email, Channel::Webhook])]).await?;
    fixture.all(2, "delivered").await?;
    assert_eq!((server.mails().len(), receiver.calls().len()), (1, 1));
    assert!(receiver.calls()[0].verifies(SECRET));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_goes_where_the_contacts_say_when_it_is_sent() -> Result<()> {
    let (fixture, receiver) =
        (Fixture::new().await?, Receiver::start(std::array::from_fn::<_, 9, _>(|_| Answer::of(500))).await?);
    fixture.set_webhook("acme", &receiver.url(), SECRET).await?;
    let slow = DeliveryConfig { delivery_first_backoff_ms: 2_000, delivery_attempts: 9, ..soon("") };
    let worker = fixture.work(slow);
    fixture.fire(&[alert("acme", HOOK)]).await?;
    receiver.wait_for(1).await?;
    fixture.execute("update control.contacts set webhook_url = null").await?;
    let parked = fixture.one(|one| one.status == "parked").await?;
    assert_eq!(parked.error, "the account has no webhook any more");
    let calls = i32::try_from(receiver.calls().len())?;
    assert_eq!(calls, parked.attempts - 1, "all but the last attempt were calls");
    worker.stop().await
}
