//! Mails: sent once where all goes well, at least once whatever happens, and never lost.

use std::collections::BTreeSet;
use std::time::Duration;

use alert_worker::delivery::DeliveryConfig;
use anyhow::{Context, Result};
use ledger_core::event::Channel;
use tokio::time::sleep;

use crate::fixture::{Fixture, alert, soon};
use crate::server::{MailServer, Mood};

/// Many polls of a worker: a second mail would have come by then.
const A_WHILE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn every_admin_gets_one_mail_and_finds_it_in_the_product() -> Result<()> {
    let (fixture, server) = (Fixture::new().await?, MailServer::start(Mood::Take).await?);
    fixture.set_admins("acme", &[("carl", "carl@example.test"), ("dora", "dora@example.test")]).await?;
    let worker = fixture.work(soon(&server.url()));
    let row = alert("acme", &[Channel::Email, Channel::InApp]);
    assert_eq!(fixture.fire(std::slice::from_ref(&row)).await?, 1);
    let notified = fixture.all(4, "delivered").await?;
    // A replay of the journal, or another generation of the alerts, fires the same alert again.
    assert_eq!(fixture.fire(&[row]).await?, 0);
    sleep(A_WHILE).await;
    assert_eq!(fixture.notifications().await?, notified);

    let mails = server.mails();
    let recipients: BTreeSet<&str> = mails.iter().map(|mail| mail.to.as_str()).collect();
    assert_eq!((mails.len(), recipients), (2, ["carl@example.test", "dora@example.test"].into()));
    for mail in &mails {
        assert_eq!(mail.from, "ledger@example.test");
        assert_eq!(mail.header("Subject"), Some("Acme has used 75.2% of its credits"));
        assert!(mail.data.contains("text/plain") && mail.data.contains("text/html"), "{}", mail.data);
        assert!(mail.data.contains("Tue 3 Feb 2026, 11:00 (Europe/Berlin)"), "{}", mail.data);
    }
    for one in &notified {
        assert_eq!((one.attempts, one.is_sent, one.error.as_str()), (1, true, ""), "{one:?}");
        assert_eq!(one.subject, "Acme has used 75.2% of its credits");
        assert!(one.text.contains("What to do next: "), "{}", one.text);
    }
    let message_id = format!("<{}@example.test>", notified[0].id);
    assert_eq!((notified[0].channel.as_str(), notified[0].recipient.as_str()), ("email", "carl"));
    assert!(mails.iter().any(|mail| mail.header("Message-ID") == Some(&message_id)), "{mails:?}");
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_now_is_tried_again_and_one_for_good_is_parked_at_once() -> Result<()> {
    let (fixture, server) = (Fixture::new().await?, MailServer::start(Mood::RefuseForNow).await?);
    fixture.set_admins("acme", &[("carl", "carl@example.test")]).await?;
    let patient = DeliveryConfig { delivery_attempts: 100, ..soon(&server.url()) };
    let worker = fixture.work(patient);
    fixture.fire(&[alert("acme", &[Channel::Email])]).await?;
    let waiting = fixture.one(|one| one.attempts >= 2).await?;
    assert_eq!(waiting.status, "pending");
    assert!(waiting.error.contains("451") && waiting.error.contains("try again later"), "{}", waiting.error);
    server.feel(Mood::Take);
    let delivered = fixture.one(|one| one.status == "delivered").await?;
    assert_eq!((server.mails().len(), delivered.error.as_str()), (1, ""));

    server.feel(Mood::RefuseForGood);
    fixture.fire(&[alert("beta", &[Channel::Email])]).await?;
    sleep(A_WHILE).await;
    assert_eq!(fixture.notifications().await?.len(), 1, "beta has no contacts");
    fixture.execute("delete from delivery.notification").await?;
    fixture.fire(&[alert("acme", &[Channel::Email])]).await?;
    let parked = fixture.one(|one| one.status == "parked").await?;
    assert_eq!(parked.attempts, 1);
    assert!(parked.error.contains("550") && parked.error.contains("nobody of that name"), "{}", parked.error);
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_acceptance_was_lost_comes_again_under_the_same_id() -> Result<()> {
    let (fixture, server) = (Fixture::new().await?, MailServer::start(Mood::HangUpAfterData).await?);
    fixture.set_admins("acme", &[("carl", "carl@example.test")]).await?;
    let worker = fixture.work(DeliveryConfig { delivery_attempts: 100, ..soon(&server.url()) });
    fixture.fire(&[alert("acme", &[Channel::Email])]).await?;
    server.wait_for(1).await?;
    server.feel(Mood::Take);
    fixture.one(|one| one.status == "delivered").await?;
    let mails = server.mails();
    assert!(mails.len() >= 2, "{mails:?}");
    let ids: BTreeSet<_> = mails.iter().map(|mail| mail.header("Message-ID")).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    worker.stop().await
}

/// Fault 31.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_between_sending_and_marking_leaves_a_mail_that_comes_again_under_the_same_id()
-> Result<()> {
    let (fixture, server) = (Fixture::new().await?, MailServer::start(Mood::Take).await?);
    fixture.set_admins("acme", &[("carl", "carl@example.test")]).await?;
    fixture.fire(&[alert("acme", &[Channel::Email])]).await?;
    let mut killed = fixture.work_until("delivery.after_send", &server.url())?;
    server.wait_for(1).await?;
    killed.ended().await?;
    let left = fixture.one(|one| one.status == "pending").await?;
    assert_eq!((left.attempts, left.is_sent), (1, false));

    let worker = fixture.work(soon(&server.url()));
    sleep(A_WHILE).await;
    assert_eq!(server.mails().len(), 1, "its lease still stands");
    fixture.execute("update delivery.notification set leased_until = clock_timestamp()").await?;
    let delivered = fixture.one(|one| one.status == "delivered").await?;
    assert_eq!((delivered.id, delivered.attempts), (left.id, 2));
    let ids: Vec<_> =
        server.mails().iter().map(|mail| mail.header("Message-ID").map(str::to_owned)).collect();
    assert_eq!((ids.len(), &ids[0]), (2, &ids[1]));
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_keeps_others_away_until_it_runs_out() -> Result<()> {
    let (fixture, server) = (Fixture::new().await?, MailServer::start(Mood::Take).await?);
    fixture.set_admins("acme", &[("carl", "carl@example.test")]).await?;
    let expanding = fixture.work(soon(""));
    fixture.fire(&[alert("acme", &[Channel::Email])]).await?;
    fixture.one(|one| one.status == "parked").await?;
    expanding.stop().await?;
    fixture
        .execute(
            "update delivery.notification
             set status = 'pending', lease = gen_random_uuid(), leased_until = clock_timestamp() + interval '5 s'",
        )
        .await?;
    let worker = fixture.work(soon(&server.url()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(server.mails().len(), 0);
    fixture.one(|one| one.status == "delivered").await?;
    assert_eq!(server.mails().len(), 1);
    worker.stop().await
}

/// Fault 10, for delivery.
#[tokio::test(flavor = "multi_thread")]
async fn workers_side_by_side_send_each_mail_once() -> Result<()> {
    let (fixture, server) = (Fixture::new().await?, MailServer::start(Mood::Take).await?);
    let admins: Vec<(String, String)> =
        (0..10).map(|n| (format!("admin-{n}"), format!("admin-{n}@example.test"))).collect();
    let admins: Vec<(&str, &str)> = admins.iter().map(|(id, email)| (id.as_str(), email.as_str())).collect();
    fixture.set_admins("acme", &admins).await?;
    let workers: Vec<_> = (0..3).map(|_| fixture.work(soon(&server.url()))).collect();
    for _ in 0..6 {
        fixture.fire(&[alert("acme", &[Channel::Email]), alert("acme", &[Channel::Email])]).await?;
    }
    fixture.all(120, "delivered").await?;
    sleep(A_WHILE).await;
    let mails = server.mails();
    let ids: BTreeSet<_> = mails.iter().map(|mail| mail.header("Message-ID")).collect();
    assert_eq!((mails.len(), ids.len()), (120, 120));
    for worker in workers {
        worker.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_what_is_being_sent_end() -> Result<()> {
    let (fixture, server) = (Fixture::new().await?, MailServer::start(Mood::TakeSlowly).await?);
    fixture.set_admins("acme", &[("carl", "carl@example.test")]).await?;
    let worker = fixture.work(soon(&server.url()));
    fixture.fire(&[alert("acme", &[Channel::Email])]).await?;
    fixture.one(|one| one.attempts == 1).await?;
    worker.stop().await?;
    let one = fixture.notifications().await?.pop().context("one")?;
    assert_eq!((one.status.as_str(), server.mails().len()), ("delivered", 1));
    Ok(())
}
