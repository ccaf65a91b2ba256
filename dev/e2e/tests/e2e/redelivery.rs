//! Redelivery: a parked notification stays parked until `ledger redeliver`, or an admin, sends it again.

use std::collections::BTreeSet;
use std::time::Duration;

use alert_worker::delivery::DeliveryConfig;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::Whole;
use ledger::redeliver::{self, Redeliver};
use ledger_core::event::{Channel, Recipients};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fixture::{FROM, Fixture, alert, id, soon};
use crate::server::{MailServer, Mood};

/// Many polls of a worker: a second mail would have come by then.
const A_WHILE: Duration = Duration::from_millis(500);

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    asked: Redeliver,
}

async fn redelivered(fixture: &Fixture, arguments: &[&str]) -> Result<String> {
    redelivered_in(&fixture.space.database_url, arguments).await
}

/// Runs `ledger redeliver` and returns its output.
pub async fn redelivered_in(database_url: &str, arguments: &[&str]) -> Result<String> {
    let given = ["redeliver", "--database-url", database_url];
    let asked = Arguments::try_parse_from(given.iter().chain(arguments))?.asked;
    let mut said = Vec::new();
    redeliver::run(&asked, &mut said).await?;
    Ok(String::from_utf8(said)?)
}

/// Fault 33.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_waits_for_a_server_that_is_down_is_parked_and_goes_out_again_on_demand() -> Result<()> {
    let (fixture, mut server) = (Fixture::new().await?, MailServer::start(Mood::Take).await?);
    server.go_down().await;
    fixture.set_admins("acme", &[("carl", "carl@example.test")]).await?;
    // Long enough for a test that stalls to see it between two attempts.
    let patient = DeliveryConfig { delivery_first_backoff_ms: 2_000, ..soon(&server.url()) };
    let worker = fixture.work(patient);
    fixture.fire(&[alert("acme", &[Channel::Email])]).await?;
    fixture.one(|one| one.status == "pending" && one.attempts > 0 && !one.error.is_empty()).await?;
    let parked = fixture.one(|one| one.status == "parked").await?;
    assert_eq!((parked.attempts, parked.is_sent), (3, false));
    assert!(parked.error.contains("Connection error"), "{}", parked.error);

    server.come_up().await?;
    sleep(A_WHILE).await;
    assert_eq!(server.mails().len(), 0, "what is parked stays so by itself");
    assert!(
        redelivered(&fixture, &["--account", "beta"])
            .await?
            .contains("0 notifications go out again, 0 can't")
    );
    let said = redelivered(&fixture, &["--account", "acme"]).await?;
    assert!(said.contains(&format!("{}: email to carl of acme goes out again", parked.id)), "{said}");
    assert!(said.contains("1 notification goes out again, 0 can't"), "{said}");
    let delivered = fixture.one(|one| one.status == "delivered").await?;
    let message_id = format!("<{}@example.test>", parked.id);
    assert_eq!((delivered.id, delivered.attempts), (parked.id, 1));
    assert_eq!(server.mails()[0].header("Message-ID"), Some(message_id.as_str()));
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_go_out_is_parked_with_the_reason_until_somebody_mends_it() -> Result<()> {
    let (fixture, server) = (Fixture::new().await?, MailServer::start(Mood::Take).await?);
    fixture.set_admins("acme", &[("carl", "carl@example.test"), ("dora", "")]).await?;
    let worker = fixture.work(soon(""));
    let mut row = alert("acme", &[Channel::Email]);
    row.firing.audience.recipients = Recipients::These(vec![id("carl"), id("dora"), id("zoe")]);
    fixture.fire(&[row]).await?;
    let parked = fixture.all(3, "parked").await?;
    let reasons: Vec<&str> = parked.iter().map(|one| one.error.as_str()).collect();
    let expected = [
        "no mail server is configured",
        "dora has no e-mail address in the contacts of the account",
        "zoe is not among the contacts of the account",
    ];
    assert_eq!(reasons, expected);
    worker.stop().await?;

    let worker = fixture.work(soon(&server.url()));
    fixture.set_admins("acme", &[("carl", "carl@new.test"), ("dora", "dora@new.test")]).await?;
    assert!(redelivered(&fixture, &["--notification", "unheard-of"]).await.is_err());
    let said = redelivered(&fixture, &["--notification", &parked[1].id]).await?;
    assert!(said.contains("1 notification goes out again, 0 can't"), "{said}");
    let said = redelivered(&fixture, &["--all-parked"]).await?;
    assert!(said.contains("zoe of acme does not go: zoe is not among the contacts of the account"), "{said}");
    server.wait_for(2).await?;
    let recipients: BTreeSet<String> = server.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(recipients, ["carl@new.test".to_owned(), "dora@new.test".to_owned()].into());
    worker.stop().await
}

/// Waits for a notification of the account in this state, and returns it.
async fn notified(whole: &Whole, status: &str) -> Result<Value> {
    let path = format!("/v1/accounts/acme/notifications?channel=email&status={status}");
    for _ in 0..1_200 {
        let list = whole.operator().get(&path).await?;
        if let Some(one) = list.expect(200)?.body["items"].as_array().and_then(|items| items.first()) {
            return Ok(one.clone());
        }
        sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("no notification is {status}")
}

/// Opens two accounts, and lets a mail to carl of `acme` be parked; returns its id.
async fn parked(whole: &Whole) -> Result<String> {
    let operator = whole.operator();
    for account in ["acme", "beta"] {
        let opened = json!({"account_id": account, "plan": {"cycle": "monthly", "allowance": "100"}});
        operator.post("/v1/accounts", opened).await?.expect(200)?;
    }
    let contacts = json!({"admins": [{"id": "carl", "email": "carl@old.test"}]});
    operator.put("/v1/accounts/acme/contacts", contacts).await?.expect(200)?;
    let alert = json!({"basis": "absolute_used", "threshold": "5", "channels": ["email", "in_app"]});
    operator.put("/v1/accounts/acme/alerts/five", alert).await?.expect(200)?;
    let usage = json!({"id": "u1", "occurred_at": platform::clock::now(), "credits": "10"});
    operator.post("/v1/accounts/acme/usage?wait=true", usage).await?.expect(200)?;
    let parked = notified(whole, "parked").await?;
    Ok(parked["notification_id"].as_str().context("an id")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sends_a_parked_mail_again_over_http_and_it_arrives_once() -> Result<()> {
    let server = MailServer::start(Mood::RefuseForGood).await?;
    let whole = Whole::start_with(&["--smtp-url", &server.url(), "--mail-from", FROM]).await?;
    let id = parked(&whole).await?;
    let path = |account: &str, id: &str| format!("/v1/accounts/{account}/notifications/{id}/resend");
    let (operator, admin) = (whole.operator(), whole.keyed("admin", &["acme"], None).await?);
    operator.put("/v1/accounts/acme/contacts", json!({"admins": [{"id": "carl"}]})).await?.expect(200)?;
    admin.post_nothing(&path("acme", &id)).await?.expect_problem(422, "notification_has_no_way")?;
    let contacts = json!({"admins": [{"id": "carl", "email": "carl@new.test"}]});
    operator.put("/v1/accounts/acme/contacts", contacts).await?.expect(200)?;
    admin.post_nothing(&path("acme", "unheard")).await?.expect_problem(404, "notification_not_found")?;
    operator.post_nothing(&path("beta", &id)).await?.expect_problem(404, "notification_not_found")?;
    operator.post_nothing(&path("nobody", &id)).await?.expect_problem(404, "account_not_found")?;

    server.feel(Mood::Take);
    // Of two at once, one sends it again.
    let (again, path) = (admin.clone(), path("acme", &id));
    let (one, two) = tokio::join!(admin.post_nothing(&path), again.post_nothing(&path));
    let (one, two) = (one?, two?);
    let (sent, refused) = if one.status == 200 { (one, two) } else { (two, one) };
    ensure!(sent.expect(200)?.body["status"] == "pending", "{}", sent.text);
    refused.expect_problem(409, "notification_not_parked")?;
    let delivered = notified(&whole, "delivered").await?;
    ensure!(delivered["notification_id"] == id.as_str() && delivered["attempts"] == 1, "{delivered}");
    sleep(A_WHILE).await;
    let mails = server.mails();
    ensure!(mails.len() == 1 && mails[0].to == "carl@new.test", "{mails:?}");
    admin.post_nothing(&path).await?.expect_problem(409, "notification_not_parked")?;
    whole.replay_and_stop().await
}
